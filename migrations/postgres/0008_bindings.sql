-- What a task's token is bound to: the SHA-256 of a client certificate, or the SHA-256 thumbprint
-- of a key's JWK. Without it whoever has the token may use it. A replica of the version before
-- does not know of it, and takes a bound token from anybody while it runs.
ALTER TABLE tasks ADD COLUMN bound_by text CHECK (bound_by IN ('certificate', 'key'));
ALTER TABLE tasks ADD COLUMN bound_to bytea CHECK (octet_length(bound_to) = 32);
ALTER TABLE tasks ADD CHECK ((bound_by IS NULL) = (bound_to IS NULL));
-- The key that an identity token was proven with first, where the row stands for that.
ALTER TABLE replayed ADD COLUMN bound_to bytea CHECK (octet_length(bound_to) = 32);
