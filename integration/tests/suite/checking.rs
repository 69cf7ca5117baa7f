//! `POST /api/v1/roles/{name}/check`, `dayfly role check`, `exec --dry-run` and `doctor`: what would
//! be, without any of it.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use dayfly_backend_sdk::testkit::certify;
use dayfly_integration::{
    Broker, BrokerConfig, Client, Issuer, Postgres, Store, eventually, free_port, program,
};
use serde_json::{Value, json};

const UNLISTED: &str = "[[role]]\nname = \"unlisted\"\nbackend = \"keys\"\nowner = \"test\"\nttl = \"7m\"\n\
                        ttl_max = \"1h\"\ntemplate = { scopes = [] }\n";

/// A broker with a role that no rule speaks of, which otherwise lets workloads mint everything but
/// `forbidden`.
fn config(postgres: Option<&Postgres>) -> BrokerConfig {
    let mut config = BrokerConfig::new(Store::Sqlite, postgres);
    config.more.push_str(UNLISTED);
    let everything = "action == Dayfly::Action::\"mint\", resource);";
    let listed =
        "action == Dayfly::Action::\"mint\", resource)\nwhen { resource.name != \"unlisted\" };";
    config.policies = config.policies.replacen(everything, listed, 1);
    assert!(config.policies.contains("unlisted"));
    config
}

async fn check(client: &Client, role: &str, body: Value) -> Value {
    client.post(&format!("/api/v1/roles/{role}/check"), body).await.expect(200).body
}

