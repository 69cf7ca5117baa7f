-- A task that must be heard: the longest silence in microseconds, and from when on it counts as
-- silent. A task is looked at when the first of that and its deadline has passed; the index on
-- the deadline alone is of no use any more.
ALTER TABLE tasks ADD COLUMN heartbeat INTEGER CHECK (heartbeat > 0);
ALTER TABLE tasks ADD COLUMN lost_at INTEGER CHECK ((lost_at IS NULL) = (heartbeat IS NULL));
CREATE INDEX tasks_due_first ON tasks (min(expires_at, ifnull(lost_at, expires_at))) WHERE ended IS NULL;
DROP INDEX tasks_due;
