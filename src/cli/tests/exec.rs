//! The real program against a broker that answers as each test says.
//!
//! Invariant: what is asserted was seen from outside: exit codes, output, and the requests that
//! reached the broker.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "what helps a test may fail like the test"
)]

#[path = "exec/agent.rs"]
mod agent;
#[path = "exec/broker.rs"]
mod broker;
#[path = "exec/checking.rs"]
mod checking;
#[path = "exec/configuring.rs"]
mod configuring;
#[path = "exec/delivering.rs"]
mod delivering;
#[path = "exec/endpoint.rs"]
mod endpoint;
#[path = "exec/helping.rs"]
mod helping;
#[path = "exec/inheriting.rs"]
mod inheriting;
#[path = "exec/masking.rs"]
mod masking;
#[path = "exec/opening.rs"]
mod opening;
#[path = "exec/program.rs"]
mod program;
#[path = "exec/proving.rs"]
mod proving;
#[path = "exec/reading.rs"]
mod reading;
#[path = "exec/refusing.rs"]
mod refusing;
#[path = "exec/remaining.rs"]
mod remaining;
#[path = "exec/reporting.rs"]
mod reporting;
#[path = "exec/rotating.rs"]
mod rotating;
#[path = "exec/running.rs"]
mod running;
#[path = "exec/signalling.rs"]
mod signalling;
#[path = "exec/signing.rs"]
mod signing;
#[path = "exec/telling.rs"]
mod telling;
#[path = "exec/wire.rs"]
mod wire;
