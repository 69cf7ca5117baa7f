//! The mistakes that the simulator must find: the engine's and the adapters'.
//!
//! Invariant: a mistake is planted for one run on one thread and weeded after it.

use dayfly_lease::planted::{Bug, plant};

/// A mistake in an adapter or at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slip {
    /// The backend does not look at the mint's deadline.
    NoGuard,
    /// A revocation leaves sessions open, and so does the verification.
    SessionsSurvive,
    /// A revocation is not written to disk.
    Unsaved,
}

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// In the engine.
    Engine(Bug),
    /// At a backend.
    Backend(Slip),
}

impl Planted {
    /// Every mistake.
    pub fn all() -> Vec<Self> {
        let slips = [Slip::NoGuard, Slip::SessionsSurvive, Slip::Unsaved];
        let bugs = Bug::ALL.iter().copied().map(Self::Engine);
        bugs.chain(slips.into_iter().map(Self::Backend)).collect()
    }

    /// What it is.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Engine(bug) => bug.as_str(),
            Self::Backend(Slip::NoGuard) => "the backend does not look at the mint's deadline",
            Self::Backend(Slip::SessionsSurvive) => "a revocation leaves sessions open",
            Self::Backend(Slip::Unsaved) => "a revocation is not written to the backend's disk",
        }
    }

    /// Plants it on this thread.
    pub fn plant(self) {
        plant(match self {
            Self::Engine(bug) => Some(bug),
            Self::Backend(_) => None,
        });
    }

    /// Nothing is planted on this thread any more.
    pub fn weed() {
        plant(None);
    }
}
