//! A few seeds on both stores, the seeds that once found something, and that a seed is the
//! whole story. The long run is `integration/simulate`.

use dayfly_lease::planted::Bug;
use dayfly_simulation::{
    plan::StoreKind,
    planted::{Planted, Slip},
    regressions,
    run::run,
};

const STORES: [StoreKind; 2] = [StoreKind::Memory, StoreKind::Sqlite];

#[test]
fn every_invariant_holds() {
    for seed in 0..25 {
        for store in STORES {
            let outcome = run(seed, store, None, false);
            assert_eq!(outcome.violation, None, "seed {seed}, {}", store.as_str());
        }
    }
}

#[test]
fn what_was_found_once_stays_found() {
    for regression in regressions::ALL {
        let outcome = run(regression.seed, regression.store, None, false);
        assert_eq!(outcome.violation, None, "{}", regression.found);
    }
}

#[test]
fn a_seed_is_the_whole_story() {
    for store in STORES {
        let (one, two) = (run(3, store, None, false), run(3, store, None, false));
        assert_eq!((one.hash, one.events), (two.hash, two.events), "{}", store.as_str());
        assert_ne!(one.hash, run(4, store, None, false).hash, "{}", store.as_str());
    }
}

/// An oracle that never cries out holds nothing: four mistakes that few seeds are enough for.
#[test]
fn planted_mistakes_are_found() {
    let mistakes = [
        Planted::Engine(Bug::CreateFirst),
        Planted::Engine(Bug::CompleteEarly),
        Planted::Engine(Bug::SilenceUnheard),
        Planted::Backend(Slip::SessionsSurvive),
    ];
    for mistake in mistakes {
        let finds = |seed| run(seed, StoreKind::Memory, Some(mistake), false).violation.is_some();
        assert!((0..40).any(finds), "{}", mistake.as_str());
    }
}
