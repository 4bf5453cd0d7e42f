"""What Alembic runs: the migrations, in the transaction of the connection it is given."""

from alembic import context

context.configure(connection=context.config.attributes["connection"], version_table="upstack_version")
context.run_migrations()
