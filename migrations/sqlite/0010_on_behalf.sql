-- The person on whose behalf a task was opened (issuer and subject, and what the issuer calls
-- them), and so a lease of it: who asked, beside `principal`, who acts.
ALTER TABLE tasks ADD COLUMN on_behalf_of TEXT;
ALTER TABLE tasks ADD COLUMN on_behalf_name TEXT CHECK (on_behalf_name IS NULL OR on_behalf_of IS NOT NULL);
ALTER TABLE leases ADD COLUMN on_behalf_of TEXT;
ALTER TABLE leases ADD COLUMN on_behalf_name TEXT CHECK (on_behalf_name IS NULL OR on_behalf_of IS NOT NULL);
CREATE INDEX tasks_on_behalf ON tasks (on_behalf_of) WHERE ended IS NULL AND on_behalf_of IS NOT NULL;
