//! PostgreSQL login roles with a lifetime.
