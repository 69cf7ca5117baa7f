//! API keys that Dayfly itself verifies.
