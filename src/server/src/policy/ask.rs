//! What can be asked of the rules, and the facts that come with the question.
//!
//! Invariant: nothing here comes from the caller's own words unless its name says so
//! (`purpose`, `ttl_seconds`); the rest is configuration, a row of the store, or the
//! connection.

use std::{collections::BTreeMap, net::IpAddr};

use dayfly_backend_sdk::Timestamp;
use dayfly_lease::Binding;

use crate::identity::Principal;

/// What the configuration says of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleFacts {
    /// The role's name.
    pub name: String,
    /// The name of the backend that it is on.
    pub backend: String,
    /// Who answers for it.
    pub owner: String,
    /// All labels; `environment` and `risk` are attributes in rules as well.
    pub labels: BTreeMap<String, String>,
}

/// What a lease's row says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseFacts<'a> {
    /// Its id.
    pub lease: &'a str,
    /// The principal id of whoever opened its task.
    pub owner: &'a str,
    /// The task that it belongs to.
    pub task: &'a str,
    /// The role that it was minted for, which may be gone from the configuration since.
    pub role: &'a str,
    /// The backend that it was minted at.
    pub backend: &'a str,
}

/// The question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// Open a task.
    OpenTask {
        /// What for, in the caller's words.
        purpose: &'a str,
        /// How long the task may take.
        ttl_seconds: i64,
    },
    /// Mint a credential. An answer to this is for listings; only
    /// [`Policies::permit_mint`](super::Policies::permit_mint) gives what minting takes.
    Mint {
        /// Which role.
        role: &'a RoleFacts,
        /// What for, in the caller's words.
        purpose: &'a str,
        /// How long it is to live.
        ttl_seconds: i64,
        /// The task that it is for.
        task: &'a str,
    },
    /// Prolong a lease.
    RenewLease {
        /// Which.
        lease: LeaseFacts<'a>,
        /// How much longer it is to live.
        ttl_seconds: i64,
    },
    /// End a lease.
    RevokeLease {
        /// Which.
        lease: LeaseFacts<'a>,
    },
    /// Give up on a lease whose revocation keeps failing.
    AbandonLease {
        /// Which.
        lease: LeaseFacts<'a>,
    },
    /// Look at a lease.
    ReadLease {
        /// Which.
        lease: LeaseFacts<'a>,
    },
    /// End a task.
    CompleteTask {
        /// Which.
        task: &'a str,
        /// The principal id of whoever opened it.
        owner: &'a str,
    },
    /// Say that a task is still worked on.
    HeartbeatTask {
        /// Which.
        task: &'a str,
        /// The principal id of whoever opened it.
        owner: &'a str,
    },
    /// Look at a task.
    ReadTask {
        /// Which.
        task: &'a str,
        /// The principal id of whoever opened it.
        owner: &'a str,
    },
    /// List everybody's leases. Each one shown is also asked for with [`Ask::ReadLease`], so
    /// that a listing goes round no `forbid`.
    ListLeases,
    /// List everybody's tasks. Each one shown is also asked for with [`Ask::ReadTask`].
    ListTasks,
    /// List all roles, also those that the caller may not mint.
    ListRoles,
    /// List the caller's own tasks and leases, and the roles that it may mint.
    ListOwn,
    /// Read the audit log.
    ReadAudit,
    /// Look at what the installation may do at the moment.
    ReadStanding,
    /// Let go of the mass-revocation brake.
    ReleaseHold,
    /// Give our own account at a backend a new password.
    RotateRoot,
    /// Disable an identity: end its tasks, and let it open no more.
    DisableIdentity,
    /// Let a disabled identity open tasks again.
    EnableIdentity,
    /// List the disabled identities.
    ListDisabled,
    /// Ask who one is.
    Whoami,
}

/// How a question reached us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// Where the connection comes from.
    pub source_address: Option<IpAddr>,
    /// When.
    pub now: Timestamp,
    /// The task whose token authenticated the call, if that is how it was authenticated.
    pub own_task: Option<String>,
    /// What the token of that task is bound to, or of the one that is about to be opened.
    pub binding: Option<Binding>,
    /// On whose behalf the caller acts: a person, verified when the task was opened.
    pub on_behalf_of: Option<Principal>,
}

/// The actions as the schema names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Action {
    AbandonLease,
    CompleteTask,
    DisableIdentity,
    EnableIdentity,
    HeartbeatTask,
    ListDisabled,
    ListLeases,
    ListOwn,
    ListRoles,
    ListTasks,
    Mint,
    OpenTask,
    ReadAudit,
    ReadLease,
    ReadStanding,
    ReadTask,
    ReleaseHold,
    RenewLease,
    RevokeLease,
    RotateRoot,
    Whoami,
}

