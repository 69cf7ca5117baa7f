//! The suites against real servers and real clients, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by panicking what does not hold"
)]

mod faults;
mod main_job;
mod refusals;
