//! What is refused: nothing is minted, and the audit log knows why.

mod configuration;
mod idempotency;
mod identity;
mod presets;
mod requests;

use dayfly_integration::{Answer, Broker, BrokerConfig, Client, Postgres, Store};
use reqwest::RequestBuilder;
use serde_json::Value;

/// A broker with an open task, and what is looked at before and after each refusal.
struct Scene {
    broker: Broker,
    postgres: Option<Postgres>,
    task: String,
    owner: Client,
    admin: Client,
}

/// What must not change because of something that is refused.
#[derive(Debug, PartialEq)]
struct Minted {
    leases: Vec<Value>,
    keys: Vec<String>,
    roles: Vec<String>,
}

impl Scene {
    async fn with(config: BrokerConfig, postgres: Option<Postgres>) -> Self {
        let broker = Broker::start(config).await;
        let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
        let admin = broker.client().with(&broker.admin());
        Self { broker, postgres, task, owner, admin }
    }

    async fn minted(&self) -> Minted {
        let all = self.admin.get("/api/v1/leases?limit=500").await.unwrap().expect(200);
        let leases = all.body["data"].as_array().unwrap();
        let roles = self.postgres.as_ref().map(|postgres| postgres.roles("df_"));
        Minted {
            leases: leases.iter().map(|lease| lease["id"].clone()).collect(),
            keys: self.broker.api_keys().await,
            roles: roles.unwrap_or_default(),
        }
    }

    /// Sends what must be refused. Nothing is minted, and the audit log has exactly the
    /// records `noted`, each an event and its code or rule.
    async fn refused(
        &self,
        request: RequestBuilder,
        (status, code): (u16, &str),
        noted: &[(&str, &str)],
    ) -> Answer {
        let (minted, before) = (self.minted().await, self.broker.audit().await.len());
        let answer = Client::send(request).await.expect("an answer").problem(status, code);
        assert_eq!(self.minted().await, minted, "{}", answer.text);
        let records = self.broker.audit().await.split_off(before);
        let found: Vec<_> = records.iter().map(what).collect();
        let noted: Vec<_> = noted.iter().map(|(event, code)| (*event, *code)).collect();
        assert_eq!(found, noted, "{} {records:?}", answer.text);
        for record in &records {
            assert_eq!(record["detail"]["request"], answer.body["request_id"], "{record}");
        }
        says_nothing_inner(&answer);
        answer
    }
}

/// A record's event, and its code or its rule.
fn what(record: &Value) -> (&str, &str) {
    let detail = &record["detail"];
    let code = detail["code"].as_str().or_else(|| detail["rules"][0].as_str());
    (record["event"].as_str().unwrap(), code.unwrap_or_default())
}

/// No SQL, no path, no crate: what a stranger could learn about our inside.
fn says_nothing_inner(answer: &Answer) {
    let text = answer.text.to_lowercase();
    for word in
        ["select ", "insert ", "sqlite", "postgres", "/tmp", "/work", ".rs", "serde", "dayfly.db"]
    {
        assert!(!text.contains(word), "`{word}` in {text}");
    }
}

/// On the embedded store, with API keys alone.
async fn scene() -> Scene {
    Scene::with(BrokerConfig::new(Store::Sqlite, None), None).await
}

/// The same with PostgreSQL as a backend.
async fn scene_with_postgres() -> Scene {
    let postgres = Postgres::start();
    let config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
    Scene::with(config, Some(postgres)).await
}
