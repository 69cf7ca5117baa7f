-- A task that must be heard: the longest silence in microseconds, and from when on it counts as
-- silent. A task is looked at when the first of that and its deadline has passed; LEAST passes
-- over a NULL. The index on the deadline alone stays for replicas of the version before, which
-- may still be running.
ALTER TABLE tasks ADD COLUMN heartbeat bigint CHECK (heartbeat > 0);
ALTER TABLE tasks ADD COLUMN lost_at timestamptz;
ALTER TABLE tasks ADD CHECK ((lost_at IS NULL) = (heartbeat IS NULL));
CREATE INDEX tasks_due_first ON tasks (LEAST(expires_at, lost_at)) WHERE ended IS NULL;
