//! The reference model: what must be true of every lease, said a second time and apart from
//! the engine.
//!
//! Invariant: it knows the engine's ids and no other of its types or rules, so that a mistake
//! there is not repeated here.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use dayfly_lease::{LeaseId, ReplicaId, TaskId};

use crate::hearing::Hearing;

/// Where a lease is in its life, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the engine's states")]
pub enum Phase {
    Pending,
    Active,
    Revoking,
    Revoked,
    Abandoned,
}

/// A lease's row as the store has it; times are microseconds by the store's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the row's columns")]
pub struct Row {
    pub id: LeaseId,
    pub task: TaskId,
    pub backend: usize,
    pub handle: String,
    pub epoch: i64,
    pub phase: Phase,
    pub cause: Option<&'static str>,
    pub issued_at: i64,
    pub expires_at: i64,
    pub max_expires_at: i64,
    pub mint_deadline: i64,
    pub settle_at: Option<i64>,
    pub condemned_at: Option<i64>,
    pub delivered: bool,
    pub attempts: u32,
    pub claimed_by: Option<ReplicaId>,
    pub decision: (ReplicaId, u64),
}

impl Row {
    /// From when on the credential must not be.
    pub fn due(&self) -> i64 {
        /// A lease that nobody was seen to take by then has no holder.
        const UNTAKEN: i64 = 5_000_000;
        match self.phase {
            Phase::Pending => self.mint_deadline,
            Phase::Active if self.delivered => self.expires_at,
            Phase::Active => self.expires_at.min(self.mint_deadline + UNTAKEN),
            Phase::Revoking | Phase::Revoked | Phase::Abandoned => {
                self.condemned_at.unwrap_or(self.issued_at)
            }
        }
    }
}

/// What became of a row when the store was put back to an old copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// It never was.
    Never,
    /// The row is what it was then.
    Back,
    /// There was no row yet.
    Gone,
}

/// A lease and what is known of it besides its row.
#[derive(Clone, Debug)]
pub struct Tracked {
    /// The row.
    pub row: Row,
    /// How often the backend was asked to create it.
    pub sent: u32,
    /// How often it did.
    pub created: u32,
    /// Why the sweep alone can end it, if that is so, and since when in the run's time.
    pub beyond: Option<(&'static str, Duration)>,
    /// The row cannot be read now.
    pub bad: bool,
    /// What an old copy of the store did to it.
    pub copied: Copied,
    /// Until when it must live although that copy does not say so.
    pub kept: Option<i64>,
    /// Until when, in the run's time, something of its own was wrong with it.
    pub own_trouble: Duration,
    /// Its activation was seen.
    pub activated: bool,
    /// What its holder was told that it lives until, by the store's clock.
    pub promised: Option<i64>,
    /// How often a renewal was asked for.
    pub renewals: u32,
    /// How often its row was given a later end.
    pub extended: u32,
    /// How often that was taken back, or tried to be.
    pub taken_back: u32,
    /// When, in the run's time, its answer could not be handed over.
    pub refused_at: Option<Duration>,
}

/// All that is known.
#[derive(Debug, Default)]
pub struct Model {
    /// The leases.
    pub leases: BTreeMap<LeaseId, Tracked>,
    /// The leases by backend and handle.
    pub names: BTreeMap<(usize, String), LeaseId>,
    /// The epochs, for whoever looks for changes.
    pub epochs: BTreeMap<LeaseId, i64>,
    /// What the audit log says of a lease.
    pub told: BTreeSet<(LeaseId, String)>,
    /// The audit log's records: event and lease.
    pub records: BTreeMap<(ReplicaId, u64), (String, Option<LeaseId>)>,
    /// Each task's deadline by the store's clock.
    pub tasks: BTreeMap<TaskId, i64>,
    /// The tasks that were closed.
    pub closed: BTreeSet<TaskId>,
    /// The names of the jobs that a task is of.
    pub jobs: BTreeMap<TaskId, Vec<String>>,
    /// The jobs that the store was told are over.
    pub told_over: BTreeSet<String>,
    /// Those of them that somebody was told of in turn: nothing of them is open any more.
    pub over: BTreeSet<String>,
    /// Which key a lease was minted under.
    pub keys: BTreeMap<LeaseId, (TaskId, String)>,
    /// Who could hear whom.
    pub hearing: Hearing,
    secrets: BTreeSet<String>,
}

impl Model {
    /// The lease that a name at a backend belongs to.
    pub fn named(&self, backend: usize, handle: &str) -> Option<&Tracked> {
        let id = self.names.get(&(backend, handle.to_owned()))?;
        self.leases.get(id)
    }

