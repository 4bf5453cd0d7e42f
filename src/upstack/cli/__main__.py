"""`python -m upstack.cli`."""

from upstack.cli import main

main()
