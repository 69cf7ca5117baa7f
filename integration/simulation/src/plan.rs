//! What one seed does: a random subset of the faults and of the operations (swarm testing).
//!
//! Invariant: a plan is a function of the seed and of nothing else.

use std::time::Duration;

use dayfly_lease::Settings;

use crate::dice::Dice;

/// Which store a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// The store in memory, with commits that can be lost.
    Memory,
    /// The SQL of the embedded store.
    Sqlite,
}

impl StoreKind {
    /// As the command line has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
        }
    }
}

/// How a backend behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// PostgreSQL: native expiry, guard, sessions that a revocation ends.
    Database,
    /// Redis: guard, no expiry of its own, forgets what was not saved.
    Cache,
    /// A provider's API over HTTP: neither, and a revocation takes its time to be true.
    Provider,
    /// Keys that are checked in a store of our own.
    Keys,
}

/// How often things go wrong, in ten thousand messages, and how far apart, on average.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A request is lost on its way.
    pub lost_request: u64,
    /// It is applied, and the reply is lost.
    pub lost_reply: u64,
    /// It arrives 2 to 40 seconds late.
    pub late: u64,
    /// It is applied twice.
    pub twice: u64,
    /// Nobody ever answers.
    pub hang: u64,
    /// Kill and start again.
    pub crash: Option<Duration>,
    /// SIGSTOP for 1 to 120 seconds.
    pub pause: Option<Duration>,
    /// One replica loses the store or a backend.
    pub partition: Option<Duration>,
    /// The store is away.
    pub store_outage: Option<Duration>,
    /// The store crashes and loses what it had not made durable.
    pub store_crash: Option<Duration>,
    /// The store is put back to an old copy.
    pub store_restore: Option<Duration>,
    /// A backend is away.
    pub backend_outage: Option<Duration>,
    /// A backend restarts.
    pub backend_restart: Option<Duration>,
    /// The store's clock steps.
    pub clock_step: Option<Duration>,
    /// A lease's row becomes unreadable.
    pub bad_row: Option<Duration>,
}

/// How often clients do what, in ten thousand.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// A mint bears an idempotency key.
    pub key: u64,
    /// The client goes away before the answer.
    pub gone: u64,
    /// The answer cannot be handed over.
    pub undeliverable: u64,
    /// A lease is renewed.
    pub renew: u64,
    /// A lease is revoked by its owner.
    pub revoke: u64,
    /// A task is completed, and not left to its deadline.
    pub complete: u64,
    /// A session is opened with what was delivered.
    pub session: u64,
    /// The credential comes to own something.
    pub own: u64,
}

/// One seed's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// The store.
    pub store: StoreKind,
    /// Replicas.
    pub replicas: usize,
    /// Backends.
    pub backends: Vec<Style>,
    /// How long the clients work.
    pub lasts: Duration,
    /// Tasks.
    pub tasks: u64,
    /// The longest TTL that is asked for.
    pub ttl_most: Duration,
    /// The longest life of a task, and so of a lease.
    pub task_most: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// What clients do.
    pub habits: Habits,
    /// The engine's bounds.
    pub settings: Settings,
    /// How many leases of a backend may live at once, where there is a quota.
    pub quota: Option<u32>,
    /// The longest that a message to the store takes one way when nothing is wrong, in
    /// milliseconds: slow ones overlap more.
    pub store_takes: u64,
    /// The same to a backend.
    pub backend_takes: u64,
    /// Whether the quiet end is run in full.
    pub whole_tail: bool,
    /// Runs of jobs that some of the tasks are of.
    pub runs: u64,
}

impl Plan {
    /// The plan of `seed`.
    pub fn draw(seed: u64, store: StoreKind, dice: &Dice) -> Self {
        let styles = [Style::Database, Style::Cache, Style::Provider, Style::Keys];
        let count = 1 + dice.index(3);
        let backends = (0..count).map(|_| dice.pick(&styles, Style::Database)).collect();
        let plan = Self {
            seed,
            store,
            replicas: 1 + dice.index(3),
            backends,
            lasts: dice.seconds(60, 400),
            tasks: 3 + dice.below(14),
            ttl_most: dice.seconds(20, 600),
            task_most: dice.seconds(60, 900),
            faults: faults(dice, store),
            habits: habits(dice),
            settings: settings(dice),
            quota: dice.chance(3_000).then(|| dice.pick(&[1, 2, 5], 2)),
            store_takes: dice.pick(&[3, 3, 20, 300], 3),
            backend_takes: dice.pick(&[3, 30, 500, 3_000], 3),
            whole_tail: dice.chance(100),
            runs: dice.pick(&[0, 1, 2], 0),
        };
        if plan.faults.store_restore.is_some() { plan.long_lived(dice) } else { plan }
    }

    /// Where the store is put back to an old copy, leases live on and are renewed, or nothing
    /// would be lost by it.
    fn long_lived(mut self, dice: &Dice) -> Self {
        self.tasks += 10;
        self.ttl_most = self.ttl_most.max(Duration::from_mins(5));
        self.task_most = self.task_most.max(Duration::from_mins(10));
        self.habits.renew = 9_000;
        self.habits.revoke = 500;
        self.habits.complete = 2_000;
        if dice.chance(6_000) {
            // A late message may move a backend's own expiry back, and then it proves nothing.
            self.faults.late = 0;
            self.faults.twice = 0;
        }
        self
    }
}

fn faults(dice: &Dice, store: StoreKind) -> Faults {
    let rates = [0, 0, 20, 200, 1_000];
    let rate = || dice.pick(&rates, 0);
    let apart = |least, most| (dice.below(10) < 4).then(|| dice.seconds(least, most));
    Faults {
        lost_request: rate(),
        lost_reply: rate(),
        late: rate(),
        twice: rate(),
        hang: rate() / 4,
        crash: apart(15, 120),
        pause: apart(30, 200),
        partition: apart(30, 200),
        store_outage: apart(60, 300),
        store_crash: apart(20, 120).filter(|_| store == StoreKind::Memory),
        store_restore: apart(10, 60).filter(|_| store == StoreKind::Memory && dice.chance(7_000)),
        backend_outage: apart(60, 300),
        backend_restart: apart(30, 200),
        clock_step: apart(20, 200),
        bad_row: apart(30, 200).filter(|_| store == StoreKind::Sqlite),
    }
}

fn habits(dice: &Dice) -> Habits {
    let rates = [0, 500, 2_000, 5_000, 9_000];
    let rate = || dice.pick(&rates, 0);
    Habits {
        key: rate(),
        gone: rate() / 4,
        undeliverable: rate() / 4,
        renew: rate(),
        revoke: rate(),
        complete: rate(),
        session: rate(),
        own: rate() / 8,
    }
}

fn settings(dice: &Dice) -> Settings {
    let poll = dice.pick(&[1, 5, 10, 20, 30], 10);
    Settings {
        poll_max: Duration::from_secs(poll),
        claim_limit: dice.pick(&[2, 10, 100], 100),
        backoff_max: Duration::from_secs(dice.pick(&[20, 60, 900], 60)),
        mints_per_backend: dice.pick(&[2, 64], 64),
        reapers_per_backend: dice.pick(&[1, 2], 1),
        ..Settings::default()
    }
}
