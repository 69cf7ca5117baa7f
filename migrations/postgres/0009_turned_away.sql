-- When a replica last turned a heartbeat away. No replica takes anybody to be silent for what
-- happened before.
ALTER TABLE installation ADD COLUMN turned_away_at timestamptz;
