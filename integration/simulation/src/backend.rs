//! The backends themselves: what exists there, who can log in, and their quirks.
//!
//! Invariant: a site knows nothing of leases. It does what it is told, as the real one would,
//! and what it says of a credential may be wrong where the real one is.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use dayfly_backend_sdk::{
    Capabilities, Error, ErrorKind, Expiry, Handle, HandlePrefix, Listed, Listing, Liveness,
    Marker, Retry, Revocation, Timestamp,
};
use tokio::time::Instant;

use crate::{
    coverage::Moment,
    dice::Dice,
    plan::Style,
    planted::Slip,
    world::{World, hold},
};

/// How far a backend's clock may be off the true time; less than what the engine tolerates,
/// together with as much at the store.
pub const SKEW_MAX: Duration = Duration::from_secs(2);

/// The longest that a provider's revocation takes to be true everywhere.
pub const VISIBLE_MAX: Duration = Duration::from_mins(1);

/// One backend.
#[derive(Debug)]
pub struct Site {
    /// How it behaves.
    pub style: Style,
    /// What its adapter declares.
    pub capabilities: Capabilities,
    /// What its handles begin with.
    pub prefix: HandlePrefix,
    skew: i64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    there: BTreeMap<String, Account>,
    /// What a restart brings back, where memory and disk are two things.
    saved: BTreeMap<String, Account>,
    marker: Option<Marker>,
}

/// One credential at its backend.
#[derive(Clone, Debug)]
struct Account {
    native: Option<Timestamp>,
    sessions: u32,
    owns_until: Option<Instant>,
    gone_at: Option<Instant>,
}

impl Site {
    /// A backend with nothing in it.
    pub fn new(style: Style, dice: &Dice) -> Self {
        let span = u64::try_from(SKEW_MAX.as_micros()).unwrap_or_default();
        let skew = i64::try_from(dice.below(2 * span)).unwrap_or_default();
        let half = i64::try_from(span).unwrap_or_default();
        let prefix = HandlePrefix::parse("d_").expect("a legal prefix");
        Self {
            style,
            capabilities: capabilities(style),
            prefix,
            skew: skew - half,
            state: Mutex::default(),
        }
    }

    fn clock(&self, world: &World) -> Timestamp {
        match self.style {
            Style::Keys => world.store_now(),
            Style::Database | Style::Cache | Style::Provider => world.shifted(self.skew),
        }
    }

    /// Creates an account, if that is not too late and the name is free.
    pub fn create(
        &self,
        world: &World,
        handle: &Handle,
        deadline: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), Error> {
        let guards = self.capabilities.deadline_guard && !world.slips(Slip::NoGuard);
        if guards && self.clock(world) > deadline {
            world.saw(Moment::GuardFired);
            return Err(Error::new(ErrorKind::Invalid, "too late"));
        }
        let mut state = hold(&self.state);
        let name = handle.as_str().to_owned();
        let now = Instant::now();
        if state.there.get(&name).is_some_and(|account| account.gone_at.is_none_or(|at| at > now)) {
            return Err(Error::new(ErrorKind::Conflict, "the name is taken"));
        }
        let native = match self.capabilities.expiry {
            Expiry::None => None,
            Expiry::Native { slack, .. } => Some(expires_at.plus(slack)),
        };
        let account = Account { native, sessions: 0, owns_until: None, gone_at: None };
        state.there.insert(name.clone(), account.clone());
        state.saved.insert(name, account);
        Ok(())
    }

    /// Moves an account's own expiry.
    pub fn extend(&self, handle: &Handle, until: Timestamp) -> Result<(), Error> {
        let mut state = hold(&self.state);
        let missing = || Error::new(ErrorKind::NotFound, "no such account");
        let account = state.there.get_mut(handle.as_str()).ok_or_else(missing)?;
        if let Expiry::Native { slack, .. } = self.capabilities.expiry {
            account.native = Some(until.plus(slack));
        }
        Ok(())
    }

    /// Ends an account and its sessions.
    pub fn end(&self, world: &World, handle: &Handle) -> Revocation {
        let now = Instant::now();
        let mut state = hold(&self.state);
        let name = handle.as_str();
        if self.style == Style::Provider {
            return end_at_provider(world, &mut state, name);
        }
        let owns = state.there.get(name).and_then(|account| account.owns_until);
        if owns.is_some_and(|until| until > now) {
            world.saw(Moment::Dependent);
            return Revocation::Failed(Error::new(ErrorKind::Dependent, "owns objects"));
        }
        if world.slips(Slip::SessionsSurvive)
            && let Some(account) = state.there.get_mut(name)
            && account.sessions > 0
        {
            account.native = Some(Timestamp::EPOCH);
            return Revocation::Gone;
        }
        state.there.remove(name);
        if self.style == Style::Cache {
            if world.slips(Slip::Unsaved) {
                return Revocation::Gone;
            }
            // Deleted, and the file could not be written: a restart would bring it back.
            if world.is_stormy() && world.dice.chance(200) {
                let unsaved = Error::new(ErrorKind::UnknownOutcome, "deleted and not saved");
                return Revocation::Failed(unsaved);
            }
        }
        state.saved.remove(name);
        Revocation::Gone
    }

