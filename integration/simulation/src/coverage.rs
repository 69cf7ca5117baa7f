//! What must have happened somewhere in a long run, or the simulation looks at nothing.
//!
//! Invariant: every pair and every name here is reachable; one that stays zero in a long run
//! is a failure of the simulation.

use std::sync::atomic::{AtomicU64, Ordering};

use dayfly_lease::Write;

/// What a message does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after what they are for")]
pub enum Kind {
    OpenTask,
    Intend,
    Activate,
    Deliver,
    Condemn,
    Settle,
    RenewRow,
    Shorten,
    CloseTask,
    ExpireTasks,
    Claim,
    Bury,
    Postpone,
    HandBack,
    TakeTurn,
    Note,
    Read,
    Mint,
    RenewBackend,
    Revoke,
    Verify,
    List,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::OpenTask,
        Self::Intend,
        Self::Activate,
        Self::Deliver,
        Self::Condemn,
        Self::Settle,
        Self::RenewRow,
        Self::Shorten,
        Self::CloseTask,
        Self::ExpireTasks,
        Self::Claim,
        Self::Bury,
        Self::Postpone,
        Self::HandBack,
        Self::TakeTurn,
        Self::Note,
        Self::Read,
        Self::Mint,
        Self::RenewBackend,
        Self::Revoke,
        Self::Verify,
        Self::List,
    ];

    /// Of a write.
    pub fn of(write: &Write) -> Self {
        match write {
            Write::OpenTask { .. } => Self::OpenTask,
            Write::Intend(_) => Self::Intend,
            Write::Activate { .. } => Self::Activate,
            Write::Deliver { .. } => Self::Deliver,
            Write::Condemn { .. } => Self::Condemn,
            Write::Settle { .. } => Self::Settle,
            Write::Renew { .. } => Self::RenewRow,
            Write::Shorten { .. } => Self::Shorten,
            Write::CloseTask { .. }
            | Write::CloseJob { .. }
            | Write::EndDisabled { .. }
            | Write::Withdraw(_) => Self::CloseTask,
            Write::ExpireTasks { .. } => Self::ExpireTasks,
            Write::Claim { .. } => Self::Claim,
            Write::Bury { .. } => Self::Bury,
            Write::Postpone { .. } => Self::Postpone,
            Write::HandBack { .. } => Self::HandBack,
            Write::TakeTurn { .. } => Self::TakeTurn,
            Write::Note(_)
            | Write::Beat { .. }
            | Write::TurnedAway
            | Write::Disable(_)
            | Write::Enable { .. }
            | Write::Probe
            | Write::Remember(_)
            | Write::Suspend { .. }
            | Write::Resume { .. }
            | Write::ReleaseHold { .. }
            | Write::Adopt { .. }
            | Write::Abandon { .. }
            | Write::StageRoot { .. }
            | Write::SettleRoot { .. }
            | Write::Prune { .. } => Self::Note,
        }
    }

    /// Whether something may live or be owed after it that did not or was not before.
    pub fn changes(self) -> bool {
        use Kind::{Activate, Intend, Mint, OpenTask, RenewBackend, RenewRow};
        matches!(self, OpenTask | Intend | Activate | RenewRow | Mint | RenewBackend)
    }

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenTask => "open_task",
            Self::Intend => "intend",
            Self::Activate => "activate",
            Self::Deliver => "deliver",
            Self::Condemn => "condemn",
            Self::Settle => "settle",
            Self::RenewRow => "renew_row",
            Self::Shorten => "shorten",
            Self::CloseTask => "close_task",
            Self::ExpireTasks => "expire_tasks",
            Self::Claim => "claim",
            Self::Bury => "bury",
            Self::Postpone => "postpone",
            Self::HandBack => "hand_back",
            Self::TakeTurn => "take_turn",
            Self::Note => "note",
            Self::Read => "read",
            Self::Mint => "mint",
            Self::RenewBackend => "renew_backend",
            Self::Revoke => "revoke",
            Self::Verify => "verify",
            Self::List => "list",
        }
    }
}

/// What befalls a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "named after what they are")]
pub enum Fate {
    Fine,
    LostRequest,
    LostReply,
    Late,
    Twice,
    Refused,
    CallerCrashed,
    CallerPaused,
}

impl Fate {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Fine,
        Self::LostRequest,
        Self::LostReply,
        Self::Late,
        Self::Twice,
        Self::Refused,
        Self::CallerCrashed,
        Self::CallerPaused,
    ];

    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::LostRequest => "lost request",
            Self::LostReply => "lost reply",
            Self::Late => "late",
            Self::Twice => "twice",
            Self::Refused => "refused",
            Self::CallerCrashed => "caller crashed",
            Self::CallerPaused => "caller paused",
        }
    }
}

