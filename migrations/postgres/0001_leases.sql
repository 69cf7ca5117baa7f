-- Leases, tasks, audit, replayed tokens, idempotency keys and API keys.
-- Times are the database's own. A row of `leases` is never deleted while its credential may
-- exist; the reaper is driven by the one column `due_at`.

CREATE TABLE installation (
    only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    suspended_at timestamptz,
    suspended_reason text,
    hold_from timestamptz,
    hold_to timestamptz,
    hold_until timestamptz,
    -- What the store's server is recognised by: its system identifier and timeline. Another
    -- one is a server that was promoted or restored, and may lack commits.
    server text,
    CHECK ((suspended_at IS NULL) = (suspended_reason IS NULL)),
    CHECK ((hold_from IS NULL) = (hold_to IS NULL) AND (hold_from IS NULL) = (hold_until IS NULL))
);

INSERT INTO installation (id) VALUES (gen_random_uuid());

-- How many sweeps of each backend have begun. The backend's marker remembers the last one, so
-- that a store that has not come as far is known to have lost commits.
CREATE TABLE sweeps (
    backend text PRIMARY KEY,
    turn bigint NOT NULL CHECK (turn > 0),
    began_at timestamptz NOT NULL
);

CREATE TABLE tasks (
    id uuid PRIMARY KEY,
    principal text NOT NULL,
    issuer text NOT NULL,
    identity jsonb NOT NULL,
    purpose text NOT NULL,
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    opened_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CHECK (expires_at > opened_at),
    ended text CHECK (ended IN ('cancelled', 'completed', 'expired', 'failed', 'lost', 'revoked')),
    closed_at timestamptz,
    CHECK ((ended IS NULL) = (closed_at IS NULL))
);
CREATE INDEX tasks_due ON tasks (expires_at) WHERE ended IS NULL;

CREATE TABLE leases (
    id uuid PRIMARY KEY,
    task uuid NOT NULL REFERENCES tasks,
    principal text NOT NULL,
    issuer text NOT NULL,
    role text NOT NULL,
    backend text NOT NULL,
    handle text NOT NULL CHECK (handle ~ '^[a-z][a-z0-9_]{0,62}$'),
    decision_chain uuid NOT NULL,
    decision_seq bigint NOT NULL,
    epoch bigint NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'active', 'revoking', 'revoked', 'abandoned')),
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    max_expires_at timestamptz NOT NULL,
    native_expires_at timestamptz,
    mint_deadline timestamptz NOT NULL,
    settle_at timestamptz,
    activated_at timestamptz,
    delivered_at timestamptz,
    cause text,
    revoking_at timestamptz,
    revoked_at timestamptz,
    due_at timestamptz,
    next_attempt_at timestamptz,
    attempts integer NOT NULL CHECK (attempts >= 0),
    error_class text,
    claim_owner uuid,
    claim_since timestamptz,
    claim_until timestamptz,
    renewable boolean NOT NULL,
    belts text[] NOT NULL,
    plan jsonb NOT NULL,
    abandon_by text,
    abandon_reason text,
    abandon_at timestamptz,
    quarantined text,
    UNIQUE (backend, handle),
    -- Never "0 means for ever" (CVE-2021-32923): an expiry is there, after the beginning and
    -- within its maximum.
    CHECK (expires_at > issued_at AND expires_at <= max_expires_at),
    CHECK ((state = 'active') <= (activated_at IS NOT NULL)),
    CHECK ((cause IS NOT NULL) = (state IN ('revoking', 'revoked', 'abandoned'))),
    CHECK ((revoking_at IS NOT NULL) = (state IN ('revoking', 'revoked', 'abandoned'))),
    CHECK ((revoked_at IS NOT NULL) = (state IN ('revoked', 'abandoned'))),
    -- Whatever may be alive has a scheduled death.
    CHECK ((due_at IS NULL) = (state IN ('revoked', 'abandoned'))),
    CHECK ((claim_owner IS NULL) = (claim_until IS NULL)),
    CHECK ((claim_since IS NULL) = (claim_until IS NULL)),
    CHECK ((abandon_by IS NULL) = (abandon_at IS NULL)),
    CHECK ((abandon_reason IS NULL) = (abandon_at IS NULL))
);
CREATE INDEX leases_due ON leases (backend, due_at) WHERE due_at IS NOT NULL AND quarantined IS NULL;
CREATE INDEX leases_of_task ON leases (task);
-- Covers the count of what may live, which every scrape of the metrics asks for.
CREATE INDEX leases_living ON leases (backend, state, revoking_at, due_at) WHERE state IN ('pending', 'active', 'revoking');
CREATE INDEX leases_by_state ON leases (state, id DESC) WHERE state IN ('pending', 'active', 'revoking');
CREATE INDEX leases_ended ON leases (revoked_at) WHERE revoked_at IS NOT NULL;
CREATE INDEX leases_claimed ON leases (claim_owner) WHERE claim_owner IS NOT NULL;
CREATE INDEX leases_quarantined ON leases (id) WHERE quarantined IS NOT NULL;

CREATE TABLE idempotency_keys (
    task uuid NOT NULL REFERENCES tasks,
    key text NOT NULL,
    request bytea NOT NULL CHECK (octet_length(request) = 32),
    lease uuid NOT NULL,
    PRIMARY KEY (task, key)
);

CREATE TABLE replayed (
    key text PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX replayed_expired ON replayed (expires_at);

CREATE TABLE audit_chains (
    chain uuid PRIMARY KEY,
    seq bigint NOT NULL CHECK (seq >= 0),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    opened_at timestamptz NOT NULL
);

CREATE TABLE audit_records (
    chain uuid NOT NULL REFERENCES audit_chains,
    seq bigint NOT NULL CHECK (seq > 0),
    at timestamptz NOT NULL,
    event text NOT NULL,
    actor text NOT NULL,
    task uuid,
    lease uuid,
    -- The exact text that was hashed, so not json.
    detail text NOT NULL,
    prev bytea NOT NULL CHECK (octet_length(prev) = 32),
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    signature bytea,
    PRIMARY KEY (chain, seq)
);
CREATE INDEX audit_by_time ON audit_records (at, chain, seq);
CREATE INDEX audit_by_lease ON audit_records (lease) WHERE lease IS NOT NULL;
CREATE INDEX audit_by_task ON audit_records (task) WHERE task IS NOT NULL;

CREATE TABLE api_keys (
    handle text PRIMARY KEY,
    hash bytea NOT NULL UNIQUE CHECK (octet_length(hash) = 32),
    principal text NOT NULL,
    lease text NOT NULL,
    scopes text[] NOT NULL,
    expires_at timestamptz NOT NULL
);
