-- What a task's token is bound to: the SHA-256 of a client certificate, or the SHA-256 thumbprint
-- of a key's JWK. Without it whoever has the token may use it.
ALTER TABLE tasks ADD COLUMN bound_by TEXT CHECK (bound_by IN ('certificate', 'key'));
ALTER TABLE tasks ADD COLUMN bound_to BLOB CHECK (length(bound_to) = 32) CHECK ((bound_by IS NULL) = (bound_to IS NULL));
-- The key that an identity token was proven with first, where the row stands for that.
ALTER TABLE replayed ADD COLUMN bound_to BLOB CHECK (length(bound_to) = 32);