macro_rules! moments {
    ($($name:ident => $text:literal,)*) => {
        /// A moment that a long run must have seen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "each has its text")]
        pub enum Moment { $($name,)* }

        impl Moment {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// For people.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

moments! {
    CrashWithPending => "a replica crashed while a lease was pending",
    CrashWithActive => "a replica crashed while a lease was active",
    CrashWithRevoking => "a replica crashed while a lease was revoking",
    CrashWithClaim => "a replica crashed with claims in hand",
    RestartWithDebt => "a replica started while deaths were due",
    GuardFired => "the backend refused a create that came too late",
    CreateAfterCondemned => "a create landed when its lease was condemned",
    CreateBeyondBound => "a create landed later than anything can guard against",
    CreatedTwice => "a create was applied twice",
    SecondRevocation => "a burial was put off until nothing could land any more",
    Undelivered => "a credential that nobody took was revoked",
    Delivered => "a credential was delivered",
    Superseded => "a key was used again and its first lease ended",
    QuotaFull => "a quota had no room",
    KeyInProgress => "a key was used again while its first mint was under way",
    CompletionPaid => "a completion answered that all is dead",
    CompletionOwed => "a completion answered that something is owed",
    CompletionWithPending => "a task was closed while a mint was in flight",
    TaskHeard => "a task was heard",
    TaskLost => "a task fell silent and was lost",
    BeatTurnedAway => "a heartbeat was turned away",
    TurnedAwayTold => "a replica told the others of a heartbeat that it turned away",
    JobEnded => "a job's end was taken",
    JobEndedTask => "a job's end closed a task",
    JobEndedBefore => "a task was refused because its job was over",
    RenewalGranted => "a renewal was granted",
    RenewalTakenBack => "a renewal was taken back",
    RenewalsCrossed => "two renewals of one lease ran at once",
    CommitsLost => "the store lost commits that were not durable",
    ActivationLost => "the store lost an activation",
    BackendRestarted => "a backend restarted",
    BackendOutage => "a backend was away",
    StoreOutage => "the store was away",
    StoreClockStepped => "the store's clock was set",
    Dependent => "a credential owned something and could not be dropped",
    SessionOutlived => "a session was open when its lease ended",
    Ambiguous => "a proxy said 404 for what was there",
    StillVisible => "a revoked credential was still good for a while",
    RowCorrupted => "a row could not be read",
    RowRepaired => "an unreadable row was mended",
    DebtChecked => "a due lease was held against its bound in calm",
    OnTimeBesideDead => "a lease was paid while another backend was away",
    Restored => "the store was put back to an old copy",
    Recovered => "and somebody recovered it",
    Adopted => "a recovery lengthened a row to what its backend says",
    Suspended => "minting was suspended",
    OrphanFound => "the sweep found an orphan",
    OrphanSwept => "the sweep ended an orphan",
    BreakerOpen => "a backend was taken to be down",
    Drained => "a replica was shut down in order",
}

const FATES: usize = Fate::ALL.len();
const KINDS: usize = Kind::ALL.len();

/// The counters of one run, or of many together.
#[derive(Debug)]
pub struct Coverage {
    messages: Vec<AtomicU64>,
    moments: Vec<AtomicU64>,
}

impl Default for Coverage {
    fn default() -> Self {
        let zeros = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        Self { messages: zeros(FATES * KINDS), moments: zeros(Moment::ALL.len()) }
    }
}

impl Coverage {
    /// This fate befell a message of this kind.
    pub fn message(&self, fate: Fate, kind: Kind) {
        if let Some(counter) = self.messages.get(fate as usize * KINDS + kind as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// This moment was seen.
    pub fn saw(&self, moment: Moment) {
        if let Some(counter) = self.moments.get(moment as usize) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds another's counts.
    pub fn add(&self, other: &Self) {
        let all = |one: &Self| -> Vec<u64> {
            let counters = one.messages.iter().chain(&one.moments);
            counters.map(|counter| counter.load(Ordering::Relaxed)).collect()
        };
        for (counter, more) in self.messages.iter().chain(&self.moments).zip(all(other)) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Every pair and moment that is required, with its count.
    pub fn table(&self) -> Vec<(String, u64)> {
        let mut table = Vec::new();
        for (index, counter) in self.messages.iter().enumerate() {
            let (Some(fate), Some(kind)) =
                (Fate::ALL.get(index / KINDS), Kind::ALL.get(index % KINDS))
            else {
                continue;
            };
            if required(*fate, *kind) {
                let name = format!("{}: {}", fate.as_str(), kind.as_str());
                table.push((name, counter.load(Ordering::Relaxed)));
            }
        }
        let moments = Moment::ALL.iter().zip(&self.moments);
        table.extend(
            moments.map(|(moment, n)| (moment.as_str().to_owned(), n.load(Ordering::Relaxed))),
        );
        table
    }
}

/// Which pairs can happen often enough: only a backend's request can be applied twice, and
/// few replicas are shut down in order.
fn required(fate: Fate, kind: Kind) -> bool {
    let idle = matches!(kind, Kind::HandBack | Kind::Note);
    let twice = fate == Fate::Twice
        && !matches!(kind, Kind::Mint | Kind::RenewBackend | Kind::Revoke | Kind::Verify);
    !idle && !twice
}
