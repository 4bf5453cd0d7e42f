-- Written by tools/write_schema.py (`make schema`) from tables.py: change it there, and add a migration.

CREATE TABLE chains (  -- one for each writer at a time
    id INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    host TEXT NOT NULL,  -- where its latest writer runs
    genesis TEXT NOT NULL,  -- random; stands for the hash before the first row
    head_seq BIGINT NOT NULL,  -- the newest row
    head_hash TEXT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE openings (  -- streams that may have begun and have not ended
    id TEXT NOT NULL,
    created_at TEXT NOT NULL,  -- when the request came in
    state TEXT NOT NULL,  -- answered, truncated, failed, cancelled; open: not ended yet
    model TEXT NOT NULL,  -- as the caller named it
    task TEXT,
    strategy TEXT NOT NULL,
    "plan" TEXT NOT NULL,  -- the targets in the order they would be asked
    why TEXT NOT NULL,
    route TEXT,  -- the one that answered
    stream INTEGER NOT NULL,
    status INTEGER NOT NULL,  -- HTTP status the caller saw
    error TEXT,  -- code of what went wrong
    input_tokens BIGINT,
    output_tokens BIGINT,
    cached_input_tokens BIGINT,  -- part of input_tokens
    cache_write_tokens BIGINT,  -- part of input_tokens
    reasoning_tokens BIGINT,  -- part of output_tokens
    cost_picodollars BIGINT,  -- 1 USD = 10^12; NULL: unknown, never 0
    first_byte_s DOUBLE,
    duration_s DOUBLE NOT NULL,
    attempts TEXT NOT NULL,  -- JSON, in the order they were made
    capture TEXT NOT NULL,
    request BLOB,
    chain INTEGER DEFAULT '0' NOT NULL,  -- whose writer noted it
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE TABLE receipts (
    seq INTEGER NOT NULL,  -- chain * 2^40 + position in the chain, from 1
    id TEXT NOT NULL,
    created_at TEXT NOT NULL,  -- when the request came in
    state TEXT NOT NULL,  -- answered, truncated, failed, cancelled; open: not ended yet
    model TEXT NOT NULL,  -- as the caller named it
    task TEXT,
    strategy TEXT NOT NULL,
    "plan" TEXT NOT NULL,  -- the targets in the order they would be asked
    why TEXT NOT NULL,
    route TEXT,  -- the one that answered
    stream INTEGER NOT NULL,
    status INTEGER NOT NULL,  -- HTTP status the caller saw
    error TEXT,  -- code of what went wrong
    input_tokens BIGINT,
    output_tokens BIGINT,
    cached_input_tokens BIGINT,  -- part of input_tokens
    cache_write_tokens BIGINT,  -- part of input_tokens
    reasoning_tokens BIGINT,  -- part of output_tokens
    cost_picodollars BIGINT,  -- 1 USD = 10^12; NULL: unknown, never 0
    first_byte_s DOUBLE,
    duration_s DOUBLE NOT NULL,
    attempts TEXT NOT NULL,  -- JSON, in the order they were made
    capture TEXT NOT NULL,
    commitment TEXT,  -- salted hash of the content; NULL: none was kept
    hash TEXT,  -- of this row and the hash of the row before it in the chain
    PRIMARY KEY (seq),
    UNIQUE (id)
);

CREATE TABLE contents (
    receipt_seq INTEGER NOT NULL,
    request BLOB,  -- as the caller sent it; a salted digest where capture is hash
    answer BLOB,  -- as one chat completion, streamed or not
    salt BLOB,  -- goes into the receipt's commitment
    PRIMARY KEY (receipt_seq),
    FOREIGN KEY(receipt_seq) REFERENCES receipts (seq)
);

CREATE TABLE upstack_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT upstack_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO upstack_version VALUES ('0002');
