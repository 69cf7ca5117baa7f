//! Identities that open no tasks, whatever policy says of them.
//!
//! Invariant: disabling an identity twice never gives it back what the first time took: the later
//! cut-off counts, and none at all counts for more than any.

use std::time::Duration;

use dayfly_backend_sdk::Timestamp;

/// A disabled identity's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// Issuer and subject.
    pub principal: String,
    /// Tokens that were issued until then open nothing; without it no token does.
    pub cut_off: Option<Timestamp>,
    /// When it was disabled last.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// Whether tasks that were open then may still be.
    pub ending: bool,
    /// When it is forgotten, since no token can be as old as the cut-off any more.
    pub expires_at: Option<Timestamp>,
}

impl Disabled {
    /// Whether a token that was issued at `issued_at` opens nothing. One that does not say when
    /// it was issued may be as old as can be.
    pub fn refuses(&self, issued_at: Option<Timestamp>) -> bool {
        let older = |cut_off| issued_at.is_none_or(|issued_at| issued_at <= cut_off);
        self.cut_off.is_none_or(older)
    }
}

/// An identity that is to open no tasks any more.
#[derive(Clone, Debug)]
pub struct Disabling {
    /// Issuer and subject.
    pub principal: String,
    /// As in the row.
    pub cut_off: Option<Timestamp>,
    /// Who says so.
    pub actor: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// For how long a token is accepted at most, by its age.
    pub keep: Duration,
    /// What it was told with, if that is to be told from the next: sender and delivery.
    pub delivery: Option<String>,
}

impl Disabling {
    /// The row after it, at `now`; `before` is the row that is there.
    pub(crate) fn over(&self, before: Option<Disabled>, now: Timestamp) -> Disabled {
        let earlier = match before {
            // It opens nothing as it is, and whoever said so first stands.
            Some(before) if before.cut_off.is_none() => return before,
            Some(before) => before.cut_off,
            None => None,
        };
        let cut_off = self.cut_off.map(|own| earlier.map_or(own, |earlier| own.max(earlier)));
        Disabled {
            principal: self.principal.clone(),
            cut_off,
            at: now,
            by: self.actor.clone(),
            reason: self.reason.clone(),
            ending: true,
            expires_at: cut_off.map(|cut_off| cut_off.max(now).plus(self.keep)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_seconds(1_000_000)
    }

    fn disabling(cut_off: Option<Timestamp>) -> Disabling {
        Disabling {
            principal: "ci|repo".into(),
            cut_off,
            actor: "people|root".into(),
            reason: None,
            keep: Duration::from_hours(1),
            delivery: None,
        }
    }

    #[test]
    fn a_cut_off_refuses_what_was_issued_until_then_and_what_does_not_say_when() {
        let row = disabling(Some(now())).over(None, now());
        assert!(row.refuses(Some(now())));
        assert!(row.refuses(Some(Timestamp::EPOCH)));
        assert!(row.refuses(None));
        assert!(!row.refuses(Some(now().plus(Duration::from_secs(1)))));
        assert_eq!(row.expires_at, Some(now().plus(Duration::from_hours(1))));
    }

    #[test]
    fn without_a_cut_off_everything_is_refused_for_good() {
        let row = disabling(None).over(None, now());
        assert!(row.refuses(Some(Timestamp::MAX)) && row.refuses(None));
        assert_eq!(row.expires_at, None);
    }

    #[test]
    fn disabling_again_gives_nothing_back() {
        let later = now().plus(Duration::from_mins(5));
        let first = disabling(Some(later)).over(None, now());
        let again = disabling(Some(now())).over(Some(first), now());
        assert_eq!(again.cut_off, Some(later));
        let for_good = disabling(None).over(Some(again), now());
        assert_eq!((for_good.cut_off, for_good.expires_at), (None, None));
        let told_again = disabling(Some(later)).over(Some(for_good.clone()), later);
        assert_eq!(told_again, for_good);
    }
}
