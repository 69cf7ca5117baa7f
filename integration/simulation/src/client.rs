//! The clients: they open tasks, ask for credentials, use them, give them back or do not.
//!
//! Invariant: a client knows what it was answered and nothing else, and believes it.

use std::{sync::Arc, time::Duration};

use dayfly_backend_sdk::{Plan, Template, Timestamp};
use dayfly_lease::{
    Cause, IdempotencyKey, LeaseId, MintError, Minted, NewTask, Order, RenewError, State, TaskEnd,
    TaskId, Write, Written,
    audit::Entry,
    quota::{Measure, Quota},
    spawn,
};
use serde_json::Value;

use crate::{
    ci,
    coverage::Moment,
    replica::{Fleet, Running},
    watch::backend_name,
    world::World,
};

/// One client with one task.
#[derive(Debug)]
pub struct Client {
    world: Arc<World>,
    fleet: Arc<Fleet>,
}

/// What a client holds.
#[derive(Debug)]
struct Held {
    lease: LeaseId,
    backend: usize,
    handle: String,
}

impl Client {
    /// A client that has done nothing yet.
    pub fn new(world: &Arc<World>, fleet: &Arc<Fleet>) -> Self {
        Self { world: Arc::clone(world), fleet: Arc::clone(fleet) }
    }

    /// Does its work.
    pub async fn run(self) {
        let dice = &self.world.dice;
        tokio::time::sleep(dice.between(Duration::ZERO, self.world.plan.lasts)).await;
        let Some((task, every)) = self.open().await else { return };
        match every {
            None => self.work(task).await,
            // Who has done his work is silent, and his task is lost if he did not complete it.
            Some(every) => tokio::select! {
                biased;
                () = self.work(task) => {}
                () = self.beat(task, every) => {}
            },
        }
    }

    async fn work(&self, task: TaskId) {
        let dice = &self.world.dice;
        let rounds = 1 + dice.below(6);
        for _ in 0..rounds {
            if let Some(held) = self.mint(task).await {
                self.live_with(held).await;
            }
            tokio::time::sleep(dice.millis(0, 30_000)).await;
        }
        if dice.chance(self.world.plan.habits.complete) {
            self.complete(task).await;
        }
    }

    /// Asks a replica, and gives up after a while, as clients do.
    async fn ask<T>(&self, running: &Running, work: impl Future<Output = T>) -> Option<T> {
        let dice = &self.world.dice;
        let gone = dice.chance(self.world.plan.habits.gone);
        let patience = if gone { dice.millis(0, 2_000) } else { Duration::from_mins(1) };
        let answered = async {
            let answer = work.await;
            running.process.gate().await;
            answer
        };
        tokio::time::timeout(patience, answered).await.ok()
    }

    /// Says again and again that somebody is there, as a client would: three times in each
    /// interval, and soon again, perhaps to another replica, when it was not heard.
    async fn beat(&self, task: TaskId, every: Duration) {
        loop {
            let heard = self.beat_once(task, every / 6).await;
            tokio::time::sleep(if heard { every / 3 } else { every / 12 }).await;
        }
    }

    /// Whether there was an answer. Where there is none the replica turned it away, as the broker
    /// does when its store fails or its client is tired of waiting.
    async fn beat_once(&self, task: TaskId, patience: Duration) -> bool {
        let Some(running) = self.fleet.any() else { return false };
        let beat = async {
            let written = running.engine.store().write(Write::Beat { task }).await;
            running.process.gate().await;
            written
        };
        let answer = tokio::time::timeout(patience, beat).await;
        let answered = answer.is_ok_and(|written| match written {
            Ok(_) => true,
            Err(error) => error.refusal().is_some(),
        });
        if !answered {
            let world = &self.world;
            world.saw(Moment::BeatTurnedAway);
            world.model().hearing.missed(running.process.id, world.elapsed());
            running.engine.missed_a_beat();
        }
        answered
    }

