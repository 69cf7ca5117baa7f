//! Leases, tasks and audit on PostgreSQL and on embedded SQLite.
