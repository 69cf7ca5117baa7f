//! Policy has changed: what would be denied now ends, and nothing else does.

use std::{fs, net::IpAddr, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store, eventually};
use serde_json::{Value, json};

use crate::binding::Holder;

const DEAD_WITHIN: Duration = Duration::from_secs(20);
/// Longer than a pass over a handful of tasks takes.
const A_WHILE: Duration = Duration::from_secs(2);

fn rules(broker: &Broker) -> String {
    fs::read_to_string(broker.path().join("policies/test.cedar")).unwrap()
}

/// Puts `rules` into force, and waits until they are.
async fn reload(broker: &Broker, rules: &str) {
    fs::write(broker.path().join("policies/test.cedar"), rules).unwrap();
    signal(broker, "policy.reloaded").await;
}

async fn signal(broker: &Broker, said: &str) {
    let before = broker.log_length();
    broker.signal("HUP");
    eventually(said, Duration::from_secs(10), async || {
        broker.log_after(before).contains(said).then_some(())
    })
    .await;
}

async fn state(owner: &Client, task: &str) -> String {
    owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200).text("/state")
}

/// The cause of a lease's death, once it is verified.
async fn dead(owner: &Client, lease: &str) -> String {
    eventually("the lease is verified dead", DEAD_WITHIN, async || {
        let lease = owner.lease(lease).await.expect(200);
        (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
    })
    .await
}

async fn denials(broker: &Broker) -> Vec<Value> {
    let records = broker.audit().await;
    records.into_iter().filter(|record| record["event"] == "decision.denied").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_is_forbidden_now_dies_and_the_task_goes_on() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(BrokerConfig::new(store, Some(&postgres))).await;
        let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
        let reader = owner.mint("reader").await.expect(201);
        let greeter = owner.mint("greeter").await.expect(201).text("/id");
        let url = reader.text("/credential/url");
        assert!(postgres.lets_in(&url));
        let forbidden = "@id(\"test/no-reader\")\nforbid (principal, \
            action == Dayfly::Action::\"mint\", resource == Dayfly::Role::\"reader\");\n";
        reload(&broker, &format!("{}{forbidden}", rules(&broker))).await;
        assert_eq!(dead(&owner, &reader.text("/id")).await, "policy_changed");
        assert!(!postgres.lets_in(&url), "a login after the right was taken away");
        assert_eq!(postgres.roles("df_"), Vec::<String>::new());
        assert_eq!(state(&owner, &task).await, "open");
        assert_eq!(owner.lease(&greeter).await.text("/state"), "active");
        let denials = denials(&broker).await;
        let [denial] = denials.as_slice() else { panic!("not one: {denials:?}") };
        assert_eq!(denial["detail"]["rules"], json!(["test/no-reader"]));
        assert_eq!(denial["detail"]["recheck"], true);
        assert_eq!(denial["lease"], reader.text("/id"));
        owner.mint("greeter").await.expect(201);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_would_not_be_opened_now_ends_with_its_credentials() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let (other, neighbour) = broker.client().with(&broker.issuer.token("other")).open_task().await;
    let forbidden = "@id(\"test/no-job\")\nforbid (principal, \
        action == Dayfly::Action::\"open_task\", resource)\n\
        when { principal is Dayfly::Workload && principal.subject == \"job\" };\n";
    reload(&broker, &format!("{}{forbidden}", rules(&broker))).await;
    assert_eq!(dead(&owner, &lease).await, "policy_changed");
    assert_eq!(state(&owner, &task).await, "revoked");
    owner.mint("greeter").await.problem(409, "task_closed");
    assert_eq!(state(&neighbour, &other).await, "open");
    // Again, with the same rules: what has ended has ended.
    signal(&broker, "policy.rechecked").await;
    let records = broker.audit().await;
    let closed: Vec<_> = records.iter().filter(|r| r["event"] == "task.closed").collect();
    let [closed] = closed.as_slice() else { panic!("not one: {closed:?}") };
    assert_eq!((&closed["actor"], &closed["detail"]["end"]), (&json!("policy"), &json!("revoked")));
    assert_eq!(closed["detail"]["cause"], "policy_changed");
    assert_eq!(denials(&broker).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tasks_token_is_bound_to_counts_as_it_did_when_it_was_opened() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let (client, holder) = (broker.client(), Holder::new());
    let (bound, token) = holder.open(&client, &broker.issuer.token("bound")).await;
    let greeter = json!({ "role": "greeter" });
    let kept = holder.post(&client, "/api/v1/leases", &token, greeter.clone()).await.expect(201);
    let (plain, owner) = client.with(&broker.issuer.token("plain")).open_task().await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let forbidden = "@id(\"test/no-bearer\")\nforbid (principal, action in \
        [Dayfly::Action::\"open_task\", Dayfly::Action::\"mint\"], resource)\n\
        when { context.token_binding != \"key\" };\n";
    reload(&broker, &format!("{}{forbidden}", rules(&broker))).await;
    assert_eq!(dead(&owner, &lease).await, "policy_changed");
    assert_eq!(state(&owner, &plain).await, "revoked");
    // It is older, and was judged before.
    let admin = client.with(&broker.admin());
    assert_eq!(state(&admin, &bound).await, "open");
    assert_eq!(admin.lease(&kept.text("/id")).await.expect(200).text("/state"), "active");
    holder.post(&client, "/api/v1/leases", &token, greeter).await.expect(201);
}

/// Of who opened the task on one machine and mints on another.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_judged_by_the_address_that_it_was_asked_for_from() {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.policies.push_str(
        "@id(\"test/from-there\")\n@reason(\"mints come from 127.0.0.2 alone\")\n\
         forbid (principal, action == Dayfly::Action::\"mint\", resource)\n\
         unless { context has source_address &&\n\
         context.source_address.isInRange(ip(\"127.0.0.2/32\")) };\n",
    );
    let broker = Broker::start(config).await;
    let client = broker.client();
    let opened = json!({ "purpose": "test", "ttl_seconds": 600 });
    let opener = client.with(&broker.issuer.token("job"));
    let opened = opener.post("/api/v1/tasks", opened).await.expect(201);
    let (task, token) = (opened.text("/id"), opened.text("/token"));
    let here = client.with(&token);
    here.mint("greeter").await.problem(403, "role_denied");
    let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
    let http = http.local_address(IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let there = Client::over(http, client.url()).with(&token);
    let lease = there.mint("greeter").await.expect(201).text("/id");

    signal(&broker, "policy.rechecked").await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(here.lease(&lease).await.text("/state"), "active", "it would be minted again");
    let forbidden = "@id(\"test/not-from-there\")\n\
        forbid (principal, action == Dayfly::Action::\"mint\", resource)\n\
        when { context has source_address &&\n\
        context.source_address.isInRange(ip(\"127.0.0.2/32\")) };\n";
    reload(&broker, &format!("{}{forbidden}", rules(&broker))).await;
    assert_eq!(dead(&here, &lease).await, "policy_changed");
    assert_eq!(state(&here, &task).await, "open");
    let records = broker.audit().await;
    let allowed = records.iter().find(|record| record["event"] == "lease.allowed").unwrap();
    assert_eq!(allowed["detail"]["source_address"], "127.0.0.2");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_ends_by_rules_that_are_faulty_missing_or_cannot_be_evaluated() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let good = rules(&broker);
    let faulty = "@id(\"test/faulty\")\nforbid (principal, action == \
        Dayfly::Action::\"open_task\", resource)\n\
        when { context.ttl_seconds * 9223372036854775807 > 0 };\n";
    let file = broker.path().join("policies/test.cedar");
    for (rules, said) in [
        ("permit (principal, action", "policy.reload.refused"),
        ("", "policy.recheck.held"),
        (format!("{good}{faulty}").as_str(), "policy.evaluation.failed"),
    ] {
        fs::write(&file, rules).unwrap();
        signal(&broker, said).await;
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(state(&owner, &task).await, "open", "{said}");
        assert_eq!(owner.lease(&lease).await.text("/state"), "active", "{said}");
    }
    let wanted = json!({ "purpose": "test", "ttl_seconds": 600 });
    let newcomer = broker.client().with(&broker.issuer.token("job"));
    newcomer.post("/api/v1/tasks", wanted).await.problem(403, "denied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_of_a_role_that_is_gone_ends_at_the_next_start() {
    let mut broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    broker.kill();
    let text = fs::read_to_string(broker.config_file()).unwrap();
    fs::write(broker.config_file(), text.replace("\"greeter\"", "\"welcomer\"")).unwrap();
    broker.resume().await;
    assert_eq!(dead(&owner, &lease).await, "policy_changed");
    assert_eq!(state(&owner, &task).await, "open");
    owner.mint("welcomer").await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_switched_it_off_keeps_what_is_open() {
    let mut broker = Broker::configure(BrokerConfig::new(Store::Sqlite, None));
    let text = fs::read_to_string(broker.config_file()).unwrap();
    let text = text.replace("dir = \"policies\"", "dir = \"policies\"\nrecheck = false");
    fs::write(broker.config_file(), text).unwrap();
    broker.resume().await;
    let (_, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let none = "@id(\"test/none\")\nforbid (principal is Dayfly::Workload, action, resource)\n\
        unless { context has own_task };\n";
    reload(&broker, &format!("{}{none}", rules(&broker))).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(owner.lease(&lease).await.text("/state"), "active");
}
