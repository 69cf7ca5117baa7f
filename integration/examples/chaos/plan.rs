//! What breaks when: storms with one or two faults at a time, and calm between them.
//!
//! Invariant: every kind of fault that can be carried out has its turn before one comes again.

use std::{sync::Arc, time::Duration};

use crate::{
    Wanted,
    faults::{Fault, Hop, How, carry_out, failpoints},
    health::{SECOND, now},
    points::Rota,
    rng::Rng,
    world::World,
};

/// The longest stretch in which things break.
const STORM: i64 = 75 * SECOND;
/// Between two storms.
const CALM: Duration = Duration::from_secs(12);
/// Now and then long enough for everything to settle, so that deaths are judged by the short
/// bound.
const LONG_CALM: Duration = Duration::from_secs(50);
const LONG_CALM_EVERY: u32 = 3;
/// A broker is stopped for longer than claims last, which would be most of a shorter run.
const STOP_FROM_MINUTES: f64 = 2.0;

/// Breaks things until the time is over; gives the failpoints that were visited.
pub(crate) async fn carry_on(world: Arc<World>, wanted: Wanted) -> Rota {
    #[expect(clippy::cast_possible_truncation, reason = "minutes are few")]
    let until = now() + (wanted.minutes * 60e6) as i64;
    let mut rota = Rota::new(wanted.seed);
    let mut deck = Deck::new(wanted, &world);
    let mut storms = 0;
    // Some load before anything breaks.
    tokio::time::sleep(Duration::from_secs(3)).await;
    loop {
        let storm_ends = until.min(now() + STORM);
        tokio::join!(
            in_turn(&world, &mut rota, &mut deck.failpoints, storm_ends, until),
            at_random(&world, &mut deck.rng, &mut deck.cards, &mut deck.left, storm_ends),
        );
        storms += 1;
        if now() >= until {
            return rota;
        }
        let calm = if storms % LONG_CALM_EVERY == 0 { LONG_CALM } else { CALM };
        tokio::time::sleep(calm).await;
    }
}

/// The failpoints, one broker after the other.
async fn in_turn(world: &World, rota: &mut Rota, rng: &mut Rng, until: i64, end: i64) {
    while now() < until {
        let replica = rng.index(world.replicas.len());
        // A quarter of it is calm.
        let left = Duration::from_micros((end - now()).unsigned_abs()) * 3 / 4;
        failpoints(world, replica, rota, rng, left).await;
        tokio::time::sleep(rng.millis(300, 1_500)).await;
    }
}

/// Everything else, as the cards fall.
async fn at_random(
    world: &World,
    rng: &mut Rng,
    cards: &mut [Fault],
    left: &mut usize,
    until: i64,
) {
    while now() < until {
        tokio::time::sleep(rng.millis(500, 4_000)).await;
        if *left == 0 {
            rng.shuffle(cards);
            *left = cards.len();
        }
        *left -= 1;
        carry_out(world, &cards[*left], rng).await;
    }
}

/// Every kind of fault once, on every replica that can have it.
struct Deck {
    cards: Vec<Fault>,
    left: usize,
    rng: Rng,
    failpoints: Rng,
}

impl Deck {
    fn new(wanted: Wanted, world: &World) -> Self {
        let seed = wanted.seed;
        let mut cards = vec![Fault::BackendCrash];
        for replica in 0..world.replicas.len() {
            cards.extend([Fault::Kill(replica), Fault::Kill(replica)]);
            if wanted.minutes >= STOP_FROM_MINUTES {
                cards.push(Fault::Stop(replica));
            }
            cards.push(Fault::Terminate(replica));
            for how in [How::DropAnswers, How::HalfClose, How::Reset, How::Stall] {
                cards.push(Fault::Wire(replica, Hop::Backend, how));
                if world.store.is_some() {
                    cards.push(Fault::Wire(replica, Hop::Store, how));
                }
            }
        }
        if world.store.is_some() {
            cards.push(Fault::StoreCrash);
        }
        if world.disk.is_some() {
            cards.push(Fault::DiskFull);
        }
        Self { cards, left: 0, rng: Rng::new(seed, 1), failpoints: Rng::new(seed, 3) }
    }
}
