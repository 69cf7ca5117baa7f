//! Goal: what is sent, to whom it is answered, and that a line outlives its mints. Whether the
//! server takes it is the conformance test's affair.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use dayfly_backend_sdk::{Handle, MintRequest, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::config::{PostgresConfig, PostgresTemplate, Recipe};

fn part(name: &str, within: Duration, raw: &Value) -> Part {
    let template = PostgresTemplate::parse(raw).unwrap().sealed("app").unwrap();
    let recipe: &Recipe = template.inner().unwrap();
    let handle = Handle::parse(name).unwrap();
    let request = MintRequest {
        handle: &handle,
        template: &template,
        expires_at: Timestamp::EPOCH.plus(Duration::from_hours(1)),
        mint_deadline: Timestamp::EPOCH.plus(within),
        principal: "ci",
        lease: "lse_1",
    };
    Part::new(&request, recipe, "SCRAM-SHA-256$1:", Duration::ZERO).unwrap()
}

type Answered = oneshot::Receiver<Result<i64, Failure>>;

fn waiting(name: &str, within: Duration) -> (Waiting, Answered) {
    let (answer, answered) = oneshot::channel();
    (Waiting { part: part(name, within, &json!({})), answer }, answered)
}

#[test]
fn only_those_are_sent_that_somebody_waits_for_the_earliest_last() {
    let (late, _kept) = waiting("a", Duration::from_secs(9));
    let (closed, dropped) = waiting("b", Duration::from_secs(1));
    let (early, _kept_too) = waiting("c", Duration::from_secs(2));
    drop(dropped);
    let left = ready(vec![early, closed, late]);
    let names: Vec<_> = left.iter().map(|one| one.part.handle().as_str()).collect();
    assert_eq!(names, ["a", "c"]);
}

#[test]
fn a_lock_of_the_server_is_waited_for_shorter_than_ours() {
    let raw = json!({ "member_of": ["readers"], "statements": ["SELECT 1"] });
    let part = part("a", Duration::from_secs(9), &raw);
    let text = mint::message(&[&part], Duration::from_millis(1_250)).unwrap().into_text();
    let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not in {text}"));
    assert!(at("pg_advisory_xact_lock") < at("SET LOCAL lock_timeout = 1250;"));
    assert!(at("SET LOCAL lock_timeout") < at("CREATE ROLE"));
    let config = PostgresConfig { statement_timeout_ms: 2, ..PostgresConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    // Zero would mean for ever.
    assert_eq!(Server::new(&config).lock_timeout(), Duration::from_millis(1));
}

#[tokio::test]
async fn a_line_that_broke_down_is_free_again_and_another_comes_in_its_place() {
    let server = Arc::new(Server::new(&PostgresConfig::default()));
    let state = Mutex::new(State { queue: Queue::new(1), closed: false });
    let lines = Arc::new(Lines { server, state, wake: Notify::new() });
    let ((first, lost), (second, _kept)) =
        (waiting("a", Duration::from_secs(9)), waiting("b", Duration::from_secs(9)));
    assert!(lines.push(first));
    let (count, shared) = (Arc::new(AtomicU32::new(0)), Arc::clone(&lines));
    let counted = Arc::clone(&count);
    keep(move || {
        let (count, lines) = (Arc::clone(&counted), Arc::clone(&shared));
        async move {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                let _turn = lines.take().unwrap();
                panic!("a line breaks down");
            }
        }
    })
    .await;
    assert_eq!(count.load(Ordering::Relaxed), 2);
    assert!(lost.await.is_err(), "it has no answer");
    assert!(lines.push(second));
    assert_eq!(lines.take().unwrap().group.len(), 1);
}
