-- What quotas count: leases that may live, by role and by principal, and what was minted in the
-- last minute.
CREATE INDEX leases_living_of_role ON leases (role, principal) WHERE state IN ('pending', 'active', 'revoking');
CREATE INDEX leases_living_of_principal ON leases (principal) WHERE state IN ('pending', 'active', 'revoking');
CREATE INDEX leases_issued ON leases (backend, issued_at, role, principal);
