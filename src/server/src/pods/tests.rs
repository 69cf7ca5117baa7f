//! What an API server says of pods, in the shapes of Kubernetes 1.33, and what it means.

use dayfly_lease::{JobKey, TaskEnd};
use serde_json::{Value, json};

use super::{
    pod::{Event, Page, PodId, Unreadable, look},
    *,
};
use crate::identity::ClaimValue;

const UID: &str = "7ce5a3c0-40c2-4f0e-8a54-3f1c6a1b7e11";

/// A pod that runs.
fn pod() -> Value {
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {
            "name": "job-abc", "generateName": "job-", "namespace": "ci", "uid": UID,
            "resourceVersion": "12746", "creationTimestamp": "2026-09-21T14:13:20Z",
            "labels": { "batch.kubernetes.io/job-name": "job" },
            "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsV1": {} }],
        },
        "spec": { "containers": [{ "name": "build", "image": "x" }], "nodeName": "n1" },
        "status": {
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True", "lastProbeTime": null }],
            "containerStatuses": [{
                "name": "build", "state": { "running": { "startedAt": "2026-09-21T14:13:22Z" } },
                "lastState": {}, "ready": true, "restartCount": 0, "started": true,
            }],
            "qosClass": "BestEffort",
        },
    })
}

fn terminated() -> Value {
    json!({ "state": { "terminated": { "exitCode": 0, "reason": "Completed" } } })
}

fn running() -> Value {
    json!({ "state": { "running": { "startedAt": "2026-09-21T14:13:22Z" } } })
}

fn waiting() -> Value {
    json!({ "state": { "waiting": { "reason": "PodInitializing" } } })
}

/// A pod with this status, and told to go.
fn going(status: Value) -> Value {
    let mut pod = pod();
    pod["metadata"]["deletionTimestamp"] = json!("2026-09-21T14:20:00Z");
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
    pod["status"] = status;
    pod
}

fn phase(phase: &str) -> Value {
    let mut pod = pod();
    pod["status"]["phase"] = json!(phase);
    pod
}

fn event(kind: &str, object: &Value) -> Result<Event, Unreadable> {
    Event::parse(json!({ "type": kind, "object": object }).to_string().as_bytes())
}

fn end_of(kind: &str, object: &Value) -> Option<TaskEnd> {
    match event(kind, object).unwrap() {
        Event::Pod { pod, end, version } => {
            assert_eq!((pod, version.as_str()), (id(), "12746"));
            end
        }
        other @ (Event::Bookmark { .. } | Event::Error(_)) => panic!("{other:?}"),
    }
}

fn id() -> PodId {
    PodId { namespace: "ci".into(), name: "job-abc".into(), uid: UID.into() }
}

#[test]
fn a_pod_ends_by_its_phase_or_once_it_is_told_to_go_and_nothing_runs() {
    let statuses =
        |containers: Value| json!({ "phase": "Running", "containerStatuses": containers });
    let with_init = |init: Value| {
        let containers = json!([terminated()]);
        let mut status = statuses(containers);
        status["initContainerStatuses"] = init;
        status
    };
    let with_debug = json!({
        "phase": "Running", "containerStatuses": [terminated()],
        "ephemeralContainerStatuses": [running()],
    });
    let gone = Some(TaskEnd::Cancelled);
    for (words, pod, end) in [
        ("it runs", pod(), None),
        ("it waits", phase("Pending"), None),
        ("its node is lost", phase("Unknown"), None),
        ("it has no status yet", json!({ "metadata": pod()["metadata"] }), None),
        ("it did its work", phase("Succeeded"), Some(TaskEnd::Completed)),
        ("it failed, or was evicted", phase("Failed"), Some(TaskEnd::Failed)),
        ("it is to go and still runs", going(statuses(json!([running()]))), None),
        ("one of two still runs", going(statuses(json!([terminated(), running()]))), None),
        ("one has not begun", going(statuses(json!([terminated(), waiting()]))), None),
        ("nobody knows of its containers", going(json!({ "phase": "Pending" })), None),
        ("all are through", going(statuses(json!([terminated(), terminated()]))), gone),
        ("its sidecar still runs", going(with_init(json!([running()]))), None),
        ("its sidecar is through too", going(with_init(json!([terminated()]))), gone),
        ("somebody debugs it", going(with_debug), None),
    ] {
        assert_eq!(end_of("MODIFIED", &pod), end, "{words}");
        assert_eq!(end_of("ADDED", &pod), end, "{words}");
        assert_eq!(end_of("DELETED", &pod), end.or(gone), "{words}, and then it is gone");
    }
    let mut through = pod();
    through["status"]["containerStatuses"] = json!([terminated()]);
    assert_eq!(end_of("MODIFIED", &through), None, "its container may be started again");
}

#[test]
fn bookmarks_move_the_version_and_errors_end_the_watch() {
    let bookmark = json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": { "resourceVersion": "12800", "creationTimestamp": null },
        "spec": { "containers": null }, "status": {},
    });
    assert_eq!(event("BOOKMARK", &bookmark), Ok(Event::Bookmark { version: "12800".into() }));
    let expired = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version: 1 (12746)", "reason": "Expired", "code": 410,
    });
    assert_eq!(event("ERROR", &expired), Ok(Event::Error(410)));
    assert_eq!(event("ERROR", &json!({})), Ok(Event::Error(0)));
}

