//! The roles, ready to be minted from: their templates are checked by their backends.
//!
//! Invariant: made once when the configuration is loaded; nothing on the way of a request
//! parses configuration.

use std::{collections::BTreeMap, time::Duration};

use dayfly_backend_sdk::Template;
use dayfly_lease::quota::Quota;

use crate::policy::RoleFacts;

/// A named template on a backend.
#[derive(Clone, Debug)]
pub struct Role {
    /// What policy knows of it.
    pub facts: RoleFacts,
    /// The backend's kind.
    pub kind: &'static str,
    /// The lifetime when none is asked for.
    pub ttl: Duration,
    /// The longest lifetime, renewals included.
    pub ttl_max: Duration,
    /// The shortest that the backend can give.
    pub ttl_min: Duration,
    /// Whether leases of it can be renewed.
    pub renewable: bool,
    /// What must have room: its own quotas, its backend's and everybody's.
    pub quotas: Vec<Quota>,
    /// Checked by the backend.
    pub template: Template,
}

/// All roles by name.
#[derive(Clone, Debug, Default)]
pub struct Roles(BTreeMap<String, Role>);

impl Roles {
    /// From a list; names are unique by configuration.
    pub fn new(roles: Vec<Role>) -> Self {
        Self(roles.into_iter().map(|role| (role.facts.name.clone(), role)).collect())
    }

    /// A role by its name.
    pub fn find(&self, name: &str) -> Option<&Role> {
        self.0.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Role> {
        self.0.values()
    }

    /// What policy is told of all of them.
    pub fn facts(&self) -> Vec<RoleFacts> {
        self.iter().map(|role| role.facts.clone()).collect()
    }
}
