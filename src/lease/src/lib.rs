//! The lease engine: no credential without a lease, no lease forgotten.
