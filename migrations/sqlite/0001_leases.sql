-- Leases, tasks, audit, replayed tokens, idempotency keys and API keys.
-- Times are microseconds since 1970 by the store's own clock, which never runs backwards:
-- `clock` keeps the latest instant that was ever used.

CREATE TABLE clock (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    seen INTEGER NOT NULL
) STRICT;
INSERT INTO clock VALUES (1, 0);

CREATE TABLE installation (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    id BLOB NOT NULL CHECK (length(id) = 16),
    created_at INTEGER NOT NULL,
    suspended_at INTEGER,
    suspended_reason TEXT,
    hold_from INTEGER,
    hold_to INTEGER,
    hold_until INTEGER,
    CHECK ((suspended_at IS NULL) = (suspended_reason IS NULL)),
    CHECK ((hold_from IS NULL) = (hold_to IS NULL) AND (hold_from IS NULL) = (hold_until IS NULL))
) STRICT;

INSERT INTO installation (only_one, id, created_at)
VALUES (1, randomblob(16), unixepoch() * 1000000);

-- How many sweeps of each backend have begun. The backend's marker remembers the last one, so
-- that a store that has not come as far is known to have lost commits.
CREATE TABLE sweeps (
    backend TEXT PRIMARY KEY,
    turn INTEGER NOT NULL CHECK (turn > 0),
    began_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    principal TEXT NOT NULL,
    issuer TEXT NOT NULL,
    identity TEXT NOT NULL,
    purpose TEXT NOT NULL,
    token_hash BLOB NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    opened_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL CHECK (expires_at > opened_at),
    ended TEXT CHECK (ended IN ('cancelled', 'completed', 'expired', 'failed', 'lost', 'revoked')),
    closed_at INTEGER,
    CHECK ((ended IS NULL) = (closed_at IS NULL))
) STRICT;
CREATE INDEX tasks_due ON tasks (expires_at) WHERE ended IS NULL;

CREATE TABLE leases (
    id BLOB PRIMARY KEY CHECK (length(id) = 16),
    task BLOB NOT NULL REFERENCES tasks,
    principal TEXT NOT NULL,
    issuer TEXT NOT NULL,
    role TEXT NOT NULL,
    backend TEXT NOT NULL,
    handle TEXT NOT NULL,
    decision_chain BLOB NOT NULL,
    decision_seq INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'revoking', 'revoked', 'abandoned')),
    issued_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    max_expires_at INTEGER NOT NULL,
    native_expires_at INTEGER,
    mint_deadline INTEGER NOT NULL,
    settle_at INTEGER,
    activated_at INTEGER,
    delivered_at INTEGER,
    cause TEXT,
    revoking_at INTEGER,
    revoked_at INTEGER,
    due_at INTEGER,
    next_attempt_at INTEGER,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    error_class TEXT,
    claim_owner BLOB,
    claim_since INTEGER,
    claim_until INTEGER,
    renewable INTEGER NOT NULL,
    belts TEXT NOT NULL,
    plan TEXT NOT NULL,
    abandon_by TEXT,
    abandon_reason TEXT,
    abandon_at INTEGER,
    quarantined TEXT,
    UNIQUE (backend, handle),
    CHECK (expires_at > issued_at AND expires_at <= max_expires_at),
    CHECK (state <> 'active' OR activated_at IS NOT NULL),
    CHECK ((cause IS NOT NULL) = (state IN ('revoking', 'revoked', 'abandoned'))),
    CHECK ((revoking_at IS NOT NULL) = (state IN ('revoking', 'revoked', 'abandoned'))),
    CHECK ((revoked_at IS NOT NULL) = (state IN ('revoked', 'abandoned'))),
    -- Whatever may be alive has a scheduled death.
    CHECK ((due_at IS NULL) = (state IN ('revoked', 'abandoned'))),
    CHECK ((claim_owner IS NULL) = (claim_until IS NULL)),
    CHECK ((claim_since IS NULL) = (claim_until IS NULL)),
    CHECK ((abandon_by IS NULL) = (abandon_at IS NULL)),
    CHECK ((abandon_reason IS NULL) = (abandon_at IS NULL))
) STRICT;
CREATE INDEX leases_due ON leases (backend, due_at) WHERE due_at IS NOT NULL AND quarantined IS NULL;
CREATE INDEX leases_of_task ON leases (task);
-- Covers the count of what may live, which every scrape of the metrics asks for.
CREATE INDEX leases_living ON leases (backend, state, revoking_at, due_at) WHERE state IN ('pending', 'active', 'revoking');
CREATE INDEX leases_by_state ON leases (state, id DESC) WHERE state IN ('pending', 'active', 'revoking');
CREATE INDEX leases_ended ON leases (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX leases_claimed ON leases (claim_owner) WHERE claim_owner IS NOT NULL;
CREATE INDEX leases_quarantined ON leases (id) WHERE quarantined IS NOT NULL;

CREATE TABLE idempotency_keys (
    task BLOB NOT NULL REFERENCES tasks,
    key TEXT NOT NULL,
    request BLOB NOT NULL,
    lease BLOB NOT NULL,
    PRIMARY KEY (task, key)
) STRICT;

CREATE TABLE replayed (
    key TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX replayed_expired ON replayed (expires_at);

CREATE TABLE audit_chains (
    chain BLOB PRIMARY KEY,
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    opened_at INTEGER NOT NULL
) STRICT;

CREATE TABLE audit_records (
    chain BLOB NOT NULL REFERENCES audit_chains,
    seq INTEGER NOT NULL CHECK (seq > 0),
    at INTEGER NOT NULL,
    event TEXT NOT NULL,
    actor TEXT NOT NULL,
    task BLOB,
    lease BLOB,
    detail TEXT NOT NULL,
    prev BLOB NOT NULL,
    hash BLOB NOT NULL,
    signature BLOB,
    PRIMARY KEY (chain, seq)
) STRICT;
CREATE INDEX audit_by_time ON audit_records (at, chain, seq);
CREATE INDEX audit_by_lease ON audit_records (lease) WHERE lease IS NOT NULL;
CREATE INDEX audit_by_task ON audit_records (task) WHERE task IS NOT NULL;

CREATE TABLE api_keys (
    handle TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    lease TEXT NOT NULL,
    scopes TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
