//! Mistakes that somebody could make here, planted one at a time to see whether the simulator
//! finds them. One that it does not find is a blind spot of the simulator.
//!
//! Invariant: without the feature `planted`, which no program is built with, there is no
//! mistake: every question is answered with a constant no.

macro_rules! bugs {
    ($($name:ident => $text:literal,)*) => {
        /// A mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bug {
            $(#[doc = $text] $name,)*
        }

        impl Bug {
            /// Every mistake.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it is.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

bugs! {
    ActivateClosedTask => "a pending lease survives its task and is activated",
    ActivateUnsaved => "an activation is answered and not saved",
    AmbiguousIsGone => "a backend's not-found is taken for a death",
    AttemptsTerminal => "after six tries a lease is left for a day",
    BackoffUncapped => "the back-off has no cap",
    BuryByNow => "a burial is judged by when it is written and not by when it was looked",
    BuryForeign => "a burial does not ask who claimed last",
    BuryUnverified => "what was revoked is buried unverified",
    ClaimForEver => "a claim is never given up",
    CloseLeavesActive => "a closed task leaves its active leases alone",
    CompleteEarly => "a completion does not wait for the deaths",
    CondemnSilently => "a lease is condemned and no record says so",
    CreateFirst => "the backend is called before the intent is durable",
    DeliverUnactivated => "an activation that failed is delivered anyway",
    ErrorIsNothing => "an error of the backend means that nothing was created",
    IntendClosedTask => "an intent does not ask whether its task is open",
    JobEndForgotten => "an opening does not ask whether its job is over",
    JobEndStopsShort => "the first portion of a job's tasks is taken for all of them",
    KeptForgotten => "a recovery does not lengthen a row to what its backend says",
    KeyNotSuperseded => "a repeated key leaves the first lease alive",
    LossUnnoticed => "a store that is behind its backends goes on",
    PostponeForEver => "a postponed lease is never due again",
    QuotaIgnored => "a quota that has no room is not looked at",
    ReaperDies => "an error of the store ends the reaper",
    RenewBeyondMax => "a renewal ignores the maximum",
    RenewUnmatched => "a renewal that the backend refused is not taken back",
    SettleAtOnce => "nothing is waited for after the mint's deadline",
    SilenceUnheard => "a silence is believed that nobody could have heard",
    UndeliveredKept => "a lease that nobody took is not condemned",
    UndeliveredNeverDue => "a lease without a delivery mark is due at its expiry only",
    WakeOnly => "the reaper waits to be woken and never looks by itself",
}

#[cfg(not(feature = "planted"))]
#[inline]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
pub(crate) use on::is;
#[cfg(feature = "planted")]
pub use on::plant;

#[cfg(feature = "planted")]
mod on {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a mistake in whatever runs on this thread, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}
