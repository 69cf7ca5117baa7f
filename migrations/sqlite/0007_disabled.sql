-- Identities that open no tasks: with tokens from before a cut-off, or with none at all where there
-- is no cut-off. `ending` until the tasks that were open then have been ended, so that whoever is
-- left after a crash knows of it.
CREATE TABLE disabled (
    principal TEXT PRIMARY KEY,
    cut_off INTEGER,
    disabled_at INTEGER NOT NULL,
    disabled_by TEXT NOT NULL,
    reason TEXT,
    ending INTEGER NOT NULL CHECK (ending IN (0, 1)),
    expires_at INTEGER,
    CHECK ((expires_at IS NULL) = (cut_off IS NULL))
) STRICT;
CREATE INDEX disabled_ending ON disabled (disabled_at) WHERE ending = 1;
CREATE INDEX tasks_of_principal ON tasks (principal) WHERE ended IS NULL;
