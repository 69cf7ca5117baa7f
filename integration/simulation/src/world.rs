//! The world of one run: time, chance, what is broken now, what was seen.
//!
//! Invariant: everything in it moves by virtual time alone; nothing here waits for the real.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use dayfly_backend_sdk::Timestamp;
use tokio::time::Instant;

use crate::{
    backend::Site,
    coverage::{Coverage, Kind, Moment},
    dice::Dice,
    history::History,
    model::Model,
    plan::Plan,
    planted::{Planted, Slip},
    truth::Truth,
};

/// Whom a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The store.
    Store,
    /// A backend, by its place.
    Backend(usize),
}

/// When a run begins, in seconds since 1970.
const BEGINS: i64 = 1_790_000_000;

/// One run's world.
#[derive(Debug)]
pub struct World {
    /// What this seed does.
    pub plan: Plan,
    /// Chance.
    pub dice: Dice,
    /// What happened.
    pub history: History,
    /// What was seen.
    pub coverage: Coverage,
    /// The backends themselves.
    pub sites: Vec<Site>,
    planted: Option<Planted>,
    truth: OnceLock<Truth>,
    lasted: Mutex<Duration>,
    model: Mutex<Model>,
    links: Mutex<Links>,
    begun: Instant,
    store_offset: AtomicI64,
    restored: AtomicBool,
    lost: AtomicBool,
    failed: Mutex<Option<String>>,
}

#[derive(Debug)]
struct Links {
    storm: bool,
    healed: bool,
    away: BTreeMap<Target, Instant>,
    cut: BTreeMap<(usize, Target), Instant>,
    noise: BTreeMap<Target, Instant>,
    /// One more at each crash: what was on its way then gets no reply.
    incarnation: BTreeMap<Target, u64>,
    in_flight: u64,
}

