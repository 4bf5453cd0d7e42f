-- Written by tools/write_schema.py (`make schema`) from tables.py: change it there, and add a migration.

CREATE TABLE certificates (
    id TEXT NOT NULL,
    task TEXT NOT NULL,
    submission INTEGER NOT NULL,
    place INTEGER NOT NULL,  -- of its plan in the order, from 0
    issued_at TEXT NOT NULL,
    expires_at TEXT NOT NULL,
    "plan" BLOB NOT NULL,  -- MessagePack
    summary TEXT NOT NULL,  -- JSON: what it stands on
    ended_at TEXT,
    ended_why TEXT,  -- expired, renewed, replaced, revoked: why, or changed: what
    PRIMARY KEY (id)
);
CREATE INDEX certificates_task ON certificates (task, issued_at);

CREATE TABLE chains (  -- one for each writer at a time
    id INTEGER NOT NULL,
    created_at TEXT NOT NULL,
    host TEXT NOT NULL,  -- where its latest writer runs
    genesis TEXT NOT NULL,  -- random; stands for the hash before the first row
    head_seq BIGINT NOT NULL,  -- the newest row
    head_hash TEXT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE checkpoints (  -- signed sayings of where a chain stood
    id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    chain INTEGER NOT NULL,
    seq BIGINT NOT NULL,
    hash TEXT NOT NULL,  -- of the row with that seq
    signer TEXT NOT NULL,  -- fingerprint of the public key
    signature TEXT NOT NULL,  -- Ed25519 over all the above
    PRIMARY KEY (id)
);

CREATE TABLE leases (  -- shares of a budget that several hosts spend from
    subject TEXT NOT NULL,  -- key/NAME, team/NAME or task/NAME
    period TEXT NOT NULL,  -- day 2026-01-31, month 2026-01 or total
    chain INTEGER NOT NULL,  -- of the host that holds it
    picodollars BIGINT NOT NULL,  -- what that host may spend in the period
    PRIMARY KEY (subject, period, chain)
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
    "key" TEXT,  -- name of the virtual key that asked
    team TEXT,  -- of the key
    episode TEXT,  -- the caller's name for what several requests belong to
    reserved_picodollars BIGINT,  -- held for each attempt: the most it may cost
    coin DOUBLE,  -- the chance of the coin that made it a check; NULL: it did not fall
    check_of TEXT,  -- id of the check that this was asked for, beside it
    request BLOB,
    chain INTEGER DEFAULT '0' NOT NULL,  -- whose writer noted it
    subject TEXT,
    cipher_key TEXT,
    PRIMARY KEY (id)
) WITHOUT ROWID;

CREATE TABLE outcomes (  -- what became of answers; rows are added, never changed
    seq INTEGER NOT NULL,  -- its place in the chain, among the receipts
    id TEXT NOT NULL,
    created_at TEXT NOT NULL,  -- when it was recorded
    observed_at TEXT NOT NULL,  -- when it was so, as its source says
    receipt TEXT,  -- id of the receipt it is about
    episode TEXT,  -- or the episode
    only_key TEXT,  -- of an episode: about the requests of this key alone
    name TEXT NOT NULL,  -- what was looked at; the latest of a name counts
    success INTEGER,  -- 1 or 0
    score DOUBLE,  -- 0 to 1
    withdrawn INTEGER NOT NULL,  -- 1: what was told before of this name is not known any more
    source TEXT NOT NULL,  -- who or what says so
    "key" TEXT NOT NULL,  -- name of the virtual key that told; empty: none was asked for
    idempotency_key TEXT NOT NULL,
    commitment TEXT,  -- salted hash of the comment and the demonstration; NULL: there is neither
    hash TEXT NOT NULL,
    PRIMARY KEY (seq),
    UNIQUE ("key", idempotency_key),
    UNIQUE (id)
);
CREATE INDEX outcomes_episode ON outcomes (episode) WHERE episode IS NOT NULL;
CREATE INDEX outcomes_receipt ON outcomes (receipt) WHERE receipt IS NOT NULL;

CREATE TABLE parts (  -- what a check may be used for: decided at first sight, for ever
    id TEXT NOT NULL,  -- of the check's receipt
    task TEXT NOT NULL,
    cluster TEXT NOT NULL,  -- id of the first check that is nearly the same
    part TEXT NOT NULL,  -- fit, evidence; repeat: evidence that its cluster has already
    PRIMARY KEY (id)
);
CREATE INDEX parts_task ON parts (task, id);

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
    "key" TEXT,  -- name of the virtual key that asked
    team TEXT,  -- of the key
    episode TEXT,  -- the caller's name for what several requests belong to
    reserved_picodollars BIGINT,  -- held for each attempt: the most it may cost
    coin DOUBLE,  -- the chance of the coin that made it a check; NULL: it did not fall
    check_of TEXT,  -- id of the check that this was asked for, beside it
    commitment TEXT,  -- salted hash of the content; NULL: none was kept
    hash TEXT,  -- of this row and the hash of the row before it in the chain
    PRIMARY KEY (seq),
    UNIQUE (id)
);
CREATE INDEX receipts_check_of ON receipts (check_of) WHERE check_of IS NOT NULL;
CREATE INDEX receipts_checks ON receipts (id) WHERE coin IS NOT NULL;
CREATE INDEX receipts_episode ON receipts (episode) WHERE episode IS NOT NULL;

