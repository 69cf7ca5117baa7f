//! One seed from its beginning to its end.
//!
//! Invariant: a run is a function of the seed and the store's kind; it leaves nothing behind.

use std::{sync::Arc, time::Duration};

use dayfly_lease::spawn;

use crate::{
    ci,
    client::Client,
    coverage::Coverage,
    dice::Dice,
    nemesis, oracle,
    plan::{Plan, StoreKind},
    planted::Planted,
    replica::Fleet,
    truth::Truth,
    world::World,
};

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The first invariant that did not hold.
    pub violation: Option<String>,
    /// The history's hash.
    pub hash: u64,
    /// Events in it.
    pub events: u64,
    /// Virtual time.
    pub lasted: Duration,
    /// What was seen.
    pub coverage: Coverage,
}

/// Runs one seed.
pub fn run(seed: u64, store: StoreKind, planted: Option<Planted>, told: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime on one thread");
    if let Some(planted) = planted {
        planted.plant();
    }
    panics::watch();
    let world = runtime.block_on(live(seed, store, planted, told));
    // What still waits is dropped here, inside of the runtime.
    drop(runtime);
    Planted::weed();
    let (hash, events) = world.history.sum();
    let lasted = world.lasted();
    let violation = world.failure().or(panics::seen());
    let coverage = Coverage::default();
    coverage.add(&world.coverage);
    Outcome { violation, hash, events, lasted, coverage }
}

/// A task that panics is started again or forgotten by whoever waits for it; here it is a
/// violation all the same.
mod panics {
    use std::{cell::RefCell, sync::Once};

    thread_local! {
        static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
    }
    static HOOK: Once = Once::new();

    /// Begins to look at this thread.
    pub(super) fn watch() {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                SEEN.set(Some(info.to_string()));
                before(info);
            }));
        });
        SEEN.set(None);
    }

    /// What panicked on this thread since.
    pub(super) fn seen() -> Option<String> {
        SEEN.take().map(|what| format!("a panic: {what}"))
    }
}

async fn live(seed: u64, store: StoreKind, planted: Option<Planted>, told: bool) -> Arc<World> {
    // Timers fire at whole milliseconds of the runtime's own beginning; the run begins at one,
    // or how long the process took to get here would show in every time.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let dice = Dice::new(seed);
    let plan = Plan::draw(seed, store, &dice);
    let world = Arc::new(World::new(plan, dice, planted, told));
    world.event("plan", [seed, 0], || format!("{:#?}", world.plan));
    let truth = Truth::open(store, &world).expect("a store in memory opens");
    world.set_truth(truth);
    let fleet = Fleet::new(&world);
    for index in 0..world.plan.replicas {
        fleet.start(index);
    }
    nemesis::unleash(&world, &fleet);
    drop(spawn(oracle::watch(Arc::clone(&world))));
    ci::begin(&world, &fleet);
    for _ in 0..world.plan.tasks {
        drop(spawn(Client::new(&world, &fleet).run()));
    }
    until(&world, world.plan.lasts, |_| false).await;
    world.heal();
    fleet.heal();
    world.event("healed", [0, 0], String::new);
    let longest = world.plan.task_most + Duration::from_hours(1);
    until(&world, longest, |world| !world.plan.whole_tail && oracle::is_quiet(world)).await;
    // A full tail may end while the reapers are asking; then they may have their answer.
    until(&world, Duration::from_mins(1), oracle::is_quiet).await;
    oracle::at_the_end(&world);
    world.end();
    world
}

/// Waits so long, or until a violation, or until `done`.
async fn until(world: &World, lasts: Duration, done: impl Fn(&World) -> bool) {
    let end = world.elapsed() + lasts;
    while world.elapsed() < end && world.failure().is_none() && !done(world) {
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
}
