-- The person on whose behalf a task was opened (issuer and subject, and what the issuer calls
-- them), and so a lease of it: who asked, beside `principal`, who acts. A replica of the version
-- before does not know of it: it asks the rules about the principal alone, and does not end the
-- task when the person is disabled.
ALTER TABLE tasks ADD COLUMN on_behalf_of text;
ALTER TABLE tasks ADD COLUMN on_behalf_name text;
ALTER TABLE tasks ADD CHECK (on_behalf_name IS NULL OR on_behalf_of IS NOT NULL);
ALTER TABLE leases ADD COLUMN on_behalf_of text;
ALTER TABLE leases ADD COLUMN on_behalf_name text;
ALTER TABLE leases ADD CHECK (on_behalf_name IS NULL OR on_behalf_of IS NOT NULL);
CREATE INDEX tasks_on_behalf ON tasks (on_behalf_of) WHERE ended IS NULL AND on_behalf_of IS NOT NULL;
