//! The Dayfly broker.