    /// The same, to change it.
    pub fn named_mut(&mut self, backend: usize, handle: &str) -> Option<&mut Tracked> {
        let id = self.names.get(&(backend, handle.to_owned()))?;
        self.leases.get_mut(id)
    }

    /// A row was written at `now` of the store; `usable` says whether its credential can be
    /// used at this moment. Answers with what does not hold.
    pub fn row(&mut self, row: Row, now: i64, usable: bool) -> Result<(), String> {
        let id = row.id;
        self.epochs.insert(id, row.epoch);
        let Some(before) = self.leases.get(&id).cloned() else {
            self.names.insert((row.backend, row.handle.clone()), id);
            let checked = self.first(&row, now);
            self.leases.insert(id, Tracked::new(row));
            return checked;
        };
        let checked = self.next(&before, &row, now, usable);
        if let Some(tracked) = self.leases.get_mut(&id) {
            // What was lost is back. Who holds it may ask for less from now on.
            tracked.kept = tracked.kept.filter(|kept| row.expires_at < *kept);
            tracked.activated |= row.phase == Phase::Active;
            tracked.row = row;
        }
        checked
    }

    fn first(&self, row: &Row, now: i64) -> Result<(), String> {
        let id = row.id;
        if row.phase != Phase::Pending || row.epoch != 0 {
            return Err(format!("{id} begins as {:?} with epoch {}", row.phase, row.epoch));
        }
        if row.expires_at > row.max_expires_at || row.expires_at <= row.issued_at {
            return Err(format!("{id} has no life between {} and its end", row.issued_at));
        }
        self.open(row, now, "intended")
    }

    fn next(&self, old: &Tracked, row: &Row, now: i64, usable: bool) -> Result<(), String> {
        let (id, was) = (row.id, &old.row);
        if row.epoch != was.epoch + 1 && !old.bad {
            return Err(format!("I9: {id} went from epoch {} to {}", was.epoch, row.epoch));
        }
        let goes = matches!(
            (was.phase, row.phase),
            (Phase::Pending | Phase::Active, Phase::Active | Phase::Revoking)
                | (Phase::Revoking, Phase::Revoking | Phase::Revoked | Phase::Abandoned)
        );
        if !goes {
            return Err(format!("{id} went from {:?} to {:?}", was.phase, row.phase));
        }
        if was.cause.is_some() && was.cause != row.cause {
            return Err(format!("{id} died of {:?} and then of {:?}", was.cause, row.cause));
        }
        let fixed = |row: &Row| {
            (row.max_expires_at, row.mint_deadline, row.handle.clone(), row.decision, row.task)
        };
        if fixed(was) != fixed(row) || row.expires_at > row.max_expires_at {
            return Err(format!("{id} changed what never changes, or outgrew its maximum"));
        }
        match (was.phase, row.phase) {
            (Phase::Pending, Phase::Active) => self.activated(old, row, now),
            (Phase::Revoking, Phase::Revoking) | (_, Phase::Active | Phase::Pending) => Ok(()),
            (_, Phase::Revoking) => self.condemned(was, old.kept, row, now),
            (_, Phase::Revoked) => self.buried(old, row, usable),
            (_, Phase::Abandoned) => self.says(row, "lease.abandoned"),
        }
    }