impl Action {
    pub(super) const ALL: [Self; 21] = [
        Self::AbandonLease,
        Self::CompleteTask,
        Self::DisableIdentity,
        Self::EnableIdentity,
        Self::HeartbeatTask,
        Self::ListDisabled,
        Self::ListLeases,
        Self::ListOwn,
        Self::ListRoles,
        Self::ListTasks,
        Self::Mint,
        Self::OpenTask,
        Self::ReadAudit,
        Self::ReadLease,
        Self::ReadStanding,
        Self::ReadTask,
        Self::ReleaseHold,
        Self::RenewLease,
        Self::RevokeLease,
        Self::RotateRoot,
        Self::Whoami,
    ];

    /// Whether rules hear of the person on whose behalf it is asked: it gives a credential, or
    /// lengthens its life.
    pub(super) fn names_the_person(self) -> bool {
        matches!(self, Self::OpenTask | Self::Mint | Self::RenewLease)
    }

    /// Whether that person must be permitted it as well. A lease is renewed by the right of the
    /// task that it belongs to, which no person has.
    pub(super) fn takes_both(self) -> bool {
        matches!(self, Self::OpenTask | Self::Mint)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::AbandonLease => "abandon_lease",
            Self::CompleteTask => "complete_task",
            Self::DisableIdentity => "disable_identity",
            Self::EnableIdentity => "enable_identity",
            Self::HeartbeatTask => "heartbeat_task",
            Self::ListDisabled => "list_disabled",
            Self::ListLeases => "list_leases",
            Self::ListOwn => "list_own",
            Self::ListRoles => "list_roles",
            Self::ListTasks => "list_tasks",
            Self::Mint => "mint",
            Self::OpenTask => "open_task",
            Self::ReadAudit => "read_audit",
            Self::ReadLease => "read_lease",
            Self::ReadStanding => "read_standing",
            Self::ReadTask => "read_task",
            Self::ReleaseHold => "release_hold",
            Self::RenewLease => "renew_lease",
            Self::RevokeLease => "revoke_lease",
            Self::RotateRoot => "rotate_root",
            Self::Whoami => "whoami",
        }
    }
}

impl Ask<'_> {
    pub(super) fn action(&self) -> Action {
        match self {
            Self::OpenTask { .. } => Action::OpenTask,
            Self::Mint { .. } => Action::Mint,
            Self::RenewLease { .. } => Action::RenewLease,
            Self::RevokeLease { .. } => Action::RevokeLease,
            Self::AbandonLease { .. } => Action::AbandonLease,
            Self::ReadLease { .. } => Action::ReadLease,
            Self::CompleteTask { .. } => Action::CompleteTask,
            Self::HeartbeatTask { .. } => Action::HeartbeatTask,
            Self::ReadTask { .. } => Action::ReadTask,
            Self::ListLeases => Action::ListLeases,
            Self::ListTasks => Action::ListTasks,
            Self::ListRoles => Action::ListRoles,
            Self::ListOwn => Action::ListOwn,
            Self::ReadAudit => Action::ReadAudit,
            Self::ReadStanding => Action::ReadStanding,
            Self::ReleaseHold => Action::ReleaseHold,
            Self::RotateRoot => Action::RotateRoot,
            Self::DisableIdentity => Action::DisableIdentity,
            Self::EnableIdentity => Action::EnableIdentity,
            Self::ListDisabled => Action::ListDisabled,
            Self::Whoami => Action::Whoami,
        }
    }

    /// The action's name, as it stands in the schema and in audit records.
    pub fn name(&self) -> &'static str {
        self.action().as_str()
    }

    /// The role and the backend that the resource stands under.
    pub(super) fn place(&self) -> Option<(&str, &str)> {
        match self {
            Self::Mint { role, .. } => Some((&role.name, &role.backend)),
            Self::RenewLease { lease, .. }
            | Self::RevokeLease { lease }
            | Self::AbandonLease { lease }
            | Self::ReadLease { lease } => Some((lease.role, lease.backend)),
            Self::OpenTask { .. }
            | Self::CompleteTask { .. }
            | Self::HeartbeatTask { .. }
            | Self::ReadTask { .. }
            | Self::ListLeases
            | Self::ListTasks
            | Self::ListRoles
            | Self::ListOwn
            | Self::ReadAudit
            | Self::ReadStanding
            | Self::ReleaseHold
            | Self::RotateRoot
            | Self::DisableIdentity
            | Self::EnableIdentity
            | Self::ListDisabled
            | Self::Whoami => None,
        }
    }
}