#[test]
fn what_is_no_event_is_none() {
    let mut nameless = pod();
    nameless["metadata"]["uid"] = json!("");
    let mut versionless = pod();
    versionless["metadata"]["resourceVersion"] = json!("1&watch=0");
    for (kind, object) in [
        ("DELETED", json!({})),
        ("DELETED", json!({ "metadata": {} })),
        ("DELETED", json!([])),
        ("DELETED", nameless),
        ("DELETED", versionless),
        ("REMOVED", pod()),
        ("BOOKMARK", json!({ "metadata": {} })),
    ] {
        assert_eq!(event(kind, &object), Err(Unreadable), "{kind} {object}");
    }
    for line in ["", "{", "[]", "{\"type\":\"DELETED\"}", "<html>"] {
        assert_eq!(Event::parse(line.as_bytes()), Err(Unreadable), "{line}");
    }
}

#[test]
fn a_list_is_one_only_if_it_says_so() {
    let list = |metadata: Value| {
        let mut list = json!({ "kind": "PodList", "apiVersion": "v1", "items": [pod()] });
        list["metadata"] = metadata;
        list
    };
    let page = Page::parse(list(json!({ "resourceVersion": "12746" })).to_string().as_bytes());
    let page = page.unwrap();
    assert_eq!((page.version.as_str(), page.next.as_deref()), ("12746", None));
    assert_eq!(page.pods[0].id(), Some(id()));
    let metadata = json!({ "resourceVersion": "1", "continue": "abc", "remainingItemCount": 3 });
    let page = Page::parse(list(metadata).to_string().as_bytes()).unwrap();
    assert_eq!(page.next.as_deref(), Some("abc"));
    let empty = json!({
        "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": "1" }, "items": [],
    });
    assert!(Page::parse(empty.to_string().as_bytes()).unwrap().pods.is_empty());
    let mut other = empty.clone();
    other["kind"] = json!("SecretList");
    for bad in [json!({}), json!([]), json!({ "items": [] }), list(json!({})), other] {
        assert_eq!(Page::parse(bad.to_string().as_bytes()).err(), Some(Unreadable), "{bad}");
    }
}

/// A 404 of something on the way, or an answer about something else, ends nobody.
#[test]
fn one_pod_is_gone_only_if_the_api_server_says_so_of_it() {
    let missing = |name: &str, kind: &str, reason: &str| {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": format!("pods \"{name}\" not found"), "reason": reason,
            "details": { "name": name, "kind": kind }, "code": 404,
        })
    };
    let mut successor = pod();
    successor["metadata"]["uid"] = json!("8df6b4d1-51d3-401f-9b65-402d7b2c8f22");
    let mut elsewhere = pod();
    elsewhere["metadata"]["namespace"] = json!("prod");
    let gone = Ok(Some(TaskEnd::Cancelled));
    for (words, status, body, expected) in [
        ("it runs", 200, pod(), Ok(None)),
        ("it is through", 200, phase("Succeeded"), Ok(Some(TaskEnd::Completed))),
        ("another has its name", 200, successor, gone),
        ("it is not there", 404, missing("job-abc", "pods", "NotFound"), gone),
        ("another is not there", 404, missing("job-x", "pods", "NotFound"), Err(Unreadable)),
        ("its kind is not there", 404, missing("job-abc", "nodes", "NotFound"), Err(Unreadable)),
        ("another reason", 404, missing("job-abc", "pods", "Expired"), Err(Unreadable)),
        ("no such path", 404, json!({ "error": "not found" }), Err(Unreadable)),
        ("a pod of elsewhere", 200, elsewhere, Err(Unreadable)),
        ("nothing", 200, json!({}), Err(Unreadable)),
        (
            "it is not there, it says well",
            200,
            missing("job-abc", "pods", "NotFound"),
            Err(Unreadable),
        ),
    ] {
        assert_eq!(look(&id(), status, body.to_string().as_bytes()), expected, "{words}");
    }
}

#[test]
fn a_key_is_of_one_pod_and_one_issuer() {
    let text = |text: &str| ClaimValue::Text(text.to_owned());
    let mut claims = BTreeMap::from([
        ("kubernetes.io.namespace".to_owned(), text("ci")),
        ("kubernetes.io.pod.name".to_owned(), text("job-abc")),
        ("kubernetes.io.pod.uid".to_owned(), text(UID)),
    ]);
    assert_eq!(PodId::of_claims(&claims), Some(id()));
    let key = id().key("eu").unwrap();
    assert_eq!(key.as_str(), format!("eu|kubernetes/ci/job-abc/{UID}"));
    assert_eq!(PodId::of_key("eu", &key), Some(id()));
    assert_eq!(PodId::of_key("e", &key), None);
    for other in ["eu|github/1/2/3", "eu|kubernetes/ci/job-abc", "eu|kubernetes/a/b/c/d", "eu"] {
        assert_eq!(PodId::of_key("eu", &JobKey::parse(other).unwrap()), None, "{other}");
    }
    for bad in ["", "a/b", "..", ".a", "a b", "a?b", "a%2fb", "\u{e9}"] {
        claims.insert("kubernetes.io.pod.name".to_owned(), text(bad));
        assert_eq!(PodId::of_claims(&claims), None, "{bad:?}");
    }
    claims.remove("kubernetes.io.pod.name");
    assert_eq!(PodId::of_claims(&claims), None, "a token that is bound to no pod");
}

#[test]
fn the_longest_key_is_one() {
    let longest = PodId { namespace: "n".repeat(63), name: "p".repeat(253), uid: UID.into() };
    assert!(longest.key(&"i".repeat(64)).is_some());
}

#[test]
fn pauses_grow_to_a_bound_and_differ() {
    for (failures, random, millis) in [
        (0, 0, 400),
        (0, 255, 600),
        (1, 0, 400),
        (2, 0, 800),
        (3, 255, 2_400),
        (6, 0, 12_800),
        (7, 0, 24_000),
        (7, 255, 36_000),
        (u32::MAX, 0, 24_000),
    ] {
        assert_eq!(pause(failures, random), Duration::from_millis(millis), "{failures} {random}");
    }
}
