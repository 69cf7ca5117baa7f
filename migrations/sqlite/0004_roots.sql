-- Our own password at each backend that lets us change it, sealed. While one is staged nobody
-- knows which of the two the backend accepts.
CREATE TABLE roots (
    backend TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    current BLOB,
    staged BLOB,
    staged_at INTEGER,
    rotated_at INTEGER,
    CHECK ((staged IS NULL) = (staged_at IS NULL)),
    CHECK ((current IS NULL) = (rotated_at IS NULL))
) STRICT;
