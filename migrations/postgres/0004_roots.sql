-- Our own password at each backend that lets us change it, sealed. While one is staged nobody
-- knows which of the two the backend accepts.
CREATE TABLE roots (
    backend text PRIMARY KEY,
    epoch bigint NOT NULL CHECK (epoch > 0),
    current bytea,
    staged bytea,
    staged_at timestamptz,
    rotated_at timestamptz,
    CHECK ((staged IS NULL) = (staged_at IS NULL)),
    CHECK ((current IS NULL) = (rotated_at IS NULL))
);
