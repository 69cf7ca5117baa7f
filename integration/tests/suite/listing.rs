//! Lists: by cursor, each row once whatever happens meanwhile; by filter, the same on both
//! stores.

use std::{collections::BTreeSet, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store, eventually};
use serde_json::{Value, json};

fn rows(page: &Value) -> Vec<Value> {
    page["data"].as_array().unwrap().clone()
}

fn ids(rows: &[Value]) -> BTreeSet<String> {
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// All pages of `path`, doing `between` before each but the first.
async fn pages(client: &Client, path: &str, mut between: impl AsyncFnMut()) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut next = path.to_owned();
    loop {
        let page = client.get(&next).await.unwrap().expect(200).body;
        pages.push(rows(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { return pages };
        next = format!("{path}&cursor={cursor}");
        assert!(pages.len() < 100, "the list of {path} has no end");
        between().await;
    }
}

async fn brokers(postgres: &Postgres) -> [Broker; 2] {
    let start = |store| Broker::start(BrokerConfig::new(store, None));
    [start(Store::Sqlite).await, start(Store::Postgres(postgres.url("dayfly"))).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lease_is_listed_once_while_others_are_minted() {
    let postgres = Postgres::start();
    for broker in brokers(&postgres).await {
        let (_, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
        let admin = broker.client().with(&broker.admin());
        let mut old = BTreeSet::new();
        for _ in 0..23 {
            old.insert(owner.mint("greeter").await.expect(201).text("/id"));
        }
        for who in [&admin, &owner] {
            let minting = async || drop(owner.mint("greeter").await.expect(201));
            let pages = pages(who, "/api/v1/leases?limit=5", minting).await;
            let sizes: Vec<usize> = pages.iter().map(Vec::len).collect();
            assert!(sizes.iter().rev().skip(1).all(|size| *size == 5), "{sizes:?}");
            let listed = pages.concat();
            let found = ids(&listed);
            assert_eq!(found.len(), listed.len(), "no lease is listed twice");
            assert!(found.is_superset(&old), "no lease is left out");
            let issued: Vec<_> = listed.iter().map(|l| l["issued_at"].as_str().unwrap()).collect();
            assert!(issued.is_sorted_by(|a, b| a >= b), "newest first: {issued:?}");
            old = found;
        }
        assert!(old.iter().all(|id| id.starts_with("lse_")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_and_each_audit_record_is_listed_once() {
    let postgres = Postgres::start();
    for broker in brokers(&postgres).await {
        let admin = broker.client().with(&broker.admin());
        let open = async || broker.client().with(&broker.issuer.token("job")).open_task().await.0;
        let mut old = BTreeSet::new();
        for _ in 0..7 {
            old.insert(open().await);
        }
        let tasks = pages(&admin, "/api/v1/tasks?limit=2", async || drop(open().await)).await;
        let opened_meanwhile = tasks.len() - 1;
        let tasks = tasks.concat();
        assert_eq!(ids(&tasks).len(), tasks.len());
        assert!(ids(&tasks).is_superset(&old));

        // Reading adds a record at the end of the list that is read: the list has an end all
        // the same, because each page holds more than one.
        let records = pages(&admin, "/api/v1/audit?limit=3", async || {}).await.concat();
        let places: Vec<_> = records.iter().map(|r| r["seq"].as_u64().unwrap()).collect();
        let whole: Vec<u64> = (1..=places.len() as u64).collect();
        assert_eq!(places, whole, "oldest first, without a gap");
        let opened = records.iter().filter(|r| r["event"] == "task.opened").count();
        assert_eq!(opened, old.len() + opened_meanwhile);
    }
}

/// Leases of two tasks of two principals, of two roles, one of them revoked.
struct Sample {
    admin: Client,
    tasks: [String; 2],
    leases: Vec<Value>,
}

async fn sample(broker: &Broker) -> Sample {
    let admin = broker.client().with(&broker.admin());
    let mut tasks = Vec::new();
    for subject in ["alpha", "beta"] {
        let client = broker.client().with(&broker.issuer.token(subject));
        let (task, owner) = client.open_task().await;
        owner.mint("greeter").await.expect(201);
        let body = json!({ "role": "scribe", "ttl_seconds": 30 });
        owner.post("/api/v1/leases", body).await.expect(201);
        let dead = owner.mint("greeter").await.expect(201).text("/id");
        let path = format!("/api/v1/leases/{dead}/revoke?wait=10s");
        owner.post(&path, json!({ "reason": "sample" })).await.expect(200);
        tasks.push(task);
    }
    let leases = eventually("six leases, two of them dead", Duration::from_secs(10), async || {
        let all = rows(&admin.get("/api/v1/leases").await.unwrap().expect(200).body);
        let dead = all.iter().filter(|lease| lease["state"] == "revoked").count();
        (all.len() == 6 && dead == 2).then_some(all)
    })
    .await;
    Sample { admin, tasks: tasks.try_into().unwrap(), leases }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_the_same_on_both_stores() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let mut config = BrokerConfig::new(store, None);
        config.more.push_str(
            "[[backend]]\nname = \"other\"\nkind = \"api-key\"\nprefix = \"o_\"\n\
             [[role]]\nname = \"scribe\"\nbackend = \"other\"\nowner = \"test\"\nttl = \"5m\"\n\
             ttl_max = \"1h\"\ntemplate = { scopes = [] }\n",
        );
        let broker = Broker::start(config).await;
        let sample = sample(&broker).await;
        let alpha = sample.leases.iter().find(|l| l["task"] == sample.tasks[0].as_str()).unwrap();
        let principal = alpha["principal"].as_str().unwrap();
        let scribe = sample.leases.iter().find(|l| l["role"] == "scribe").unwrap();
        let soon = sample.leases.iter().map(|l| l["expires_at"].as_str().unwrap());
        let soon = soon.filter(|at| *at > scribe["expires_at"].as_str().unwrap()).min().unwrap();
        let is = |name: &'static str, value: &str| {
            let value = value.to_owned();
            move |lease: &Value| lease[name] == value.as_str()
        };
        let scribes_of =
            |lease: &Value| lease["role"] == "scribe" && lease["principal"] == principal;
        let before = |lease: &Value| lease["expires_at"].as_str().unwrap() < soon;
        let task = sample.tasks[1].as_str();
        check(&sample, "state=active", 4, is("state", "active")).await;
        check(&sample, "state=revoked", 2, is("state", "revoked")).await;
        check(&sample, "state=pending", 0, |_| false).await;
        check(&sample, "role=scribe", 2, is("role", "scribe")).await;
        check(&sample, "role=scrib%25", 0, |_| false).await;
        check(&sample, "backend=keys", 4, is("backend", "keys")).await;
        check(&sample, &format!("task={task}"), 3, is("task", task)).await;
        check(&sample, &format!("principal={principal}"), 3, is("principal", principal)).await;
        check(&sample, "issuer=ci", 6, |_| true).await;
        check(&sample, "issuer=people", 0, |_| false).await;
        check(&sample, &format!("expires_before={soon}"), 2, before).await;
        let both = format!("role=scribe&principal={principal}&state=active&issuer=ci");
        check(&sample, &both, 1, scribes_of).await;
        tasks_by_filter(&sample, principal).await;
    }
}

/// A filter gives `count` leases, and exactly those that `fits` names, also page by page.
async fn check(sample: &Sample, filter: &str, count: usize, fits: impl Fn(&Value) -> bool) {
    let filter = filter.replace('|', "%7C");
    let fitting: Vec<_> = sample.leases.iter().filter(|lease| fits(lease)).cloned().collect();
    assert_eq!(fitting.len(), count, "the sample for {filter}");
    for limit in [1, 500] {
        let path = format!("/api/v1/leases?limit={limit}&{filter}");
        let found = pages(&sample.admin, &path, async || {}).await.concat();
        assert_eq!(ids(&found), ids(&fitting), "{path}");
        assert_eq!(found.len(), count, "{path}");
    }
}

async fn tasks_by_filter(sample: &Sample, principal: &str) {
    let count = async |filter: &str| {
        let path = format!("/api/v1/tasks?{}", filter.replace('|', "%7C"));
        rows(&sample.admin.get(&path).await.unwrap().expect(200).body).len()
    };
    assert_eq!(count("state=open").await, 2);
    assert_eq!(count("state=completed").await, 0);
    assert_eq!(count(&format!("principal={principal}")).await, 1);
    assert_eq!(count("issuer=ci&state=open").await, 2);
    assert_eq!(count("issuer=people").await, 0);
}
