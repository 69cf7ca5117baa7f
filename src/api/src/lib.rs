//! Wire types of the HTTP API under `/api/v1`: serde and nothing else.
//!
//! Invariant: what is written to the broker refuses unknown fields; what is read from it
//! ignores them, so that an older client outlives a newer broker. Times are RFC 3339 in UTC,
//! durations whole seconds, names snake case.

mod audit;
mod check;
mod identity;
mod lease;
mod login;
mod oauth;
mod problem;
mod role;
mod standing;
mod task;
mod variable;

pub use audit::{AuditPage, AuditRecord};
pub use check::{CheckRole, CheckedCaller, Claim, DecidingRule, RoleCheck, RoleDecision};
pub use identity::{
    DisableIdentity, DisabledIdentity, DisabledPage, EnableIdentity, IdentityDisabled,
    IdentityEnabled, SecurityEventError,
};
pub use lease::{
    AbandonLease, Abandonment, CreateLease, Credential, Lease, LeasePage, RenewLease, Renewed,
    RevokeLease, Revoked,
};
pub use login::Login;
pub use oauth::{Actor, OauthError, OauthMetadata, OauthToken};
pub use problem::{FieldFault, Problem};
pub use role::{Role, RoleList};
pub use standing::{BackendStanding, Hold, Rotated, Standing, Suspension};
pub use task::{
    Bind, CompleteTask, Completed, CreateTask, Heartbeat, Introspection, LeaseCounts, OnBehalfOf,
    OpenedTask, Outcome, PersonToken, Task, TaskPage, WhoAmI,
};
pub use variable::{is_reserved, is_variable_name};
