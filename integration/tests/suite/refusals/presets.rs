//! Tokens of a platform that is known: what it would not make, and what falls into its traps,
//! is refused, and the audit log says which claim or trap it was.

use std::fmt::Write as _;

use dayfly_integration::{BrokerConfig, Issuer, Platform, Store};
use serde_json::json;

use super::{Scene, identity::opening};

#[tokio::test(flavor = "multi_thread")]
async fn a_platforms_traps_are_refused_and_named_in_the_audit_log() {
    let directory = tempfile::tempdir().unwrap();
    let jwks = directory.path().join("github.json");
    let platform = Platform::new(&jwks);
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    write!(
        config.more,
        "[[issuer]]\nname = \"github\"\npreset = \"github\"\naudience = \"{}\"\n\
         jwks_file = \"{}\"\n",
        Issuer::AUDIENCE,
        jwks.display()
    )
    .unwrap();
    let scene = Scene::with(config, None).await;
    let client = scene.broker.client();
    client.with(&platform.github(json!({ "jti": "first" }))).open_task().await;
    let cases = [
        (json!({ "event_name": "pull_request_target" }), "trapped", "pull-request-target"),
        (json!({ "event_name": "workflow_run" }), "trapped", "workflow-run"),
        (json!({ "repository_id": null }), "claim_missing", "repository_id"),
        (json!({ "repository_id": "0456789" }), "claim_malformed", "repository_id"),
        (json!({ "ref_protected": "True" }), "claim_malformed", "ref_protected"),
    ];
    for (more, code, about) in cases {
        let request = opening(&client.with(&platform.github(more)));
        let noted = [("identity.refused", code)];
        scene.refused(request, (401, "unauthenticated"), &noted).await;
        let record = scene.broker.audit().await.pop().unwrap();
        assert_eq!(record["detail"]["about"], about, "{record}");
    }
    // A fresh token for each request: the same one opens no second task.
    let again = opening(&client.with(&platform.github(json!({ "jti": "first" }))));
    scene.refused(again, (401, "unauthenticated"), &[("identity.refused", "replayed")]).await;
}
