//! Kubernetes as an identity, and as a source of task ends: a real broker, and a stand-in for a
//! cluster's API server (`integration/src/cluster.rs`). What a kube-apiserver answers is known to
//! these tests as the stand-in has it; `api_server.rs` asks a real one.

use std::{fmt::Write as _, fs, time::Duration};

use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Cluster, Issuer, Pod, Postgres, Store, eventually,
};
use serde_json::{Value, json};

const AUDIENCE: &str = Issuer::AUDIENCE;
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Longer than any pause of a follower in these tests, and than an outage that is noticed.
const A_WHILE: Duration = Duration::from_secs(3);

fn section(cluster: &Cluster, more: &str) -> String {
    let (url, token_file) = (cluster.url(), cluster.token_file().display().to_string());
    format!(
        "[[cluster]]\nname = \"k8s\"\napi_url = \"{url}\"\ntoken_file = \"{token_file}\"\n{more}\n"
    )
}

/// Of a broker that asks the cluster about its tokens.
fn asking(store: Store, cluster: &Cluster, more: &str) -> BrokerConfig {
    let mut config = BrokerConfig::new(store, None);
    let review = format!(
        "review = true\ntoken_issuer = \"{}\"\naudiences = [\"{AUDIENCE}\"]\n{more}",
        Cluster::ISSUER
    );
    config.more.push_str(&section(cluster, &review));
    config
}

async fn reviewing(store: Store, cluster: &Cluster, more: &str) -> Broker {
    Broker::start(asking(store, cluster, more)).await
}

/// Of a broker that knows the cluster's tokens by its keys.
fn knowing(cluster: &Cluster, more: &str) -> BrokerConfig {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    write!(
        config.more,
        "[[issuer]]\nname = \"pods\"\npreset = \"kubernetes\"\nissuer = \"{}\"\n\
         audience = \"{AUDIENCE}\"\njwks_file = \"{}\"\n",
        Cluster::ISSUER,
        cluster.jwks_file().display()
    )
    .unwrap();
    config.more.push_str(&section(cluster, &format!("issuer = \"pods\"\n{more}")));
    config
}

async fn verifying(cluster: &Cluster, more: &str) -> Broker {
    Broker::start(knowing(cluster, more)).await
}

async fn try_open(broker: &Broker, token: &str) -> Answer {
    let body = json!({ "purpose": "test", "ttl_seconds": 600 });
    broker.client().with(token).post("/api/v1/tasks", body).await
}

async fn open(broker: &Broker, cluster: &Cluster, pod: &Pod) -> (String, Client) {
    broker.client().with(&cluster.token(pod, AUDIENCE)).open_task().await
}

async fn state(owner: &Client, task: &str) -> String {
    owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200).text("/state")
}

async fn ends(owner: &Client, task: &str) -> String {
    eventually("the task has ended", ENDS_WITHIN, async || {
        let state = state(owner, task).await;
        (state != "open").then_some(state)
    })
    .await
}

/// The status of an attempt to open a task, and what the audit log says of it.
async fn refused(broker: &Broker, token: &str) -> (u16, String) {
    let status = try_open(broker, token).await.status;
    let record = broker.audit().await.pop().unwrap();
    (status, record["detail"]["code"].as_str().unwrap_or_default().to_owned())
}

async fn is_followed(broker: &Broker) -> bool {
    let text = broker.client().get("/metrics").await.unwrap().expect(200).text;
    let mut series = text.lines().filter(|line| line.starts_with("dayfly_pods_followed{"));
    series.all(|line| line.ends_with(" 1")) && text.contains("dayfly_pods_followed{")
}

async fn followed(broker: &Broker) {
    eventually("the pods are followed", ENDS_WITHIN, async || {
        is_followed(broker).await.then_some(())
    })
    .await;
}

