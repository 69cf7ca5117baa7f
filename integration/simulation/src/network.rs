//! Messages: delayed, lost, answered to nobody, applied twice, applied when the caller is dead.
//!
//! Invariant: a message belongs to the network from when it is sent; whatever becomes of its
//! sender, it has its effect or not, but never half of it.

use std::{sync::Arc, time::Duration};

use dayfly_lease::spawn;
use tokio::sync::oneshot;

use crate::{
    coverage::{Fate, Kind, Moment},
    plan::Style,
    process::Process,
    world::{Target, World},
};

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was sent.
    Refused,
    /// Nobody knows what became of it.
    Lost,
}

/// What befalls one message.
#[derive(Debug)]
struct Trip {
    fate: Fate,
    out: Duration,
    back: Duration,
    /// How long the caller waits.
    patience: Duration,
    /// A lost message is noticed at once (a reset) and not by waiting.
    reset: bool,
    again: Option<Duration>,
}

impl Trip {
    fn draw(world: &World, to: Target, kind: Kind) -> Self {
        let dice = &world.dice;
        let takes = match to {
            Target::Store => world.plan.store_takes,
            Target::Backend(_) => world.plan.backend_takes,
        };
        let mut trip = Self {
            fate: Fate::Fine,
            out: dice.millis(0, takes),
            back: dice.millis(0, takes),
            patience: Duration::from_secs(10),
            reset: dice.chance(5_000),
            again: None,
        };
        if !world.is_stormy() {
            return trip;
        }
        let faults = &world.plan.faults;
        let weight = weight(kind);
        if dice.chance(faults.lost_request * weight) {
            trip.fate = Fate::LostRequest;
        } else if dice.chance(faults.lost_reply * weight) {
            trip.fate = Fate::LostReply;
        } else if dice.chance(faults.late * weight) {
            trip.fate = Fate::Late;
            // Requests to a backend without a guard are bounded by their time-out, which is
            // what the engine's quarantine is measured by.
            let most = if unguarded(world, to) { 28 } else { 40 };
            trip.out = dice.seconds(2, most);
        } else if may_repeat(world, to, kind) && dice.chance(faults.twice * weight) {
            trip.fate = Fate::Twice;
            trip.again = Some(dice.seconds(0, 240));
        }
        if dice.chance(faults.hang) {
            trip.reset = false;
            trip.patience = match to {
                Target::Store => Duration::from_secs(30),
                Target::Backend(_) => Duration::from_mins(10),
            };
        }
        trip
    }

    /// Until when it disturbs.
    fn lasts(&self) -> Duration {
        if self.fate == Fate::Fine {
            return Duration::ZERO;
        }
        self.patience.max(self.out).max(self.again.unwrap_or_default())
    }
}

/// What is seldom sent meets trouble more often, or some of it would hardly ever be seen.
fn weight(kind: Kind) -> u64 {
    if matches!(kind, Kind::Shorten | Kind::Settle) {
        return 8;
    }
    if matches!(kind, Kind::Bury | Kind::Mint | Kind::RenewBackend) { 4 } else { 1 }
}

fn unguarded(world: &World, to: Target) -> bool {
    match to {
        Target::Store => false,
        Target::Backend(index) => world.plan.backends.get(index) == Some(&Style::Provider),
    }
}

/// Between client and database nothing repeats a request; between client and provider stand
/// proxies that do.
fn may_repeat(world: &World, to: Target, kind: Kind) -> bool {
    unguarded(world, to)
        && matches!(kind, Kind::Mint | Kind::RenewBackend | Kind::Revoke | Kind::Verify)
}

/// Sends one message and waits for its reply as `process` would.
pub async fn call<R: Send + 'static>(
    process: &Arc<Process>,
    to: Target,
    kind: Kind,
    effect: impl FnMut() -> R + Send + 'static,
) -> Result<R, Failure> {
    process.gate().await;
    let world = Arc::clone(&process.world);
    let trip = Trip::draw(&world, to, kind);
    world.coverage.message(trip.fate, kind);
    if trip.fate != Fate::Fine || trip.patience > Duration::from_secs(10) {
        world.noise(to, trip.lasts());
        let replica = process.index as u64;
        world.event("fault", [replica, kind as u64], || {
            format!("replica {replica} {to:?} {}: {:?}", kind.as_str(), trip.fate)
        });
    }
    let (answer, reply) = oneshot::channel();
    let patience = trip.patience;
    process.awaits(kind);
    world.departs(kind);
    // A reply that never comes is not the same as a connection that breaks: the sender of
    // `answer` is kept for as long as the caller would wait.
    spawn(carry(Arc::clone(&world), process.index, to, kind, trip, effect, answer));
    let outcome = tokio::select! {
        biased;
        reply = reply => reply.ok(),
        () = tokio::time::sleep(patience) => None,
    };
    process.awaited(kind);
    process.gate().await;
    outcome.unwrap_or(Err(Failure::Lost))
}

type Answer<R> = oneshot::Sender<Result<R, Failure>>;

async fn carry<R: Send + 'static>(
    world: Arc<World>,
    replica: usize,
    to: Target,
    kind: Kind,
    trip: Trip,
    mut effect: impl FnMut() -> R + Send + 'static,
    answer: Answer<R>,
) {
    let connected_to = world.incarnation(to);
    tokio::time::sleep(trip.out).await;
    // A connection ends with what it led to. Between client and provider stand proxies.
    let broken = world.incarnation(to) != connected_to && !unguarded(&world, to);
    if trip.fate == Fate::LostRequest || broken {
        world.arrives(kind);
        return never(answer, &trip).await;
    }
    if !world.is_reachable(replica, to) {
        world.arrives(kind);
        world.coverage.message(Fate::Refused, kind);
        if trip.reset {
            drop(answer.send(Err(Failure::Refused)));
            return;
        }
        return never(answer, &trip).await;
    }
    let incarnation = world.incarnation(to);
    let result = effect();
    world.event(kind.as_str(), [replica as u64, 0], || format!("replica {replica} {to:?}"));
    world.arrives(kind);
    if let Some(after) = trip.again {
        world.departs(kind);
        let world = Arc::clone(&world);
        spawn(async move {
            tokio::time::sleep(after).await;
            if kind == Kind::Mint {
                world.saw(Moment::CreatedTwice);
            }
            if !world.is_away(to) {
                drop(effect());
            }
            world.arrives(kind);
        });
    }
    tokio::time::sleep(trip.back).await;
    let cut = !world.is_reachable(replica, to) || world.incarnation(to) != incarnation;
    if trip.fate == Fate::LostReply || cut {
        return never(answer, &trip).await;
    }
    drop(answer.send(Ok(result)));
}

async fn never<R>(answer: Answer<R>, trip: &Trip) {
    if !trip.reset {
        tokio::time::sleep(trip.patience).await;
    }
    drop(answer);
}
