//! Kubernetes as an identity and as a source of task ends, with a real kube-apiserver: what the
//! tests in `kubernetes.rs` have from a stand-in is checked here against what one really says.
//!
//! Its build takes long, so these are built and run by `integration/kubernetes` alone.

use std::{fmt::Write as _, time::Duration};

use dayfly_integration::{
    Answer, ApiServer, Broker, BrokerConfig, Client, Issuer, Pod, Store, eventually,
};
use serde_json::json;

const AUDIENCE: &str = Issuer::AUDIENCE;
const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// How a broker knows the cluster's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    ByKeys,
    ByReview,
}

fn config(server: &ApiServer, known: Known, watch: &str, rule: Option<&str>) -> BrokerConfig {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    if known == Known::ByKeys {
        write!(
            config.more,
            "[[issuer]]\nname = \"pods\"\npreset = \"kubernetes\"\nissuer = \"{}\"\n\
             audience = \"{AUDIENCE}\"\njwks_file = \"{}\"\n",
            ApiServer::ISSUER,
            server.jwks_file().display()
        )
        .unwrap();
    }
    let how = match known {
        Known::ByKeys => "issuer = \"pods\"".to_owned(),
        Known::ByReview => format!(
            "review = true\ntoken_issuer = \"{}\"\naudiences = [\"{AUDIENCE}\"]",
            ApiServer::ISSUER
        ),
    };
    write!(
        config.more,
        "[[cluster]]\nname = \"k8s\"\napi_url = \"{}\"\nca_file = \"{}\"\ntoken_file = \"{}\"\n\
         watch = \"{watch}\"\n{how}\n",
        server.url(),
        server.ca_file().display(),
        server.token_file().display()
    )
    .unwrap();
    if let Some(rule) = rule {
        rule.clone_into(&mut config.policies);
    }
    config
}

async fn try_open(broker: &Broker, token: &str) -> Answer {
    let body = json!({ "purpose": "test", "ttl_seconds": 600 });
    broker.client().with(token).post("/api/v1/tasks", body).await
}

async fn open(broker: &Broker, server: &ApiServer, pod: &Pod) -> (String, Client) {
    broker.client().with(&server.token(pod, Some(AUDIENCE)).await).open_task().await
}

async fn ends(owner: &Client, task: &str) -> String {
    eventually("the task has ended", ENDS_WITHIN, async || {
        let task = owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200);
        let state = task.text("/state");
        (state != "open").then_some(state)
    })
    .await
}

async fn followed(broker: &Broker) {
    eventually("the pods are followed", ENDS_WITHIN, async || {
        let text = broker.client().get("/metrics").await.unwrap().expect(200).text;
        let mut lines = text.lines();
        lines.any(|it| it.starts_with("dayfly_pods_followed{") && it.ends_with(" 1")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_real_cluster_open_tasks_that_end_with_them() {
    let mut server = ApiServer::start().await;
    for (known, watch) in
        [(Known::ByReview, "stream"), (Known::ByKeys, "stream"), (Known::ByReview, "poll")]
    {
        let broker = Broker::start(config(&server, known, watch, None)).await;
        let name = |what: &str| format!("{what}-{known:?}-{watch}").to_lowercase();
        let (done, broken) = (server.add(&name("done")).await, server.add(&name("broken")).await);
        let (gone, after) = (server.add(&name("gone")).await, server.add(&name("after")).await);
        if watch == "stream" {
            followed(&broker).await;
        }
        let (first, first_owner) = open(&broker, &server, &done).await;
        let (second, second_owner) = open(&broker, &server, &broken).await;
        let (third, third_owner) = open(&broker, &server, &gone).await;
        let (fourth, fourth_owner) = open(&broker, &server, &after).await;
        let kept = server.token(&gone, Some(AUDIENCE)).await;

        server.phase(&done, "Succeeded").await;
        server.phase(&broken, "Failed").await;
        server.remove(&gone).await;
        assert_eq!(ends(&first_owner, &first).await, "completed", "{known:?} {watch}");
        assert_eq!(ends(&second_owner, &second).await, "failed", "{known:?} {watch}");
        assert_eq!(ends(&third_owner, &third).await, "cancelled", "{known:?} {watch}");
        let refused = try_open(&broker, &kept).await;
        match known {
            // It knows that the pod is gone, and its answer counts first.
            Known::ByReview => assert_eq!(refused.status, 401),
            Known::ByKeys => drop(refused.problem(409, "job_ended")),
        }

        // What a broken watch did not tell is found out after it.
        server.restart().await;
        server.remove(&after).await;
        assert_eq!(ends(&fourth_owner, &fourth).await, "cancelled", "{known:?} {watch}");
    }
}

/// One rule serves both ways of knowing a token, and asks for all that a bound token tells.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_cluster_says_and_what_a_token_says_is_one_identity() {
    let server = ApiServer::start().await;
    let (pod, other) = (server.add("job").await, server.add("other").await);
    let rule = rule(&[
        ("kubernetes.io.namespace", "ci"),
        ("kubernetes.io.serviceaccount.name", "runner"),
        ("kubernetes.io.node.name", "n1"),
        ("kubernetes.io.pod.name", "job"),
        ("kubernetes.io.pod.uid", &pod.uid),
    ]);
    for known in [Known::ByReview, Known::ByKeys] {
        let broker = Broker::start(config(&server, known, "stream", Some(&rule))).await;
        let token = server.token(&pod, Some(AUDIENCE)).await;
        try_open(&broker, &token).await.expect(201);
        let another = server.token(&other, Some(AUDIENCE)).await;
        try_open(&broker, &another).await.problem(403, "denied");
        assert_eq!(try_open(&broker, &forged(&token)).await.status, 401);
        for audience in [None, Some("https://another.example.test")] {
            let token = server.token(&pod, audience).await;
            assert_eq!(try_open(&broker, &token).await.status, 401, "{known:?} {audience:?}");
        }
    }
}

fn rule(claims: &[(&str, &str)]) -> String {
    let mut rule = String::from(
        "@id(\"test/pod\")\n@reason(\"this pod alone\")\npermit (\n\
         principal is Dayfly::Workload, action == Dayfly::Action::\"open_task\", resource\n)\n\
         when {\nprincipal.hasTag(\"kubernetes.io.node.uid\") &&\n\
         principal.hasTag(\"kubernetes.io.serviceaccount.uid\")",
    );
    for (name, value) in claims {
        write!(
            rule,
            " &&\nprincipal.hasTag(\"{name}\") && principal.getTag(\"{name}\") == \"{value}\""
        )
        .unwrap();
    }
    rule.push_str("\n};\n");
    rule
}

/// The same token with one bit of its signature changed.
fn forged(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut signature = signature.to_owned().into_bytes();
    signature[10] = if signature[10] == b'A' { b'B' } else { b'A' };
    format!("{message}.{}", String::from_utf8(signature).unwrap())
}