CREATE TABLE rights (  -- what was said of a row's rights where it came in; what follows from it is worked out each time
    id TEXT NOT NULL,  -- of the receipt
    said TEXT NOT NULL,  -- JSON: licence, terms, consent, purpose, residency, source
    PRIMARY KEY (id)
);

CREATE TABLE snapshots (  -- frozen sets of rows, named by what they are
    id TEXT NOT NULL,  -- SHA-256 of the manifest
    task TEXT NOT NULL,
    created_at TEXT NOT NULL,
    manifest TEXT NOT NULL,  -- JSON: rows with hashes, parts and rights; what was dropped, why
    PRIMARY KEY (id)
);
CREATE INDEX snapshots_task ON snapshots (task, created_at);

CREATE TABLE spend (  -- sums over receipts, kept with every commit; they stay when receipts are removed
    day TEXT NOT NULL,  -- UTC, of when the request came in
    chain INTEGER NOT NULL,  -- so that no two writers share a row
    "key" TEXT NOT NULL,  -- empty: none
    team TEXT NOT NULL,  -- empty: none
    task TEXT NOT NULL,  -- empty: none
    route TEXT NOT NULL,  -- empty: none
    provider TEXT NOT NULL,  -- empty: none
    model TEXT NOT NULL,  -- empty: none
    requests BIGINT NOT NULL,  -- that ended with this route
    attempts BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    cost_picodollars BIGINT NOT NULL,  -- of the attempts whose cost is known
    unknown_attempts BIGINT NOT NULL,  -- those whose cost is not
    unknown_reserved_picodollars BIGINT NOT NULL,  -- what had been reserved for them
    PRIMARY KEY (day, chain, "key", team, task, route, provider, model)
) WITHOUT ROWID;

CREATE TABLE students (  -- small models of one's own
    id TEXT NOT NULL,  -- SHA-256 of the model, 16 digits
    task TEXT NOT NULL,
    created_at TEXT NOT NULL,
    snapshot TEXT NOT NULL,  -- id of what it learned from
    summary TEXT NOT NULL,  -- JSON: rung, lessons, rights, what it would have said unseen
    model BLOB,  -- safetensors; NULL: removed
    ended_at TEXT,
    ended_why TEXT,  -- replaced, forbidden: why, or retrain: why
    PRIMARY KEY (id)
);
CREATE INDEX students_task ON students (task, created_at);

CREATE TABLE submissions (  -- attempts to certify, each written before any evidence is read
    task TEXT NOT NULL,
    number INTEGER NOT NULL,  -- from 1, never reset
    created_at TEXT NOT NULL,
    since TEXT NOT NULL,  -- the first id that may be evidence
    rows BIGINT NOT NULL,  -- checks there were, to learn from and as evidence
    terms BLOB NOT NULL,  -- what is to be proved of which routes, as JSON
    plans BLOB NOT NULL,  -- MessagePack, in the order of the proof
    digest TEXT NOT NULL,  -- SHA-256 of the plans
    delta DOUBLE NOT NULL,  -- the error probability of this attempt
    ended_at TEXT,
    ended_why TEXT,
    eager INTEGER,  -- 1: a much cheaper plan is in sight, all requests are to be checks
    PRIMARY KEY (task, number)
);

CREATE TABLE tombstones (  -- what was removed on purpose: retention, erasure
    id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    kind TEXT NOT NULL,  -- rows: a stretch of the chain is gone; contents: only contents are
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    removed BIGINT NOT NULL,  -- how many rows or contents
    hash_before TEXT,  -- of rows: the hash the first followed
    hash_after TEXT,  -- of rows: the hash of the last
    seqs TEXT,  -- of contents: JSON, the seq of each receipt or outcome whose content is gone
    why TEXT NOT NULL,
    signer TEXT NOT NULL,  -- fingerprint of the public key
    signature TEXT NOT NULL,  -- Ed25519 over all the above
    PRIMARY KEY (id)
);

CREATE TABLE contents (
    receipt_seq INTEGER NOT NULL,
    request BLOB,  -- as the caller sent it; a salted digest where capture is hash
    answer BLOB,  -- as one chat completion, streamed or not
    salt BLOB,  -- goes into the receipt's commitment
    subject TEXT,  -- the person or thing it is about, as the caller said; goes with the content
    cipher_key TEXT,  -- id of the key in the keystore that it is encrypted under; NULL: it is not
    PRIMARY KEY (receipt_seq),
    FOREIGN KEY(receipt_seq) REFERENCES receipts (seq)
);
CREATE INDEX contents_cipher_key ON contents (cipher_key) WHERE cipher_key IS NOT NULL;
CREATE INDEX contents_subject ON contents (subject) WHERE subject IS NOT NULL;

CREATE TABLE outcome_contents (
    outcome_seq INTEGER NOT NULL,
    comment BLOB,
    demonstration BLOB,  -- the right answer
    salt BLOB,
    subject TEXT,
    cipher_key TEXT,
    PRIMARY KEY (outcome_seq),
    FOREIGN KEY(outcome_seq) REFERENCES outcomes (seq)
);
CREATE INDEX outcome_contents_cipher_key ON outcome_contents (cipher_key) WHERE cipher_key IS NOT NULL;
CREATE INDEX outcome_contents_subject ON outcome_contents (subject) WHERE subject IS NOT NULL;

CREATE TABLE upstack_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT upstack_version_pkc PRIMARY KEY (version_num)
);

INSERT INTO upstack_version VALUES ('0005');
