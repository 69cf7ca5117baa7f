-- What a mint kept for the lease's end, sealed: an id that the backend chose, or the secret
-- itself where nothing else revokes it. Erased at death.
ALTER TABLE leases ADD COLUMN kept BLOB CHECK (kept IS NULL OR state <> 'revoked');