/// Holds `mutex`; nothing here panics while it does.
pub fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A world at its beginning.
    pub fn new(plan: Plan, dice: Dice, planted: Option<Planted>, told: bool) -> Self {
        let sites = plan.backends.iter().map(|style| Site::new(*style, &dice)).collect();
        let links = Links {
            storm: true,
            healed: false,
            away: BTreeMap::new(),
            cut: BTreeMap::new(),
            noise: BTreeMap::new(),
            incarnation: BTreeMap::new(),
            in_flight: 0,
        };
        Self {
            plan,
            dice,
            history: History::new(told),
            coverage: Coverage::default(),
            sites,
            planted,
            truth: OnceLock::new(),
            lasted: Mutex::default(),
            model: Mutex::default(),
            links: Mutex::new(links),
            begun: Instant::now(),
            store_offset: AtomicI64::new(0),
            restored: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            failed: Mutex::default(),
        }
    }

    /// How long the run has lasted.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The true time.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_seconds(BEGINS).plus(self.elapsed())
    }

    /// The time by a clock that is off by so many microseconds.
    pub fn shifted(&self, micros: i64) -> Timestamp {
        Timestamp::from_micros(self.now().micros().saturating_add(micros))
    }

    /// The wall clock of the store's machine.
    pub fn store_wall(&self) -> Timestamp {
        self.shifted(self.store_offset.load(Ordering::Relaxed))
    }

    /// How far the store's wall clock is off.
    pub fn store_offset(&self) -> i64 {
        self.store_offset.load(Ordering::Relaxed)
    }

    /// The store. Set once, at the beginning.
    pub fn truth(&self) -> &Truth {
        self.truth.get().expect("the store is set before anything runs")
    }

    /// Sets the store.
    pub fn set_truth(&self, truth: Truth) {
        drop(self.truth.set(truth));
    }

    /// The time by the store.
    pub fn store_now(&self) -> Timestamp {
        self.truth().now()
    }

    /// Whether this mistake is planted at the backends.
    pub fn slips(&self, slip: Slip) -> bool {
        self.planted == Some(Planted::Backend(slip))
    }

    /// The run is over: what it lasted is kept, since its clock stops with it.
    pub fn end(&self) {
        *hold(&self.lasted) = self.elapsed();
    }

    /// How long it lasted.
    pub fn lasted(&self) -> Duration {
        *hold(&self.lasted)
    }

    /// Sets the store's wall clock.
    pub fn set_store_offset(&self, micros: i64) {
        self.store_offset.store(micros, Ordering::Relaxed);
    }

    /// The reference model.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        hold(&self.model)
    }

    /// Whether the store was put back to an old copy, and may have forgotten what was durable.
    pub fn has_lost(&self) -> bool {
        self.restored.load(Ordering::Relaxed)
    }

    /// Whether it was, and nobody has put that right yet: then no promise holds.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// The store was put back to an old copy, or that was put right.
    pub fn set_lost(&self, lost: bool) {
        self.restored.store(true, Ordering::Relaxed);
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// Adds to the history.
    pub fn event(&self, name: &'static str, numbers: [u64; 2], text: impl FnOnce() -> String) {
        self.history.event(self.elapsed(), name, numbers, text);
    }

    /// A moment was seen.
    pub fn saw(&self, moment: Moment) {
        self.coverage.saw(moment);
    }

    /// An invariant does not hold. The first one counts.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this call")]
    pub fn violated(&self, what: String) {
        let mut failed = hold(&self.failed);
        if failed.is_none() {
            self.event("VIOLATION", [0, 0], || what.clone());
            *failed = Some(format!("at {:.3} s: {what}", self.elapsed().as_secs_f64()));
        }
    }

    /// The first violation.
    pub fn failure(&self) -> Option<String> {
        hold(&self.failed).clone()
    }

    /// Whether messages are lost and delayed at random now.
    pub fn is_stormy(&self) -> bool {
        let links = hold(&self.links);
        links.storm && !links.healed
    }

    /// Begins or ends a storm.
    pub fn set_storm(&self, storm: bool) {
        hold(&self.links).storm = storm;
    }

    /// From here on nothing more breaks, and what was broken works.
    pub fn heal(&self) {
        let mut links = hold(&self.links);
        links.healed = true;
        links.away.clear();
        links.cut.clear();
    }

    /// Whether the run is past its faults.
    pub fn is_healed(&self) -> bool {
        hold(&self.links).healed
    }

    /// `target` is away for so long.
    pub fn take_away(&self, target: Target, lasts: Duration) {
        let until = Instant::now() + lasts;
        hold(&self.links).away.insert(target, until);
        self.noise(target, lasts);
    }

    /// `replica` and `target` cannot reach each other for so long.
    pub fn cut(&self, replica: usize, target: Target, lasts: Duration) {
        hold(&self.links).cut.insert((replica, target), Instant::now() + lasts);
        self.noise(target, lasts);
    }

    /// Whether a message between the two gets through now.
    pub fn is_reachable(&self, replica: usize, target: Target) -> bool {
        let (links, now) = (hold(&self.links), Instant::now());
        let past = |until: Option<&Instant>| until.is_none_or(|until| *until <= now);
        past(links.away.get(&target)) && past(links.cut.get(&(replica, target)))
    }

    /// Whether `target` is away.
    pub fn is_away(&self, target: Target) -> bool {
        hold(&self.links).away.get(&target).is_some_and(|until| *until > Instant::now())
    }

    /// Whatever is on its way to `target` loses its reply.
    pub fn restart(&self, target: Target) {
        *hold(&self.links).incarnation.entry(target).or_default() += 1;
        self.noise(target, Duration::ZERO);
    }

    /// Which start of `target` this is.
    pub fn incarnation(&self, target: Target) -> u64 {
        hold(&self.links).incarnation.get(&target).copied().unwrap_or_default()
    }

    /// Something concerning `target` goes wrong until so long from now: no bound counts.
    pub fn noise(&self, target: Target, lasts: Duration) {
        let until = Instant::now() + lasts;
        let mut links = hold(&self.links);
        let noise = links.noise.entry(target).or_insert(until);
        *noise = (*noise).max(until);
    }

    /// A replica goes wrong: that concerns everything.
    pub fn noise_everywhere(&self, lasts: Duration) {
        self.noise(Target::Store, lasts);
    }

    /// For how long nothing has gone wrong that concerns `backend`.
    pub fn calm(&self, backend: usize) -> Duration {
        let (links, now) = (hold(&self.links), Instant::now());
        let since = |target| {
            let until = links.noise.get(&target).copied().unwrap_or(self.begun);
            now.saturating_duration_since(until)
        };
        let calm = |target| match links.noise.get(&target) {
            Some(until) if *until > now => Duration::ZERO,
            Some(_) | None => since(target),
        };
        calm(Target::Store).min(calm(Target::Backend(backend)))
    }

    /// A message is on its way.
    pub fn departs(&self, kind: Kind) {
        hold(&self.links).in_flight += u64::from(kind.changes());
    }

    /// It has had its effect, or never will.
    pub fn arrives(&self, kind: Kind) {
        let mut links = hold(&self.links);
        links.in_flight = links.in_flight.saturating_sub(u64::from(kind.changes()));
    }

    /// Messages on their way after which something may live or be owed.
    pub fn in_flight(&self) -> u64 {
        hold(&self.links).in_flight
    }
}
