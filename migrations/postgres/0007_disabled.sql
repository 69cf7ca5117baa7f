-- Identities that open no tasks: with tokens from before a cut-off, or with none at all where there
-- is no cut-off. `ending` until the tasks that were open then have been ended, so that whoever is
-- left after a crash knows of it.
CREATE TABLE disabled (
    principal text PRIMARY KEY,
    cut_off timestamptz,
    disabled_at timestamptz NOT NULL,
    disabled_by text NOT NULL,
    reason text,
    ending boolean NOT NULL,
    expires_at timestamptz,
    CHECK ((expires_at IS NULL) = (cut_off IS NULL))
);
CREATE INDEX disabled_ending ON disabled (disabled_at) WHERE ending;
CREATE INDEX tasks_of_principal ON tasks (principal) WHERE ended IS NULL;
