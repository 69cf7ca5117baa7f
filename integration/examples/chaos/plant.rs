//! What a judge must find: a credential that came back from the dead, and one that no lease
//! knows.
//!
//! Invariant: planted only when asked for, and behind Dayfly's back, as somebody would who
//! restores a backup of the backend.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::block_in_place;

use crate::{ledger::Secret, world::World};

/// Plants one survivor, and one orphan when told to.
#[derive(Debug)]
pub(crate) struct Gardener {
    world: Arc<World>,
    idle: AtomicBool,
}

impl Gardener {
    pub(crate) fn new(world: Arc<World>, wanted: bool) -> Self {
        Self { world, idle: AtomicBool::new(!wanted) }
    }

    /// Brings the first credential for PostgreSQL back that it is given.
    pub(crate) fn bring_back(&self, handle: &str, secret: &Secret) {
        let Secret::Login(url) = secret else { return };
        if self.idle.swap(true, Ordering::Relaxed) {
            return;
        }
        let (_, rest) = url.split_once(&format!("{handle}:")).unwrap();
        let (password, _) = rest.split_once('@').unwrap();
        self.make(handle, &format!("PASSWORD '{password}' IN ROLE readers"));
    }

    /// Makes a role that looks like a lease's.
    pub(crate) fn leave_an_orphan(&self) {
        self.make(&format!("df_{}", "a".repeat(26)), "");
    }

    fn make(&self, role: &str, more: &str) {
        let sql = format!("CREATE ROLE \"{role}\" LOGIN {more}");
        block_in_place(|| self.world.backend.sql("postgres", &sql));
    }
}
