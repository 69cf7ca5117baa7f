//! Tasks: the unit of work that credentials are for.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Lease;

/// Body of `POST /api/v1/tasks`; the bearer is the federated token.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateTask {
    /// Why, in a few words; shown to administrators and to policy. 1 to 256 characters.
    pub purpose: String,
    /// How long the task may take at most.
    pub ttl_seconds: i64,
    /// How long the task may be silent at most: without a call of
    /// `POST /api/v1/tasks/{id}/heartbeat` for so long it is lost, and its credentials are
    /// revoked. Absent: nobody need hear it. Call three times in an interval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<i64>,
    /// What the task's token is bound to, so that it is worth nothing to anybody else. Absent:
    /// the key that the request proves by a `DPoP` header (RFC 9449), if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind: Option<Bind>,
    /// Roles to mint in the same round trip, all or nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// A token of the person who asked for the work, of an issuer of people. The caller must be a
    /// workload: it acts, and has what both of them may have. Absent: it acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub on_behalf_of: Option<PersonToken>,
}

/// A person's token, on its way to the broker. It is never shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PersonToken(pub String);

impl fmt::Debug for PersonToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PersonToken(…)")
    }
}

/// The person on whose behalf a task is worked on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OnBehalfOf {
    /// Issuer and subject.
    pub principal: String,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// The subject that the issuer gave.
    pub subject: String,
    /// What the issuer calls them; nothing is decided by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl OnBehalfOf {
    /// For people to read: the name beside the principal, where there is one.
    pub fn shown(&self) -> String {
        match &self.name {
            Some(name) => format!("{} ({name})", self.principal),
            None => self.principal.clone(),
        }
    }
}

/// What a task's token can be bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Bind {
    /// The client certificate of the connection (RFC 8705). Every later request must come over a
    /// connection with the same one.
    Certificate,
    /// The key that the request proves by its `DPoP` header. Every later request must prove it.
    Key,
}

/// Answer of `POST /api/v1/tasks`. The token is shown once.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenedTask {
    /// `tsk_…`.
    pub id: String,
    /// `dft_…`, the token of every further call of this task.
    pub token: String,
    /// How it is shown: `Bearer`, or `DPoP` if it is bound to a key, with a proof each time.
    #[serde(default = "bearer")]
    pub token_type: String,
    /// What it is bound to: `key` or `certificate`; absent where whoever has it may use it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// `open`.
    pub state: String,
    /// The task's deadline.
    pub expires_at: String,
    /// From when on the task is lost unless it is heard before; absent without a heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<String>,
    /// The leases of the roles that were asked for, with their credentials.
    pub leases: Vec<Lease>,
}

/// What a broker of an older version means.
fn bearer() -> String {
    String::from("Bearer")
}

/// A task as it is shown to its owner and to administrators.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// `tsk_…`.
    pub id: String,
    /// `open`, or how it ended.
    pub state: String,
    /// Why it was opened.
    pub purpose: String,
    /// Who opened it: issuer and subject.
    pub principal: String,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// Who asked for it; absent where the principal acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
    /// When it was opened.
    pub opened_at: String,
    /// Its deadline.
    pub expires_at: String,
    /// How long it may be silent; absent without a heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_seconds: Option<u64>,
    /// From when on it is lost unless it is heard before; absent without a heartbeat, and when
    /// it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<String>,
    /// What its token is bound to: `key` or `certificate`; absent where whoever has it may use
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// Its leases, counted.
    pub leases: LeaseCounts,
}

/// A page of tasks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskPage {
    /// Newest first.
    pub data: Vec<Task>,
    /// Give it back as `cursor` for the next page; absent on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// How many leases of a task are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseCounts {
    /// Not yet minted.
    pub pending: u64,
    /// Usable.
    pub active: u64,
    /// Must die and is not yet verified dead.
    pub revoking: u64,
    /// Verified dead.
    pub revoked: u64,
    /// Given up by two people: nothing proves that they are dead.
    #[serde(default)]
    pub abandoned: u64,
    /// Of the revoking, those that nothing ends before their own expiry.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lingering: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// How a task ended, in its owner's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// It was given up.
    Cancelled,
    /// It did its work.
    Completed,
    /// It did not.
    Failed,
}

/// Body of `POST /api/v1/tasks/{id}/complete`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompleteTask {
    /// How it ended.
    pub outcome: Outcome,
}

/// Answer of `POST /api/v1/tasks/{id}/heartbeat`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// The task's id.
    pub id: String,
    /// `open`.
    pub state: String,
    /// From when on it is lost unless it is heard before. A call that comes soon after another
    /// does not move it.
    pub lost_at: String,
    /// The task's deadline, which no heartbeat moves.
    pub expires_at: String,
}

/// Answer of a completion: 200 when every credential is verified dead, 202 with what is
/// still owed otherwise.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Completed {
    /// The task's id.
    pub id: String,
    /// `completed`, `failed`, `cancelled`; `revoking` while a credential may live; `abandoned`
    /// when one was given up by two people and nothing proves that it is dead.
    pub state: String,
    /// What became of its leases.
    pub leases: LeaseCounts,
    /// Until when some of its credentials work although it has ended: nothing ends them at
    /// their backends before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub residual_until: Option<String>,
}

/// Answer of `GET /api/v1/whoami`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// Issuer and subject.
    pub principal: String,
    /// `workload` or `human`.
    pub kind: String,
    /// The issuer's name in the configuration.
    pub issuer: String,
    /// The subject that the issuer gave.
    pub subject: String,
    /// The task, when the bearer is a task token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// On whose behalf that task is worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<OnBehalfOf>,
}

/// Answer of `POST /oauth2/introspect` (RFC 7662 section 2.2). Inactive: `active` alone.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Introspection {
    /// Whether the key works now.
    pub active: bool,
    /// Who the key was minted for: issuer and subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The lease's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Space-separated scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Seconds since 1970 at which it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exp: Option<i64>,
    /// `api_key`, or `Bearer` for a signed key; the members below are of those alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_type: Option<String>,
    /// Who signed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// Whom it is for. A service that is not among them must refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aud: Option<Vec<String>>,
    /// The same as `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Seconds since 1970 at which it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
}