fn lists(cluster: &Cluster) -> usize {
    let asked = cluster.asked();
    asked
        .iter()
        .filter(|asked| asked.contains("/pods?limit=") && !asked.contains("continue"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_opens_a_task_that_ends_with_it() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let cluster = Cluster::start().await;
        let broker = reviewing(store, &cluster, "watch = \"stream\"").await;
        let (done, broken, gone) =
            (cluster.add("ci", "job-1"), cluster.add("ci", "job-2"), cluster.add("ci", "job-3"));
        let neighbour = cluster.add("prod", "job-1");
        followed(&broker).await;
        let (first, owner) = open(&broker, &cluster, &done).await;
        let lease = owner.mint("greeter").await.expect(201).text("/id");
        let (second, second_owner) = open(&broker, &cluster, &broken).await;
        let (third, third_owner) = open(&broker, &cluster, &gone).await;
        let (other, other_owner) = open(&broker, &cluster, &neighbour).await;

        cluster.finish(&done, "Succeeded");
        cluster.finish(&broken, "Failed");
        cluster.tell_to_go(&gone);
        assert_eq!(ends(&owner, &first).await, "completed");
        assert_eq!(ends(&second_owner, &second).await, "failed");
        assert_eq!(state(&third_owner, &third).await, "open", "its containers still run");
        cluster.remove(&gone);
        assert_eq!(ends(&third_owner, &third).await, "cancelled");
        let cause = eventually("its credential is dead", ENDS_WITHIN, async || {
            let lease = owner.lease(&lease).await.expect(200);
            (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
        })
        .await;
        assert_eq!(cause, "task_completed");
        assert_eq!(state(&other_owner, &other).await, "open");

        // The pod's object is still there, and so its token is good; but its work is over.
        try_open(&broker, &cluster.token(&done, AUDIENCE)).await.problem(409, "job_ended");
        // Another pod of the same name is another.
        let next = cluster.add("ci", "job-3");
        let (again, again_owner) = open(&broker, &cluster, &next).await;
        assert_eq!(state(&again_owner, &again).await, "open");

        let records = broker.audit().await;
        let closed: Vec<&Value> = records.iter().filter(|r| r["event"] == "task.closed").collect();
        assert_eq!(closed.len(), 3, "{closed:?}");
        assert!(closed.iter().all(|record| record["actor"] == "cluster|k8s"), "{closed:?}");
    }
}

/// One rule serves both ways.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_says_and_what_a_token_says_is_one_identity() {
    let cluster = Cluster::start().await;
    let (pod, other) = (cluster.add("ci", "job-1"), cluster.add("ci", "job-2"));
    let rule = format!(
        "@id(\"test/pod\")\n@reason(\"this pod alone\")\npermit (\n\
         principal is Dayfly::Workload, action == Dayfly::Action::\"open_task\", resource\n)\n\
         when {{\n\
         principal.hasTag(\"kubernetes.io.namespace\") &&\n\
         principal.getTag(\"kubernetes.io.namespace\") == \"ci\" &&\n\
         principal.hasTag(\"kubernetes.io.serviceaccount.name\") &&\n\
         principal.getTag(\"kubernetes.io.serviceaccount.name\") == \"runner\" &&\n\
         principal.hasTag(\"kubernetes.io.node.name\") &&\n\
         principal.getTag(\"kubernetes.io.node.name\") == \"n1\" &&\n\
         principal.hasTag(\"kubernetes.io.pod.uid\") &&\n\
         principal.getTag(\"kubernetes.io.pod.uid\") == \"{}\"\n}};\n",
        pod.uid
    );
    let configs = [asking(Store::Sqlite, &cluster, ""), knowing(&cluster, "watch = \"stream\"")];
    for mut config in configs {
        config.policies.clone_from(&rule);
        let broker = Broker::start(config).await;
        try_open(&broker, &cluster.token(&pod, AUDIENCE)).await.expect(201);
        try_open(&broker, &cluster.token(&other, AUDIENCE)).await.problem(403, "denied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_cluster_does_not_know_opens_nothing() {
    let cluster = Cluster::start().await;
    let broker = reviewing(Store::Sqlite, &cluster, "").await;
    let pod = cluster.add("ci", "job-1");
    let good = cluster.token(&pod, AUDIENCE);
    try_open(&broker, &good).await.expect(201);

    let elsewhere = Cluster::start().await.token(&pod, AUDIENCE);
    assert_eq!(refused(&broker, &elsewhere).await, (401, "review_refused".to_owned()));
    let other = cluster.token(&pod, "https://other.example.test");
    assert_eq!(refused(&broker, &other).await, (401, "wrong_audience".to_owned()));
    let old = cluster.token_with(&pod, AUDIENCE, json!({ "exp": Issuer::now() - 60 }));
    assert_eq!(refused(&broker, &old).await, (401, "review_refused".to_owned()));
    let legacy = json!({ "iss": "kubernetes/serviceaccount" });
    let legacy = cluster.token_with(&pod, AUDIENCE, legacy);
    assert_eq!(refused(&broker, &legacy).await, (401, "unknown_issuer".to_owned()));
    let bare = cluster.token_with(&pod, AUDIENCE, json!({ "kubernetes.io": null }));
    assert_eq!(refused(&broker, &bare).await, (401, "claim_missing".to_owned()));
    // The pod is gone, and with it its token, hours before the token's end.
    cluster.remove(&pod);
    assert_eq!(refused(&broker, &good).await, (401, "review_refused".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_a_cluster_that_is_asked_can_be_disabled() {
    let cluster = Cluster::start().await;
    let broker = reviewing(Store::Sqlite, &cluster, "").await;
    let (pod, neighbour) = (cluster.add("ci", "job-1"), cluster.add("prod", "job-1"));
    let (task, owner) = open(&broker, &cluster, &pod).await;
    let (other, other_owner) = open(&broker, &cluster, &neighbour).await;
    let admin = broker.client().with(&broker.admin());
    let wanted = json!({
        "issuer": "k8s", "subject": "system:serviceaccount:ci:runner", "reason": "it leaked",
    });
    let answer = admin.post("/api/v1/identities/disable", wanted.clone()).await.expect(200);
    assert_eq!(answer.text("/principal"), "k8s|system:serviceaccount:ci:runner");
    assert_eq!(answer.body["tasks"], json!([task]));
    assert_eq!(state(&owner, &task).await, "revoked");
    let token = cluster.token(&pod, AUDIENCE);
    assert_eq!(refused(&broker, &token).await, (401, "identity_disabled".to_owned()));
    assert_eq!(state(&other_owner, &other).await, "open");
    admin.post("/api/v1/identities/enable", wanted).await.expect(200);
    try_open(&broker, &token).await.expect(201);
    // The `iss` that all clusters share is nobody's name.
    let shared = json!({ "issuer": Cluster::ISSUER, "subject": "x", "reason": "x" });
    admin.post("/api/v1/identities/disable", shared).await.problem(422, "unknown_issuer");
}

/// An API server that does not know of audiences says yes to a token for anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_repeat_our_audience_is_not_believed() {
    let cluster = Cluster::start().await;
    let broker = reviewing(Store::Sqlite, &cluster, "").await;
    let pod = cluster.add("ci", "job-1");
    let token = cluster.token(&pod, AUDIENCE);
    try_open(&broker, &token).await.expect(201);
    cluster.ignore_audiences();
    assert_eq!(refused(&broker, &token).await, (401, "answer_refused".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_cluster_is_not_the_callers_fault_and_ends_nobody() {
    let cluster = Cluster::start().await;
    let broker = reviewing(Store::Sqlite, &cluster, "watch = \"stream\"").await;
    let (one, other) = (cluster.add("ci", "job-1"), cluster.add("ci", "job-2"));
    followed(&broker).await;
    let (task, owner) = open(&broker, &cluster, &one).await;
    let (second, second_owner) = open(&broker, &cluster, &other).await;
    let token = cluster.token(&one, AUDIENCE);

    cluster.go_down();
    assert_eq!(refused(&broker, &token).await, (503, "cluster_unavailable".to_owned()));
    // Who has nothing to do with it notices nothing.
    try_open(&broker, &broker.issuer.token("job")).await.expect(201);
    cluster.remove(&other);
    cluster.forget();
    tokio::time::sleep(A_WHILE).await;
    assert!(!is_followed(&broker).await);
    assert_eq!(state(&owner, &task).await, "open");
    assert_eq!(state(&second_owner, &second).await, "open", "nobody has said that it is gone");

    cluster.come_up();
    assert_eq!(ends(&second_owner, &second).await, "cancelled");
    assert_eq!(state(&owner, &task).await, "open");
    try_open(&broker, &token).await.expect(201);
    followed(&broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_where_it_was_cut_and_lists_again_where_it_cannot() {
    let cluster = Cluster::start().await;
    let pods: Vec<Pod> = (0..5).map(|n| cluster.add("ci", &format!("job-{n}"))).collect();
    let broker = reviewing(Store::Sqlite, &cluster, "watch = \"stream\"").await;
    followed(&broker).await;
    let asked = cluster.asked();
    assert!(asked.iter().any(|asked| asked.contains("continue=")), "of several pages: {asked:?}");
    let before = lists(&cluster);

    let (task, owner) = open(&broker, &cluster, &pods[0]).await;
    cluster.cut();
    cluster.remove(&pods[0]);
    assert_eq!(ends(&owner, &task).await, "cancelled");
    assert_eq!(lists(&cluster), before, "it was told in the next watch");

    let (task, owner) = open(&broker, &cluster, &pods[1]).await;
    cluster.cut();
    cluster.remove(&pods[1]);
    // Nobody can be told of it any more.
    cluster.forget();
    assert_eq!(ends(&owner, &task).await, "cancelled");
    assert!(lists(&cluster) > before, "only a list could tell: {:?}", cluster.asked());
    try_open(&broker, &cluster.token(&pods[2], AUDIENCE)).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ended_while_nobody_looked_ends_its_task_at_the_start() {
    let cluster = Cluster::start().await;
    let mut broker = verifying(&cluster, "watch = \"stream\"").await;
    let (gone, done, there) =
        (cluster.add("ci", "job-1"), cluster.add("ci", "job-2"), cluster.add("ci", "job-3"));
    followed(&broker).await;
    let mut tasks = Vec::new();
    for pod in [&gone, &done, &there] {
        tasks.push(open(&broker, &cluster, pod).await);
    }
    broker.kill();
    cluster.remove(&gone);
    cluster.finish(&done, "Failed");
    broker.resume().await;
    let [(first, owner), (second, second_owner), (third, third_owner)] = tasks.as_slice() else {
        panic!("three tasks")
    };
    assert_eq!(ends(owner, first).await, "cancelled");
    assert_eq!(ends(second_owner, second).await, "failed");
    assert_eq!(state(third_owner, third).await, "open");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_namespaces_that_are_named_are_followed() {
    let cluster = Cluster::start().await;
    let more = "watch = \"stream\"\nnamespaces = [\"ci\", \"build\"]";
    let broker = reviewing(Store::Sqlite, &cluster, more).await;
    let (inside, outside) = (cluster.add("build", "job-1"), cluster.add("prod", "job-1"));
    followed(&broker).await;
    let (task, owner) = open(&broker, &cluster, &inside).await;
    let (other, other_owner) = open(&broker, &cluster, &outside).await;
    cluster.remove(&outside);
    cluster.remove(&inside);
    assert_eq!(ends(&owner, &task).await, "cancelled");
    assert_eq!(state(&other_owner, &other).await, "open", "nobody follows it");
    let asked = cluster.asked();
    assert!(!asked.iter().any(|asked| asked.contains("/api/v1/pods")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_watch_is_allowed_the_pods_of_open_tasks_are_asked_for() {
    let cluster = Cluster::start().await;
    let broker = verifying(&cluster, "watch = \"poll\"").await;
    let (gone, there) = (cluster.add("ci", "job-1"), cluster.add("ci", "job-2"));
    let (task, owner) = open(&broker, &cluster, &gone).await;
    let (other, other_owner) = open(&broker, &cluster, &there).await;
    followed(&broker).await;
    cluster.remove(&gone);
    let next = cluster.add("ci", "job-1");
    let ended = eventually("the task has ended", Duration::from_mins(1), async || {
        let state = state(&owner, &task).await;
        (state != "open").then_some(state)
    })
    .await;
    assert_eq!(ended, "cancelled", "another pod has its name: {next:?}");
    assert_eq!(state(&other_owner, &other).await, "open");
    let asked = cluster.asked();
    assert!(!asked.iter().any(|asked| asked.contains("/pods?")), "no lists: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_own_token_is_replaced_under_it_and_written_nowhere() {
    let cluster = Cluster::start().await;
    let broker = reviewing(Store::Sqlite, &cluster, "watch = \"stream\"").await;
    let pod = cluster.add("ci", "job-1");
    followed(&broker).await;
    let token = cluster.token(&pod, AUDIENCE);
    let mut secrets = vec![token.clone(), cluster.our_token()];
    cluster.replace_our_token();
    secrets.push(cluster.our_token());
    try_open(&broker, &token).await.expect(201);
    fs::write(cluster.token_file(), "not.the.token").unwrap();
    assert_eq!(refused(&broker, &token).await, (503, "cluster_unavailable".to_owned()));
    for (path, bytes) in broker.everything_written() {
        let text = String::from_utf8_lossy(&bytes);
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{}", path.display());
        }
    }
}