    /// Opens a task; a third of them are to be heard, fewer where the store is restored.
    async fn open(&self) -> Option<(TaskId, Option<Duration>)> {
        let world = &self.world;
        let (least, most) = (Duration::from_secs(10), world.plan.task_most);
        for _ in 0..5 {
            if let Some(running) = self.fleet.any() {
                let id = TaskId::new(world.now(), &world.dice);
                let mut token_hash = [0; 32];
                dayfly_lease::Entropy::fill(&world.dice, &mut token_hash);
                let [chance, length, whether, run, job, ..] = token_hash;
                let every = Duration::from_secs(10 + u64::from(length) / 5);
                // What a restored store forgets, the loss of its task must not have ended first.
                let one_in = if world.plan.faults.store_restore.is_some() { 12 } else { 3 };
                let heartbeat = chance.is_multiple_of(one_in).then_some(every);
                let task = Box::new(NewTask {
                    id,
                    principal: "sim|client".into(),
                    issuer: "sim".into(),
                    identity: Value::Null,
                    purpose: "a run".into(),
                    issued_at: None,
                    token_hash,
                    ttl: world.dice.between(least, most),
                    heartbeat,
                    keys: ci::place(world, [whether, run, job]),
                    binding: None,
                    on_behalf_of: None,
                    person_issued_at: None,
                });
                let decision = Entry::new("task.opened", "sim|client");
                let write = Write::OpenTask { task, used: Vec::new(), decision };
                let store = Arc::clone(running.engine.store());
                if let Some(Ok(Written::Task(task))) = self.ask(&running, store.write(write)).await
                {
                    return Some((task.id, heartbeat));
                }
            }
            tokio::time::sleep(world.dice.millis(100, 20_000)).await;
        }
        None
    }

    /// Mints, with the same key again if that fails.
    async fn mint(&self, task: TaskId) -> Option<Held> {
        let dice = &self.world.dice;
        let backend = dice.index(self.world.sites.len());
        let ttl = dice.between(Duration::from_secs(2), self.world.plan.ttl_most);
        let keyed = dice.chance(self.world.plan.habits.key);
        let key = keyed.then(|| IdempotencyKey {
            key: format!("key-{}", dice.below(3)),
            request: [u8::try_from(backend).unwrap_or_default(); 32],
        });
        let mut held = None;
        for _ in 0..=dice.below(3) {
            let order = Order {
                task,
                role: "reader".into(),
                backend: backend_name(backend),
                template: Template::new(Plan::default(), ()),
                ttl,
                ttl_max: ttl * 4,
                renewable: true,
                quotas: self.world.plan.quota.map(quota).into_iter().collect(),
                key: key.clone(),
                decision: Entry::new("grant.allowed", "sim|client"),
            };
            held = self.mint_once(order, backend).await;
            // Some ask again although they were answered: the answer may have been lost.
            if held.is_some() && !(keyed && dice.chance(3_000)) {
                break;
            }
            tokio::time::sleep(dice.millis(10, 5_000)).await;
        }
        held
    }

    async fn mint_once(&self, order: Order, backend: usize) -> Option<Held> {
        let running = self.fleet.any()?;
        let answer = self.ask(&running, running.engine.mint(order)).await?;
        if matches!(answer, Err(MintError::Down { .. })) {
            self.world.saw(Moment::BreakerOpen);
        }
        let minted = answer.ok()?;
        if self.world.dice.chance(self.world.plan.habits.undeliverable) {
            let elapsed = self.world.elapsed();
            if let Some(tracked) = self.world.model().leases.get_mut(&minted.lease.id) {
                tracked.refused_at = Some(elapsed);
            }
            return None;
        }
        Some(self.take(minted, backend))
    }

    /// The answer arrives.
    fn take(&self, minted: Minted, backend: usize) -> Held {
        let world = &self.world;
        let Minted { lease, credential, delivery } = minted;
        let secret = credential.field("password").unwrap_or_default().to_owned();
        let until = lease.expires_at.micros();
        let delivered = world.model().delivered(lease.id, &secret, until);
        if let Err(what) = delivered {
            world.violated(what);
        }
        delivery.handed_over();
        world.saw(Moment::Delivered);
        world.event("delivered", [0, 0], || lease.id.to_string());
        Held { lease: lease.id, backend, handle: lease.handle.as_str().to_owned() }
    }

    async fn live_with(&self, held: Held) {
        let world = &self.world;
        let (dice, habits) = (&world.dice, &world.plan.habits);
        let site = world.sites.get(held.backend);
        if dice.chance(habits.session)
            && let Some(site) = site
        {
            site.open_session(world, &held.handle);
        }
        if dice.chance(habits.own)
            && let Some(site) = site
        {
            self.own(&held, site);
        }
        tokio::time::sleep(dice.millis(0, 20_000)).await;
        for _ in 0..3 {
            if !dice.chance(habits.renew) {
                break;
            }
            self.renew(&held).await;
            tokio::time::sleep(dice.millis(0, 20_000)).await;
        }
        if dice.chance(habits.revoke) {
            self.revoke(&held).await;
        }
    }

    fn own(&self, held: &Held, site: &crate::backend::Site) {
        let lasts = self.world.dice.seconds(10, 400);
        if !site.own(&held.handle, lasts) {
            return;
        }
        let until = self.world.elapsed() + lasts;
        if let Some(tracked) = self.world.model().named_mut(held.backend, &held.handle) {
            tracked.own_trouble = tracked.own_trouble.max(until);
        }
    }

