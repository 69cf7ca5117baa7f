//! A short chaos on either store: `integration/chaos` for long ones.

use std::process::Command;

use dayfly_integration::program;
use serde_json::{Value, json};

/// Enough for a storm of each kind's beginning, and short enough to be run every time.
const MINUTES: &str = "0.75";

#[test]
fn a_short_chaos_on_postgresql_leaves_nothing_that_works() {
    chaos("postgres", "1");
}

#[test]
fn a_short_chaos_on_the_embedded_store_leaves_nothing_that_works() {
    chaos("sqlite", "2");
}

/// The judge convicts: of a login that was brought back, and of one that no lease knows.
#[test]
fn a_survivor_and_an_orphan_are_found_and_their_story_is_told() {
    let mut command = Command::new(program("examples/chaos"));
    let output = command.args(["--minutes", "0.2", "--seed", "3", "--plant"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{told}");
    let figures: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(figures["usable_after_death"].as_u64().unwrap() > 0, "{told}");
    assert!(figures["orphans"].as_u64().unwrap() > 0, "{told}");
    assert!(text.contains("client: said to be dead: completion answered 200"), "{told}");
    let (_, kept) = text.split_once("everything that was written is kept in ").unwrap();
    let kept = kept.lines().next().unwrap();
    assert!(std::fs::metadata(format!("{kept}/replica-1/broker.log")).is_ok(), "{told}");
    std::fs::remove_dir_all(kept).unwrap();
}

fn chaos(store: &str, seed: &str) {
    let mut command = Command::new(program("examples/chaos"));
    command.args(["--minutes", MINUTES, "--seed", seed, "--store", store]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let told = format!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    let figures: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    for zero in ["usable_after_death", "orphans", "double_delivery"] {
        assert_eq!(figures[zero], 0, "{told}");
    }
    assert_eq!((&figures["audit_verified"], &figures["violations"]), (&json!(true), &json!({})));
    // That nothing went wrong says nothing where nothing was done.
    for done in ["issued", "used", "renewed", "completed", "kills"] {
        assert!(figures[done].as_u64().unwrap() > 0, "{done}: {told}");
    }
    assert!(figures["failpoints"]["visited"].as_u64().unwrap() > 0, "{told}");
}