    /// What it says of an account.
    pub fn look(&self, world: &World, handle: &Handle) -> Liveness {
        let planted = world.slips(Slip::SessionsSurvive);
        let now = Instant::now();
        let state = hold(&self.state);
        match state.there.get(handle.as_str()) {
            Some(account) if account.gone_at.is_some_and(|at| at <= now) => Liveness::Gone,
            Some(account) if planted && account.native == Some(Timestamp::EPOCH) => Liveness::Gone,
            Some(_) => {
                world.saw(Moment::StillVisible);
                Liveness::Live
            }
            None => Liveness::Gone,
        }
    }

    /// What is there, in order.
    pub fn list(&self, after: Option<&Handle>, limit: u32) -> Listing {
        let now = Instant::now();
        let state = hold(&self.state);
        let there = state.there.iter().filter(|(name, account)| {
            after.is_none_or(|after| name.as_str() > after.as_str())
                && account.gone_at.is_none_or(|at| at > now)
        });
        let slack = match self.capabilities.expiry {
            Expiry::None => Duration::ZERO,
            Expiry::Native { slack, .. } => slack,
        };
        let listed = |(name, account): (&String, &Account)| {
            let handle = Handle::parse(name.clone()).ok()?;
            Some(Listed { handle, expires_at: account.native.map(|native| native.minus(slack)) })
        };
        let mut credentials: Vec<Listed> = there.filter_map(listed).collect();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = credentials.len() > limit;
        credentials.truncate(limit);
        Listing { credentials, more }
    }

    /// Whose prefix it is.
    pub fn marker(&self) -> Option<Marker> {
        hold(&self.state).marker.clone()
    }

    /// Says whose prefix it is, unless it is another's.
    pub fn mark(&self, marker: &Marker) -> Result<(), Error> {
        let mut state = hold(&self.state);
        if state.marker.as_ref().is_some_and(|there| there.installation != marker.installation) {
            return Err(Error::new(ErrorKind::Conflict, "another installation's"));
        }
        state.marker = Some(marker.clone());
        Ok(())
    }

    /// Whether a login works now.
    pub fn accepts(&self, world: &World, handle: &str) -> bool {
        let (now, clock) = (Instant::now(), self.clock(world));
        hold(&self.state).there.get(handle).is_some_and(|account| {
            account.native.is_none_or(|native| clock < native)
                && account.gone_at.is_none_or(|at| now < at)
        })
    }

    /// Whether a login works or a session is open.
    pub fn is_usable(&self, world: &World, handle: &str) -> bool {
        self.has_session(handle) || self.accepts(world, handle)
    }

    /// Until when the backend itself accepts it.
    pub fn native(&self, handle: &str) -> Option<Timestamp> {
        hold(&self.state).there.get(handle).and_then(|account| account.native)
    }

    /// Its holder opens a session that stays open.
    pub fn open_session(&self, world: &World, handle: &str) {
        if !self.capabilities.session_kill || !self.accepts(world, handle) {
            return;
        }
        if let Some(account) = hold(&self.state).there.get_mut(handle) {
            account.sessions += 1;
        }
    }

    /// Whether a session is open.
    pub fn has_session(&self, handle: &str) -> bool {
        hold(&self.state).there.get(handle).is_some_and(|account| account.sessions > 0)
    }

    /// Its holder makes something that it owns, until somebody takes that away.
    pub fn own(&self, handle: &str, lasts: Duration) -> bool {
        if self.style != Style::Database {
            return false;
        }
        let mut state = hold(&self.state);
        let Some(account) = state.there.get_mut(handle) else { return false };
        account.owns_until = Some(Instant::now() + lasts);
        true
    }

    /// It restarts: sessions end, and what was only in memory is what it was on disk.
    pub fn restart(&self) {
        let mut state = hold(&self.state);
        if self.style == Style::Cache {
            state.there = state.saved.clone();
        }
        for account in state.there.values_mut() {
            account.sessions = 0;
        }
    }

    /// Whatever can be used now.
    pub fn usable(&self, world: &World) -> Vec<String> {
        let names: Vec<String> = hold(&self.state).there.keys().cloned().collect();
        names.into_iter().filter(|name| self.is_usable(world, name)).collect()
    }
}

fn end_at_provider(world: &World, state: &mut State, name: &str) -> Revocation {
    let now = Instant::now();
    let ambiguous = || {
        let error = Error::new(ErrorKind::NotFound, "404, and not from the provider");
        Revocation::Failed(error.with_retry(Retry::Temporary))
    };
    if world.is_stormy() && world.dice.chance(500) {
        world.saw(Moment::Ambiguous);
        return ambiguous();
    }
    if let Some(account) = state.there.get_mut(name)
        && account.gone_at.is_none()
    {
        let takes = world.dice.between(Duration::ZERO, VISIBLE_MAX);
        account.gone_at = Some(now + takes);
    }
    Revocation::Gone
}

fn capabilities(style: Style) -> Capabilities {
    let slack = match style {
        Style::Database => Some(Duration::from_secs(5)),
        Style::Keys => Some(Duration::ZERO),
        Style::Cache | Style::Provider => None,
    };
    Capabilities {
        kind: match style {
            Style::Database => "database",
            Style::Cache => "cache",
            Style::Provider => "provider",
            Style::Keys => "keys",
        },
        expiry: slack
            .map_or(Expiry::None, |slack| Expiry::Native { slack, life_min: Duration::ZERO }),
        revoke: true,
        session_kill: matches!(style, Style::Database | Style::Cache),
        verify: true,
        list: true,
        renew: true,
        deadline_guard: style != Style::Provider,
        ttl_min: Duration::from_secs(1),
        ttl_max: None,
        handle_len_max: 63,
    }
}