/// What there is of tasks, leases and records.
async fn everything(broker: &Broker) -> (usize, usize, usize) {
    let admin = broker.client().with(&broker.admin());
    let count = async |path: &str| {
        let page = admin.get(path).await.unwrap().expect(200);
        page.body["data"].as_array().unwrap().len()
    };
    (count("/api/v1/tasks").await, count("/api/v1/leases").await, broker.audit().await.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_would_be_decided_and_nothing_comes_of_it() {
    let broker = Broker::start(config(None)).await;
    let token = broker.issuer.token("job");
    let client = broker.client().with(&token);
    let before = everything(&broker).await;

    let allowed = check(&client, "greeter", json!({})).await;
    assert_eq!(allowed["allowed"], true, "{allowed}");
    assert_eq!((&allowed["ttl_seconds"], &allowed["renewable"]), (&json!(300), &json!(true)));
    assert_eq!(allowed["about"]["kind"], "api_key");
    assert_eq!(allowed["about"]["ttl_max_seconds"], 3_600);
    assert_eq!(allowed["variables"], json!({ "DAYFLY_API_KEY": "key" }));
    let actions: Vec<_> = allowed["decisions"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&actions[0]["action"], &actions[1]["action"]),
        (&json!("open_task"), &json!("mint"))
    );
    assert!(allowed.get("caller").is_none() && actions[1].get("rules").is_none(), "{allowed}");

    let denied = check(&client, "forbidden", json!({})).await;
    assert_eq!(denied["allowed"], false, "{denied}");
    assert_eq!(denied["denied_by"], "test/no-production");
    assert_eq!(denied["detail"], "tests get no production credential");
    assert!(denied.get("about").is_none() && denied.get("ttl_seconds").is_none(), "{denied}");
    assert_eq!(denied["decisions"][0]["allowed"], true);
    assert_eq!(denied["decisions"][1]["rules"][0]["id"], "test/no-production");

    assert_eq!(everything(&broker).await, before, "a check leaves nothing");
    assert_eq!(broker.api_keys().await, Vec::<String>::new());
    // The token may be used once, and still may.
    client.open_task().await;
    let body = json!({ "purpose": "test", "ttl_seconds": 600 });
    client.post("/api/v1/tasks", body).await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_names_the_rules_the_claims_and_the_context() {
    let broker = Broker::start(config(None)).await;
    let claims = json!({ "repository_id": "456", "groups": ["a", "b"] });
    let client = broker.client().with(&broker.issuer.token_with("job", claims));
    let body = json!({ "explain": true, "purpose": "nightly", "ttl_seconds": 60 });
    let told = check(&client, "greeter", body).await;
    assert_eq!(told["decisions"][0]["rules"][0]["id"], "test/open", "{told}");
    let mint = &told["decisions"][1];
    assert_eq!(mint["rules"], json!([{ "id": "test/mint", "reason": "test workloads may mint" }]));
    assert_eq!(mint["context"]["purpose"], "nightly");
    assert_eq!(mint["context"]["ttl_seconds"], "60");
    assert_eq!(mint["context"]["source_address"], "127.0.0.1");
    assert_eq!(mint["context"]["token_binding"], "none");
    assert_eq!(told["caller"]["principal"], "ci|job");
    assert_eq!(told["caller"]["claims"]["repository_id"], "456");
    assert_eq!(told["caller"]["claims"]["groups"], json!(["a", "b"]));
    assert_eq!(told["ttl_seconds"], 60);
}

/// The answer without what passes.
fn timeless(mut answer: Value) -> Value {
    let decisions = answer["decisions"].as_array_mut().unwrap().iter_mut();
    for context in decisions.filter_map(|decision| decision.get_mut("context")) {
        context["now"] = Value::Null;
    }
    answer
}

/// Whoever may not list all roles can't tell what they may not have from what is not there.
#[tokio::test(flavor = "multi_thread")]
async fn roles_cannot_be_enumerated_by_checks() {
    let broker = Broker::start(config(None)).await;
    let client = broker.client().with(&broker.issuer.token("job"));
    let (_, owner) = broker.client().with(&broker.issuer.token("other")).open_task().await;
    for asker in [&client, &owner] {
        for body in [json!({}), json!({ "explain": true }), json!({ "ttl_seconds": 999_999_999 })] {
            let mut answers = Vec::new();
            for role in ["unlisted", "no-such-role", "GREETER"] {
                let mut answer = check(asker, role, body.clone()).await;
                assert_eq!(answer["denied_by"], "default-deny", "{answer}");
                answer["role"] = Value::Null;
                answers.push(timeless(answer));
            }
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:?}");
        }
    }
    // Who may list them all hears it.
    let admin = broker.client().with(&broker.admin());
    let path = "/api/v1/roles/no-such-role/check";
    admin.post(path, json!({})).await.problem(404, "not_found");
    let denied = check(&admin, "unlisted", json!({})).await;
    assert_eq!(denied["about"]["ttl_seconds"], 420, "{denied}");
    assert_eq!(denied["decisions"][0]["allowed"], false, "people open no tasks here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_token_asks_for_its_own_task() {
    let broker = Broker::start(config(None)).await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let told = check(&owner, "greeter", json!({ "explain": true })).await;
    assert_eq!(told["decisions"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["decisions"][0]["context"]["task"], task.as_str());
    assert_eq!(told["decisions"][0]["context"]["purpose"], "test");
    let longer = check(&owner, "greeter", json!({ "ttl_seconds": 3_600 })).await;
    let granted = longer["ttl_seconds"].as_u64().unwrap();
    assert!((590..=600).contains(&granted), "no longer than its task: {longer}");
    let path = "/api/v1/roles/greeter/check";
    for (body, code) in [
        (json!({ "purpose": "another" }), "task_is_open"),
        (json!({ "task_ttl_seconds": 60 }), "task_is_open"),
        (json!({ "ttl_seconds": 3_601 }), "invalid_ttl"),
        (json!({ "ttl_seconds": 0 }), "invalid_ttl"),
    ] {
        owner.post(path, body).await.problem(422, code);
    }
    owner.post(path, json!({ "role": "greeter" })).await.problem(400, "invalid_body");
    owner.complete(&task, "5s").await.expect(200);
    owner.post(path, json!({})).await.problem(409, "task_closed");
}

/// A program and what it left.
#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A broker and a token in a file.
struct Desk {
    broker: Broker,
    token_file: PathBuf,
}

impl Desk {
    async fn new(config: BrokerConfig) -> Self {
        let broker = Broker::start(config).await;
        let token_file = broker.path().join("identity-token");
        std::fs::write(&token_file, broker.issuer.token("job")).unwrap();
        Self { broker, token_file }
    }

    fn dayfly(&self, words: &[&str]) -> Finished {
        run(self.broker.client().url(), Some(&self.token_file), words)
    }
}

fn run(url: &str, token_file: Option<&PathBuf>, words: &[&str]) -> Finished {
    run_with(url, token_file, words, &[])
}

fn run_with(
    url: &str,
    token_file: Option<&PathBuf>,
    words: &[&str],
    environment: &[(&str, &str)],
) -> Finished {
    let mut command = Command::new(program("dayfly"));
    command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("DAYFLY_URL", url).envs(environment.iter().copied()).stdin(Stdio::null());
    if let Some(path) = token_file {
        command.env("DAYFLY_ID_TOKEN", std::fs::read_to_string(path).unwrap());
    }
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_exits_by_the_answer() {
    let desk = Desk::new(config(None)).await;
    let before = everything(&desk.broker).await;
    let allowed = desk.dayfly(&["role", "check", "greeter", "--explain", "--ttl", "2m"]);
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    for line in
        ["2m, renewable to 1h", "permitted by rule `test/mint`", "claim sub", "DAYFLY_API_KEY"]
    {
        assert!(allowed.out.contains(line), "{line}: {}", allowed.out);
    }
    // It asks as `exec` would: for a task whose token is bound to a key.
    let binding = allowed.out.lines().find(|line| line.contains("mint token_binding"));
    assert!(binding.unwrap().ends_with(" key"), "{}", allowed.out);
    let denied = desk.dayfly(&["role", "check", "forbidden"]);
    assert_eq!(denied.code, Some(4), "{denied:?}");
    assert!(denied.out.contains("denied by rule `test/no-production`"), "{}", denied.out);
    let json = desk.dayfly(&["role", "check", "forbidden", "--output", "json"]);
    let json: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["denied_by"], "test/no-production");
    let unknown = desk.dayfly(&["role", "check", "no-such-role"]);
    assert_eq!(unknown.code, Some(4), "{unknown:?}");
    assert!(unknown.err.contains("a role that is not there"), "{}", unknown.err);
    let admin = desk.broker.path().join("admin-token");
    std::fs::write(&admin, desk.broker.admin()).unwrap();
    let words = ["role", "check", "no-such-role", "--token-file", admin.to_str().unwrap()];
    assert_eq!(desk.dayfly(&words).code, Some(3));
    assert_eq!(everything(&desk.broker).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_names_everything_and_mints_nothing() {
    let postgres = Postgres::start();
    let desk = Desk::new(config(Some(&postgres))).await;
    let before = everything(&desk.broker).await;
    let mark = desk.broker.path().join("started");
    let url = desk.broker.client().url().to_owned();
    let words = [
        "exec",
        "--dry-run",
        "--role",
        "reader",
        "--env",
        "KEY=greeter/key",
        "--file",
        "pgpass=reader",
        "--",
        "touch",
        mark.to_str().unwrap(),
    ];
    let there = [("PGHOST", "hunter2-host"), ("PGSERVICE", "hunter2-service")];
    let told = run_with(&url, Some(&desk.token_file), &words, &there);
    assert_eq!(told.code, Some(0), "{told:?}");
    for part in [
        "/touch",
        "reader: 5m",
        "greeter: 5m",
        "PGHOST",
        "KEY",
        "overrides  PGHOST\n",
        "removes    PGSERVICE\n",
        "withholds  DAYFLY_ID_TOKEN\n",
        "file pgpass = reader:pgpass",
        "PGPASSFILE",
    ] {
        assert!(told.out.contains(part), "{part}: {}", told.out);
    }
    assert!(!told.out.contains("hunter2") && !told.err.contains("hunter2"), "{told:?}");
    assert!(told.err.contains("nothing was minted"), "{}", told.err);
    assert!(!mark.exists(), "the command was started");

    let words = ["exec", "--dry-run", "--role", "reader", "--role", "X=forbidden", "--", "true"];
    let denied = desk.dayfly(&words);
    assert_eq!(denied.code, Some(125), "{denied:?}");
    let line = "dayfly: error: role `forbidden` would be denied by rule `test/no-production`: tests \
                get no production credential; run `dayfly role check forbidden --explain`\n";
    assert!(denied.err.contains(line), "{}", denied.err);
    let missing = desk.dayfly(&["exec", "--dry-run", "--role", "reader", "--", "no-such-command"]);
    assert_eq!((missing.code, missing.out.as_str()), (Some(127), ""), "{missing:?}");

    assert_eq!(everything(&desk.broker).await, before);
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    // The same token, which may be used once, still starts it in earnest.
    let words = ["exec", "--role", "reader", "--", "sh", "-c", "test -n \"$PGPASSWORD\""];
    let started = desk.dayfly(&words);
    assert_eq!(started.code, Some(0), "{started:?}");
}

/// The state of each check, by name.
fn states(finished: &Finished) -> Vec<(String, String)> {
    let report: Value =
        serde_json::from_str(&finished.out).unwrap_or_else(|error| panic!("{error}: {finished:?}"));
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    checks.map(|check| (text(check, "name"), text(check, "state"))).collect()
}

fn state(finished: &Finished, name: &str) -> String {
    let states = states(finished);
    let found = states.iter().find(|(check, _)| check == name);
    found.unwrap_or_else(|| panic!("no {name} in {states:?}")).1.clone()
}

const DOCTOR: [&str; 3] = ["doctor", "--output", "json"];

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_nothing_at_a_healthy_broker() {
    let desk = Desk::new(config(None)).await;
    let before = everything(&desk.broker).await;
    let well = desk.dayfly(&DOCTOR);
    assert_eq!(well.code, Some(0), "{well:?}");
    assert!(states(&well).iter().all(|(_, state)| state != "failed"), "{well:?}");
    for name in ["broker", "name", "connection", "healthz", "readyz", "version", "clock"] {
        assert_eq!(state(&well, name), "ok", "{name}: {well:?}");
    }
    for name in ["identity", "claims", "whoami", "roles"] {
        assert_eq!(state(&well, name), "ok", "{name}: {well:?}");
    }
    let token = std::fs::read_to_string(&desk.token_file).unwrap();
    let people = desk.dayfly(&["doctor"]);
    assert!(people.out.contains("whoami: ci|job (workload)"), "{}", people.out);
    assert!(people.out.contains(&format!("aud={}", Issuer::AUDIENCE)), "{}", people.out);
    for part in token.split('.') {
        assert!(!people.out.contains(part) && !well.out.contains(part), "the token is shown");
    }
    assert_eq!(everything(&desk.broker).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_an_unreachable_broker_and_an_expired_token() {
    let desk = Desk::new(config(None)).await;
    let nowhere = format!("http://127.0.0.1:{}", free_port());
    let away = run(&nowhere, Some(&desk.token_file), &DOCTOR);
    assert_eq!(away.code, Some(6), "{away:?}");
    assert_eq!(
        (state(&away, "connection"), state(&away, "claims")),
        ("failed".into(), "ok".into())
    );
    assert_eq!(
        (state(&away, "readyz"), state(&away, "whoami")),
        ("skipped".into(), "skipped".into())
    );

    let expired = desk.broker.path().join("expired-token");
    let ended = json!({ "iat": 1_000_000, "nbf": 1_000_000, "exp": 1_000_300 });
    std::fs::write(&expired, desk.broker.issuer.token_with("job", ended)).unwrap();
    let url = desk.broker.client().url().to_owned();
    let ill = run(&url, Some(&expired), &DOCTOR);
    assert_eq!(ill.code, Some(5), "{ill:?}");
    assert_eq!((state(&ill, "readyz"), state(&ill, "claims")), ("ok".into(), "failed".into()));
    assert_eq!((state(&ill, "whoami"), state(&ill, "roles")), ("failed".into(), "skipped".into()));

    let nobody = run(&url, None, &DOCTOR);
    assert_eq!((nobody.code, state(&nobody, "identity")), (Some(5), "failed".into()), "{nobody:?}");
    assert_ne!(state(&nobody, "files"), "failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_a_broken_configuration_and_goes_on() {
    let desk = Desk::new(config(None)).await;
    let project = desk.broker.path().join("broken.toml");
    std::fs::write(&project, "ulr = \"https://broker.example.com\"\n").unwrap();
    let there = [("DAYFLY_PROJECT_FILE", project.to_str().unwrap())];
    let url = desk.broker.client().url().to_owned();
    let ill = run_with(&url, Some(&desk.token_file), &DOCTOR, &there);
    assert_eq!(ill.code, Some(2), "{ill:?}");
    assert_eq!(
        (state(&ill, "configuration"), state(&ill, "whoami")),
        ("failed".into(), "ok".into())
    );
    assert!(ill.out.contains("ulr"), "{}", ill.out);
    let nameless = run_with("", Some(&desk.token_file), &DOCTOR, &[]);
    assert_eq!((nameless.code, state(&nameless, "broker")), (Some(2), "failed".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_tells_a_certificate_that_nobody_trusts() {
    let mut config = config(None);
    config.more.push_str("[server.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n");
    let mut broker = Broker::configure(config);
    certify(broker.path());
    broker.spawn();
    let token_file = broker.path().join("identity-token");
    std::fs::write(&token_file, broker.issuer.token("job")).unwrap();
    let url = format!("https://localhost:{}", broker.port);
    let authority = broker.path().join("ca.pem");
    let authority = [("DAYFLY_CA_FILE", authority.to_str().unwrap())];
    let trusted = eventually("the broker answers", Duration::from_secs(20), async || {
        assert!(broker.exited().is_none(), "{}", broker.log());
        let looked = run_with(&url, Some(&token_file), &DOCTOR, &authority);
        (looked.code == Some(0)).then_some(looked)
    })
    .await;
    // It is made for two days.
    assert_eq!(state(&trusted, "certificate"), "warning", "{trusted:?}");
    assert!(trusted.out.contains("1 days until its end"), "{}", trusted.out);

    let distrusted = run(&url, Some(&token_file), &DOCTOR);
    assert_eq!(distrusted.code, Some(1), "{distrusted:?}");
    assert_eq!(state(&distrusted, "connection"), "ok");
    assert_eq!(state(&distrusted, "certificate"), "failed", "{distrusted:?}");
    assert!(distrusted.out.contains("--ca-file"), "{}", distrusted.out);
}
