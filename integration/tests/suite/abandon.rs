//! Giving up on a lease that cannot be revoked: it takes two people, and the sweep goes on.

use std::{process::Command, time::Duration};

use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Issuer, Postgres, Store, eventually, program,
};
use serde_json::json;

/// A lease whose role owns a table, so that it cannot be dropped.
struct Poisoned {
    postgres: Postgres,
    broker: Broker,
    task: String,
    owner: Client,
    id: String,
    handle: String,
    url: String,
}

impl Poisoned {
    async fn new() -> Self {
        let postgres = Postgres::start();
        let mut config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
        config.more.push_str("[engine]\nsweep_every = \"5s\"\n");
        let broker = Broker::start(config).await;
        postgres.sql("app", "GRANT CREATE ON SCHEMA app TO readers");
        let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
        let lease = owner.mint("reader").await.expect(201);
        let url = lease.text("/credential/url");
        assert!(postgres.psql(&url, "CREATE TABLE app.mine (x int)").status.success());
        let (id, handle) = (lease.text("/id"), lease.text("/handle"));
        Self { postgres, broker, task, owner, id, handle, url }
    }

    fn person(&self, name: &str) -> String {
        let iss = format!("{}/people", Issuer::URL);
        self.broker.people.token_with(name, json!({ "iss": iss }))
    }

    fn as_person(&self, name: &str) -> Client {
        self.broker.client().with(&self.person(name))
    }

    async fn abandon(&self, who: &Client, reason: &str) -> Answer {
        let path = format!("/api/v1/leases/{}/abandon", self.id);
        who.post(&path, json!({ "reason": reason })).await
    }

    /// Its task is completed, and its revocation has failed.
    async fn owed(&self) {
        self.owner.complete(&self.task, "1s").await.expect(202);
        eventually("an attempt has failed", Duration::from_secs(10), async || {
            let lease = self.owner.lease(&self.id).await;
            (lease.body["last_error"] == "dependent").then_some(())
        })
        .await;
        assert!(!self.postgres.lets_in(&self.url), "it is fenced all the same");
    }

    /// `dayfly lease abandon` as `name`: exit code, stdout, stderr.
    fn by_command(&self, name: &str) -> (Option<i32>, String, String) {
        let mut command = Command::new(program("dayfly"));
        command.args(["lease", "abandon", &self.id, "--reason", "it owns what nobody may drop"]);
        command.env_clear().env("DAYFLY_URL", self.broker.client().url());
        let output = command.env("DAYFLY_TOKEN", self.person(name)).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    async fn records(&self, event: &str) -> Vec<serde_json::Value> {
        let mut records = self.broker.audit().await;
        records.retain(|record| record["event"] == event && record["lease"] == self.id.as_str());
        records
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_give_up_and_the_sweep_goes_on() {
    let poisoned = Poisoned::new().await;
    let (ada, bob) = (poisoned.as_person("ada"), poisoned.as_person("bob"));
    poisoned.abandon(&ada, "too early").await.problem(409, "lease_not_owed");
    poisoned.owed().await;

    // The first one by the command line, which says what it means.
    let (code, out, err) = poisoned.by_command("ada");
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains("revoking") && out.contains("ada"), "{out}");
    assert!(err.contains("nothing is given up yet") && err.contains(&poisoned.handle), "{err}");
    let shown = ada.lease(&poisoned.id).await.expect(200);
    assert_eq!(shown.text("/state"), "revoking");
    assert_eq!(shown.text("/abandonment/by"), "people|ada");
    assert_eq!(shown.text("/abandonment/reason"), "it owns what nobody may drop");

    // Nobody is both people.
    poisoned.abandon(&ada, "once more").await.problem(409, "same_person");
    assert_eq!(poisoned.by_command("ada").0, Some(7));

    let given_up = poisoned.abandon(&bob, "agreed").await.expect(200);
    assert_eq!(given_up.text("/state"), "abandoned");
    assert!(given_up.body["revoked_at"].is_null(), "nothing was verified: {}", given_up.text);
    given_up.text("/abandonment/agreed_at");
    assert_eq!(poisoned.records("lease.abandon_proposed").await.len(), 1);
    let record = &poisoned.records("lease.abandoned").await[0];
    assert_eq!(
        (&record["actor"], &record["detail"]["proposed_by"]),
        (&json!("people|bob"), &json!("people|ada"))
    );
    assert_eq!(record["detail"]["handle"], poisoned.handle.as_str());

    // The task's completion never becomes a success by it.
    let completed = poisoned.owner.complete(&poisoned.task, "1s").await.expect(202);
    assert_eq!(completed.text("/state"), "abandoned");
    poisoned.abandon(&ada, "again").await.problem(409, "lease_not_owed");
    let fsck = poisoned.broker.command(&["fsck"]);
    let said = String::from_utf8(fsck.stdout).unwrap();
    assert!(
        fsck.status.success() && said.contains(&format!("given up: {}", poisoned.id)),
        "{said}"
    );

    // The obstacle goes, and the name is still on the kill list.
    assert_eq!(poisoned.postgres.roles("df_"), [poisoned.handle.as_str()]);
    poisoned.postgres.sql("app", "DROP TABLE app.mine");
    eventually("the sweep ends it", Duration::from_secs(40), async || {
        (!poisoned.postgres.roles("df_").contains(&poisoned.handle)).then_some(())
    })
    .await;
    eventually("it is recorded", Duration::from_secs(5), async || {
        (poisoned.records("orphan.revoked").await.len() == 1).then_some(())
    })
    .await;
    let metrics = poisoned.broker.client().get("/metrics").await.unwrap().expect(200).text;
    assert!(metrics.contains("dayfly_orphans_ended_total{backend=\"pg\"} 1"), "{metrics}");
    assert_eq!(ada.lease(&poisoned.id).await.text("/state"), "abandoned");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_people_give_up_and_they_say_why() {
    let poisoned = Poisoned::new().await;
    poisoned.owed().await;
    let workload = poisoned.broker.client().with(&poisoned.broker.issuer.token("job"));
    for who in [&poisoned.owner, &workload] {
        poisoned.abandon(who, "mine").await.problem(404, "not_found");
    }
    let ada = poisoned.as_person("ada");
    for reason in ["", "  ", "a\nb", &"x".repeat(257)] {
        poisoned.abandon(&ada, reason).await.problem(422, "invalid_reason");
    }
    let path = format!("/api/v1/leases/{}/abandon", poisoned.id);
    ada.post(&path, json!({})).await.problem(400, "invalid_body");
    let lease = ada.lease(&poisoned.id).await.expect(200);
    assert_eq!(lease.text("/state"), "revoking");
    assert!(lease.body["abandonment"].is_null(), "{}", lease.text);
    assert_eq!(poisoned.records("lease.abandon_proposed").await.len(), 0);

    let standing = ada.get("/api/v1/standing").await.unwrap().expect(200);
    assert!(standing.body["suspended"].is_null() && standing.body["hold"].is_null());
    let pg = &standing.body["backends"][1];
    assert_eq!(pg, &json!({ "name": "pg", "owner": "ours", "down": false }), "{}", standing.text);
}
