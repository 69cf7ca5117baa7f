-- Which job a task runs in, and which run of jobs, as its verified claims say. When one of them
-- ends, so do its open tasks; and its end is remembered for a while, so that no task is opened
-- in it any more. `place` is the order in which the ends came of one teller, for its oldest to be
-- forgotten: nobody has those of another forgotten.
ALTER TABLE tasks ADD COLUMN run text;
ALTER TABLE tasks ADD COLUMN job text;
CREATE INDEX tasks_run ON tasks (run) WHERE ended IS NULL AND run IS NOT NULL;
CREATE INDEX tasks_job ON tasks (job) WHERE ended IS NULL AND job IS NOT NULL;
CREATE TABLE ended_jobs (
    key text PRIMARY KEY,
    told_by text NOT NULL,
    place bigint NOT NULL,
    ended text NOT NULL CHECK (ended IN ('cancelled', 'completed', 'failed')),
    expires_at timestamptz NOT NULL
);
CREATE INDEX ended_jobs_place ON ended_jobs (told_by, place);
CREATE INDEX ended_jobs_expired ON ended_jobs (expires_at);