    fn activated(&self, old: &Tracked, row: &Row, now: i64) -> Result<(), String> {
        if old.copied == Copied::Back && self.says(row, "lease.adopted").is_ok() {
            return Ok(());
        }
        if old.created == 0 {
            return Err(format!("{} became active and was never created", row.id));
        }
        self.says(row, "lease.active")?;
        self.open(row, now, "activated")
    }

    fn condemned(&self, was: &Row, kept: Option<i64>, row: &Row, now: i64) -> Result<(), String> {
        let ends = self.tasks.get(&row.task).copied().unwrap_or(i64::MIN);
        if row.cause == Some("expired") && now < was.expires_at && now < ends {
            return Err(format!("I8: {} expired {} µs early", row.id, was.expires_at - now));
        }
        if row.cause == Some("expired") && kept.is_some_and(|kept| now < kept.min(ends)) {
            return Err(format!("{} was killed, and only its renewal was lost", row.id));
        }
        self.says(row, "lease.revoking")
    }

    fn buried(&self, old: &Tracked, row: &Row, usable: bool) -> Result<(), String> {
        if usable && old.beyond.is_none() && old.copied == Copied::Never {
            return Err(format!("I2: {} was said to be dead and can be used", row.id));
        }
        self.says(row, "lease.revoked")
    }

    /// Nothing begins for a task that has ended (I5).
    fn open(&self, row: &Row, now: i64, what: &str) -> Result<(), String> {
        let ends = self.tasks.get(&row.task).copied().unwrap_or(i64::MAX);
        if self.closed.contains(&row.task) || now >= ends {
            return Err(format!("I5: {} was {what} after its task had ended", row.id));
        }
        Ok(())
    }

    /// A key stands for one living lease. Asked when a change is whole.
    pub fn alone(&self, lease: LeaseId) -> Result<(), String> {
        let Some(key) = self.keys.get(&lease) else { return Ok(()) };
        let same = |(id, tracked): (&LeaseId, &Tracked)| {
            *id != lease
                && tracked.copied != Copied::Gone
                && tracked.row.phase < Phase::Revoking
                && self.keys.get(id) == Some(key)
        };
        match self.leases.iter().find(|(id, tracked)| same((id, tracked))) {
            Some((other, _)) => {
                Err(format!("once per key: {other} and {lease} live under one key"))
            }
            None => Ok(()),
        }
    }

    /// A task was opened that is of these jobs.
    pub fn opened(&mut self, task: TaskId, jobs: Vec<String>) -> Result<(), String> {
        let over = jobs.iter().find(|job| self.told_over.contains(*job)).cloned();
        self.jobs.insert(task, jobs);
        match over {
            Some(job) => Err(format!("{task} was opened in {job}, which is over")),
            None => Ok(()),
        }
    }

    /// The tasks of a job that nobody has closed, of those that are there.
    pub fn open_in(&self, job: &str) -> impl Iterator<Item = TaskId> {
        let of_job = move |(_, jobs): &(&TaskId, &Vec<String>)| jobs.iter().any(|one| one == job);
        let tasks = self.jobs.iter().filter(of_job).map(|(task, _)| *task);
        tasks.filter(|task| self.tasks.contains_key(task) && !self.closed.contains(task))
    }

    fn says(&self, row: &Row, event: &str) -> Result<(), String> {
        if self.told.contains(&(row.id, event.to_owned())) {
            return Ok(());
        }
        Err(format!("I4: {} went to {:?} and no record says {event}", row.id, row.phase))
    }

    /// The backend created it at `now` of the store.
    pub fn created(&mut self, backend: usize, handle: &str) -> Result<(), String> {
        let Some(tracked) = self.named_mut(backend, handle) else {
            return Err(format!("I1: {handle} was created and no row knows it"));
        };
        tracked.created += 1;
        let (id, decision) = (tracked.row.id, tracked.row.decision);
        if tracked.copied != Copied::Never {
            return Ok(());
        }
        match self.records.get(&decision) {
            Some((event, Some(lease))) if event == "grant.allowed" && *lease == id => Ok(()),
            _ => Err(format!("I4: {id} was created and no record says who allowed it")),
        }
    }