    /// Asks for a longer or a shorter life, sometimes twice at once.
    async fn renew(&self, held: &Held) {
        let dice = &self.world.dice;
        let crossed = dice.chance(2_000);
        if crossed {
            self.world.saw(Moment::RenewalsCrossed);
            let other = Self { world: Arc::clone(&self.world), fleet: Arc::clone(&self.fleet) };
            let (lease, backend, handle) = (held.lease, held.backend, held.handle.clone());
            drop(spawn(async move { other.renew_once(&Held { lease, backend, handle }).await }));
        }
        self.renew_once(held).await;
    }

    async fn renew_once(&self, held: &Held) {
        let Some(running) = self.fleet.any() else { return };
        let ttl = self.world.dice.between(Duration::from_secs(1), self.world.plan.ttl_most);
        self.promise(held, None, ttl);
        let renewal = running.engine.renew(held.lease, ttl, "sim|client");
        match self.ask(&running, renewal).await {
            Some(Ok(renewal)) => {
                self.world.saw(Moment::RenewalGranted);
                self.promise(held, Some(renewal.lease.expires_at), ttl);
            }
            Some(Err(RenewError::Backend(_) | RenewError::Timeout)) => self.not_renewed(held),
            Some(Err(RenewError::Store(_))) | None => {}
        }
    }

    /// The backend did not extend it: then its row must not stay extended.
    fn not_renewed(&self, held: &Held) {
        let model = self.world.model();
        let Some(tracked) = model.leases.get(&held.lease) else { return };
        if tracked.renewals == 1 && tracked.extended > tracked.taken_back {
            self.world.violated(format!("{} was extended, and its backend refused", held.lease));
        }
    }

    /// While a renewal is under way its holder can count on the lesser of the two; when it
    /// was granted, on what was granted, unless others were asked for at the same time.
    fn promise(&self, held: &Held, granted: Option<Timestamp>, ttl: Duration) {
        let asked = self.world.store_now().plus(ttl).micros();
        let mut model = self.world.model();
        let Some(tracked) = model.leases.get_mut(&held.lease) else { return };
        tracked.renewals = match granted {
            None => tracked.renewals + 1,
            Some(_) => tracked.renewals,
        };
        // Nothing is promised any more if the store was put back since.
        let Some(known) = tracked.promised else { return };
        tracked.promised = match granted {
            Some(granted) if tracked.renewals == 1 => Some(granted.micros()),
            Some(granted) => Some(known.min(granted.micros())),
            None => Some(known.min(asked)),
        };
    }

    async fn revoke(&self, held: &Held) {
        let Some(running) = self.fleet.any() else { return };
        let wait = self.world.dice.millis(0, 5_000);
        let revoke = running.engine.revoke(held.lease, Cause::Requested, "sim|client", None, wait);
        let Some(Ok(lease)) = self.ask(&running, revoke).await else { return };
        if matches!(lease.state, State::Revoked { .. }) {
            self.must_be_dead(held.backend, &held.handle, "its revocation was answered");
        }
    }

    async fn complete(&self, task: TaskId) {
        for _ in 0..3 {
            if let Some(running) = self.fleet.any() {
                let wait = self.world.dice.millis(0, 10_000);
                let complete =
                    running.engine.complete(task, TaskEnd::Completed, "sim|client", wait);
                if let Some(Ok(completion)) = self.ask(&running, complete).await {
                    self.completed(task, completion.counts.owed());
                    return;
                }
            }
            tokio::time::sleep(self.world.dice.millis(100, 20_000)).await;
        }
    }

    fn completed(&self, task: TaskId, owed: u64) {
        if owed > 0 {
            self.world.saw(Moment::CompletionOwed);
            return;
        }
        self.world.saw(Moment::CompletionPaid);
        let of_task: Vec<(usize, String)> = {
            let model = self.world.model();
            let rows = model.leases.values().filter(|tracked| tracked.row.task == task);
            rows.map(|tracked| (tracked.row.backend, tracked.row.handle.clone())).collect()
        };
        for (backend, handle) in of_task {
            self.must_be_dead(backend, &handle, "its task was completed");
        }
    }

    fn must_be_dead(&self, backend: usize, handle: &str, why: &str) {
        let world = &self.world;
        if world.is_lost() {
            return;
        }
        let usable = world.sites.get(backend).is_some_and(|site| site.is_usable(world, handle));
        let beyond = world.model().named(backend, handle).is_some_and(|t| t.beyond.is_some());
        if usable && !beyond {
            world.violated(format!("I5: {handle} can be used after {why}"));
        }
    }
}

/// All leases of a backend, whoever has them.
fn quota(most: u32) -> Quota {
    Quota { measure: Measure::BackendLiving, most }
}
