//! The lease engine: no credential without a lease, no lease forgotten.
//!
//! Invariant: no I/O here. The store, the backends, the clock and randomness come in through
//! traits, so that the simulator can break every one of them.
//!
//! The file to read first is `engine/mint.rs`; what a store must do is `store.rs`, and what
//! one transaction does is `transact.rs`.

pub mod audit;
#[cfg(feature = "testkit")]
pub mod conformance;
mod disabled;
mod engine;
pub mod failpoint;
mod ids;
mod job;
mod lease;
pub mod memory;
pub mod planted;
pub mod quota;
mod root;
mod seal;
mod seams;
mod standing;
mod store;
mod task;
pub mod transact;

pub use disabled::{Disabled, Disabling};
pub use engine::{
    Completion, Delivery, Engine, JobClosure, Line, MintError, Minted, Order, Orphans, Owner,
    RenewError, Renewal, Settings, Survey, SurveyError, Sweep, SweepError,
};
pub use ids::{IdError, LeaseId, ReplicaId, TaskId};
pub use job::{JobEnd, JobKey, JobKeys};
pub use lease::{Abandonment, Cause, Claim, Decision, Lease, State, Transition};
pub use root::Root;
pub use seal::{Seal, SealError, Sealed};
pub use seams::{Clock, Entropy, SystemClock, SystemEntropy, spawn};
pub use standing::{
    CLOCK_TOLERANCE, HOLD_LEASES_MIN, HOLD_MAX, Hold, Spared, Standing, Suspension,
};
pub use store::{
    Closed, Counts, FirstKey, Heard, IdempotencyKey, Intent, Owed, Refusal, Replay, Sighting,
    Store, StoreError, TokenUse, Withdrawal, Write, Written,
};
pub use task::{Binding, Heartbeat, NewTask, Person, Task, TaskEnd, TaskState};
