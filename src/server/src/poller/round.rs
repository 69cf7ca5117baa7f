//! What a round comes to, and what is known of it in the next one.
//!
//! Invariant: what is said about one job holds up no other; what is said to the token, and silence,
//! ends the round.

use std::{collections::BTreeSet, sync::atomic::AtomicBool};

use dayfly_backend_sdk::Secret;
use dayfly_lease::TaskId;

use super::{
    ask::Trouble,
    pace::{Backoff, Pace},
    place::Place,
};

/// So many questions in a row without an answer, and the API is left alone for a while.
const SILENT_MAX: u32 = 3;

/// What a poller knows from one round to the next.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) backoff: Backoff,
    /// The last task that was asked for, where a round did not come to the end.
    pub(super) after: Option<TaskId>,
    /// What was warned of since the last round without any trouble.
    warned: BTreeSet<Trouble>,
}

impl Memory {
    /// What a round met that nobody was warned of yet, and whether it is the first without trouble.
    pub(super) fn conclude(&mut self, troubles: BTreeSet<Trouble>) -> (Vec<Trouble>, bool) {
        let new = troubles.difference(&self.warned).copied().collect();
        let works = troubles.is_empty() && !self.warned.is_empty();
        if works {
            self.warned.clear();
        }
        self.warned.extend(troubles);
        (new, works)
    }
}

/// One round.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) token: Secret,
    pub(super) pace: Pace,
    pub(super) troubles: BTreeSet<Trouble>,
    /// Whether nobody asks any more in this round.
    pub(super) stopped: bool,
    /// Whether an answer has asked everybody to wait, for those who are about to ask.
    pub(super) halted: AtomicBool,
    /// What was asked for as a proof, and held.
    pub(super) proven: BTreeSet<Place>,
    /// Questions without an answer since the last one that had one.
    silent: u32,
}

impl Round {
    pub(super) fn new(token: Secret, pace: Pace) -> Self {
        Self {
            token,
            pace,
            troubles: BTreeSet::new(),
            stopped: false,
            halted: AtomicBool::new(false),
            proven: BTreeSet::new(),
            silent: 0,
        }
    }

    /// A question had an answer.
    pub(super) fn answered(&mut self) {
        self.silent = 0;
    }

    /// A question had none that says anything; true if the API is left alone for it.
    pub(super) fn troubled(&mut self, trouble: Trouble) -> bool {
        self.troubles.insert(trouble);
        let give_up = match trouble {
            Trouble::TokenRefused | Trouble::TokenUnreadable => true,
            Trouble::Unavailable => {
                self.silent = self.silent.saturating_add(1);
                self.silent >= SILENT_MAX
            }
            Trouble::Limited
            | Trouble::Mismatched
            | Trouble::NotFound
            | Trouble::Refused
            | Trouble::Unreadable => {
                self.silent = 0;
                false
            }
        };
        let begins = give_up && !self.stopped;
        self.stopped |= give_up;
        begins
    }
}