    /// Its holder has it.
    pub fn delivered(&mut self, id: LeaseId, secret: &str, until: i64) -> Result<(), String> {
        if !self.secrets.insert(secret.to_owned()) {
            return Err(format!("I3: the secret of {id} was delivered twice"));
        }
        let Some(tracked) = self.leases.get_mut(&id) else {
            return Err(format!("I1: {id} was delivered and has no row"));
        };
        tracked.promised = Some(until);
        if tracked.activated {
            return Ok(());
        }
        Err(format!("{id} was delivered and never active"))
    }

    /// The store lost commits: what it has now is what counts.
    pub fn rolled_back(&mut self, rows: Vec<Row>) -> Result<u64, String> {
        self.hearing.forget();
        let now: BTreeMap<LeaseId, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        let mut lost = 0;
        for (id, tracked) in &mut self.leases {
            let Some(row) = now.get(id) else {
                if tracked.copied == Copied::Gone {
                    continue;
                }
                return Err(format!("I1: the row of {id} is gone"));
            };
            if tracked.row.phase == Phase::Active && row.phase == Phase::Pending {
                lost += 1;
            }
            tracked.row = row.clone();
            self.epochs.insert(*id, row.epoch);
        }
        Ok(lost)
    }
}

impl Model {
    /// The store is what it was in an old copy: `rows` are there, and `tasks` with whether
    /// they are closed. The log is told anew from its beginning.
    /// `keeps` gives until when a backend itself says that a lease lives, if that counts.
    pub fn restored(
        &mut self,
        rows: Vec<Row>,
        tasks: &[(TaskId, bool)],
        elapsed: Duration,
        keeps: impl Fn(&Tracked) -> Option<i64>,
    ) {
        let mut now: BTreeMap<LeaseId, Row> = rows.into_iter().map(|row| (row.id, row)).collect();
        self.hearing.forget();
        self.told.clear();
        self.records.clear();
        for (id, tracked) in &mut self.leases {
            tracked.kept = keeps(tracked).filter(|_| tracked.row.phase == Phase::Active);
            tracked.promised = None;
            tracked.refused_at = None;
            if let Some(row) = now.remove(id) {
                self.epochs.insert(*id, row.epoch);
                tracked.kept = tracked.kept.filter(|_| row.phase == Phase::Active);
                tracked.row = row;
                tracked.copied = Copied::Back;
            } else {
                tracked.kept = None;
                self.epochs.remove(id);
                tracked.copied = Copied::Gone;
                tracked.row.phase = Phase::Revoked;
                tracked.beyond = Some(("lost with its row", elapsed));
            }
        }
        self.told_over.clear();
        self.over.clear();
        self.tasks.retain(|id, _| tasks.iter().any(|(there, _)| there == id));
        self.closed = tasks.iter().filter(|(_, closed)| *closed).map(|(id, _)| *id).collect();
    }

    /// Somebody has put it right: bounds count from here.
    pub fn recovered(&mut self, elapsed: Duration) {
        for tracked in self.leases.values_mut() {
            tracked.own_trouble = tracked.own_trouble.max(elapsed);
            if let Some((_, since)) = &mut tracked.beyond {
                *since = elapsed;
            }
        }
    }
}

impl Tracked {
    fn new(row: Row) -> Self {
        Self {
            row,
            sent: 0,
            created: 0,
            beyond: None,
            bad: false,
            copied: Copied::Never,
            kept: None,
            own_trouble: Duration::ZERO,
            activated: false,
            promised: None,
            renewals: 0,
            extended: 0,
            taken_back: 0,
            refused_at: None,
        }
    }
}
