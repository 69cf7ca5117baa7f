//! The lease engine in a simulated world: one seed decides everything that happens.
//!
//! Invariant: the engine under test is the real one; what is simulated is what it stands on:
//! time, chance, the network, the backends, the processes that die.

#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a simulation that cannot be set up must stop at once"
)]

pub mod backend;
pub mod campaign;
pub mod ci;
pub mod client;
pub mod coverage;
pub mod dice;
pub mod hearing;
pub mod history;
pub mod model;
pub mod nemesis;
pub mod network;
pub mod operator;
pub mod oracle;
pub mod plan;
pub mod planted;
pub mod process;
pub mod regressions;
pub mod replica;
pub mod run;
pub mod seams;
pub mod truth;
pub mod watch;
pub mod world;

/// Says a line to whoever ran the simulator, if anybody still listens.
pub fn say(line: &str) {
    use std::io::Write;
    drop(writeln!(std::io::stdout(), "{line}"));
}
