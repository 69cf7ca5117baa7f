//! Tasks on somebody's behalf: who asked and who acts stay two, both must be permitted, and
//! whatever takes the right from either takes it from what was asked for.

mod attacks;
mod oauth;

use std::{fmt::Write as _, process::Command, time::Duration};

use data_encoding::HEXLOWER;
use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Issuer, Postgres, Store, eventually, program,
};
use reqwest::Method;
use ring::digest;
use serde_json::{Value, json};

const TASKS: &str = "/api/v1/tasks";
const DEAD_WITHIN: Duration = Duration::from_secs(20);

/// Whoever is on call may ask for everything, and a caller for a task alone; a workload of the name
/// `banned` may nothing.
const RULES: &str = r#"
@id("test/on-call-asks")
permit (
    principal is Dayfly::Human in Dayfly::Claim::"groups=on-call",
    action in [Dayfly::Action::"open_task", Dayfly::Action::"mint"],
    resource
) when { context has actor };

@id("test/caller-opens")
permit (
    principal is Dayfly::Human in Dayfly::Claim::"groups=callers",
    action == Dayfly::Action::"open_task",
    resource
) when { context has actor };

@id("test/banned")
forbid (principal is Dayfly::Workload, action, resource) when { principal.subject == "banned" };
"#;

const NONE: &[&str] = &[];
const GREETER: &[&str] = &["greeter"];
const FORBIDDEN: &[&str] = &["forbidden"];

/// An issuer of people whose tokens open one task each.
fn config(store: Store, postgres: Option<&Postgres>) -> BrokerConfig {
    let mut config = BrokerConfig::new(store, postgres);
    config.policies.push_str(RULES);
    write!(
        config.more,
        "[[issuer]]\nname = \"staff\"\nissuer = \"{}/staff\"\naudience = \"{}\"\n\
         jwks_file = \"people.json\"\nkind = \"human\"\n",
        Issuer::URL,
        Issuer::AUDIENCE
    )
    .unwrap();
    config
}

async fn broker() -> Broker {
    Broker::start(config(Store::Sqlite, None)).await
}

/// A token of somebody in `group`.
fn person_in(broker: &Broker, group: &str, more: Value) -> String {
    let iss = format!("{}/people", Issuer::URL);
    let mut claims = json!({ "iss": iss, "groups": [group], "name": "Ada Lovelace" });
    let Value::Object(more) = more else { panic!("claims are an object") };
    claims.as_object_mut().unwrap().extend(more);
    broker.people.token_with("ada@example.test", claims)
}

fn ada(broker: &Broker) -> String {
    person_in(broker, "on-call", json!({}))
}

/// A token of hers that opens one task.
fn ada_once(broker: &Broker) -> String {
    person_in(broker, "on-call", json!({ "iss": format!("{}/staff", Issuer::URL) }))
}

async fn try_open(broker: &Broker, workload: &str, person: &str, roles: &[&str]) -> Answer {
    let wanted = json!({
        "purpose": "test", "ttl_seconds": 600, "roles": roles, "on_behalf_of": person,
    });
    broker.client().with(workload).post(TASKS, wanted).await
}

/// The id of a task on Ada's behalf, and a client that holds its token.
async fn open(broker: &Broker) -> (String, Client) {
    let opened = try_open(broker, &broker.issuer.token("job"), &ada(broker), &[]).await.expect(201);
    (opened.text("/id"), broker.client().with(&opened.text("/token")))
}

/// As the audit log has it: without its signature, which some algorithms let anybody vary.
fn token_hash(token: &str) -> String {
    let (message, _) = token.rsplit_once('.').unwrap();
    HEXLOWER.encode(digest::digest(&digest::SHA256, message.as_bytes()).as_ref())
}

async fn all_tasks(broker: &Broker) -> Vec<Value> {
    let admin = broker.client().with(&broker.admin());
    let page = admin.get(TASKS).await.unwrap().expect(200);
    page.body["data"].as_array().unwrap().clone()
}

async fn state(owner: &Client, task: &str) -> String {
    owner.get(&format!("{TASKS}/{task}")).await.unwrap().expect(200).text("/state")
}

/// The cause of a lease's death, once it is verified.
async fn dead(owner: &Client, lease: &str) -> String {
    eventually("the lease is verified dead", DEAD_WITHIN, async || {
        let lease = owner.lease(lease).await.expect(200);
        (lease.text("/state") == "revoked").then(|| lease.text("/cause"))
    })
    .await
}

async fn records(broker: &Broker, event: &str) -> Vec<Value> {
    let records = broker.audit().await;
    records.into_iter().filter(|record| record["event"] == event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_in_the_task_in_the_lease_and_in_the_audit_log() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(config(store, None)).await;
        let (job, person) = (broker.issuer.token("job"), ada(&broker));
        let opened = try_open(&broker, &job, &person, &[]).await.expect(201);
        let (task, owner) = (opened.text("/id"), broker.client().with(&opened.text("/token")));
        let named = json!({
            "principal": "people|ada@example.test", "issuer": "people",
            "subject": "ada@example.test", "name": "Ada Lovelace",
        });
        let shown = owner.get(&format!("{TASKS}/{task}")).await.unwrap().expect(200);
        assert_eq!(shown.body["on_behalf_of"], named, "{}", shown.text);
        assert_eq!(shown.text("/principal"), "ci|job");
        let me = owner.get("/api/v1/whoami").await.unwrap().expect(200);
        assert_eq!((me.text("/principal").as_str(), &me.body["on_behalf_of"]), ("ci|job", &named));
        let lease = owner.mint("greeter").await.expect(201);
        assert_eq!(lease.body["on_behalf_of"], named, "{}", lease.text);
        assert_eq!(lease.text("/principal"), "ci|job");
        owner.complete(&task, "10s").await.expect(200);

        for (event, actor) in [
            ("task.opened", "ci|job"),
            ("lease.allowed", "ci|job"),
            ("lease.revoking", "ci|job"),
            ("lease.revoked", "reaper"),
        ] {
            let records = records(&broker, event).await;
            let [record] = records.as_slice() else { panic!("not one {event}: {records:?}") };
            assert_eq!(record["actor"], actor, "{record}");
            assert_eq!(record["detail"]["on_behalf_of"], "people|ada@example.test", "{record}");
        }
        let allowed = records(&broker, "lease.allowed").await;
        assert_eq!(allowed[0]["detail"]["rules"], json!(["test/mint", "test/on-call-asks"]));

        // Who acts for itself is nobody else.
        let (own, alone) = broker.client().with(&broker.issuer.token("job")).open_task().await;
        let shown = alone.get(&format!("{TASKS}/{own}")).await.unwrap().expect(200);
        assert!(shown.body.get("on_behalf_of").is_none(), "{}", shown.text);
        for (path, bytes) in broker.everything_written() {
            let text = String::from_utf8_lossy(&bytes);
            assert!(!text.contains(&person), "the person's token is in {}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_either_may_not_have_nobody_gets() {
    let broker = broker().await;
    let everybody = person_in(&broker, "everyone", json!({}));
    let caller = person_in(&broker, "callers", json!({}));
    let person = "the person on whose behalf it is asked: ";
    let workload = "the workload that asks: ";
    let on_call = ada(&broker);
    for (name, subject, token, roles, code, rule, whose) in [
        ("nobody lets the person", "job", &everybody, NONE, "denied", "default-deny", person),
        ("the workload is banned", "banned", &on_call, NONE, "denied", "test/banned", workload),
        ("the person may not mint", "job", &caller, GREETER, "role_denied", "default-deny", person),
        (
            "neither may have the role",
            "job",
            &on_call,
            FORBIDDEN,
            "role_denied",
            "test/no-production",
            workload,
        ),
    ] {
        let before = records(&broker, "decision.denied").await.len();
        let answer = try_open(&broker, &broker.issuer.token(subject), token, roles).await;
        let answer = answer.problem(403, code);
        assert_eq!(answer.text("/denied_by"), rule, "{name}");
        assert!(answer.text("/detail").starts_with(whose), "{name}: {}", answer.text);
        let denied = records(&broker, "decision.denied").await;
        let [record] = &denied[before..] else { panic!("{name}: {denied:?}") };
        let who = if whose == person { "person" } else { "workload" };
        assert_eq!(record["detail"]["denied"], who, "{name}");
        assert_eq!(record["detail"]["on_behalf_of"], "people|ada@example.test", "{name}");
        assert_eq!(record["actor"], format!("ci|{subject}"), "{name}");
    }
    assert_eq!(all_tasks(&broker).await, Vec::<Value>::new());
    assert_eq!(broker.api_keys().await, Vec::<String>::new());
    // Later as well: the task is open, and the person may not have the role.
    let opened = try_open(&broker, &broker.issuer.token("job"), &caller, &[]).await.expect(201);
    let owner = broker.client().with(&opened.text("/token"));
    owner.mint("greeter").await.problem(403, "role_denied");
    let roles = owner.get("/api/v1/roles").await.unwrap().expect(200);
    assert_eq!(roles.body["data"], json!([]), "{}", roles.text);
    assert_eq!(broker.api_keys().await, Vec::<String>::new());
}

/// Nobody permits it, which is nobody's to know who could not have it anyway.
#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_neither_may_have_is_refused_like_one_that_is_not_there() {
    let mut config = config(Store::Sqlite, None);
    let open = "action == Dayfly::Action::\"mint\", resource);";
    let closed = "action == Dayfly::Action::\"mint\", resource)\n\
                  unless { resource == Dayfly::Role::\"unwanted\" };";
    assert!(config.policies.contains(open), "{}", config.policies);
    config.policies = config.policies.replace(open, closed);
    config.more.push_str(
        "[[role]]\nname = \"unwanted\"\nbackend = \"keys\"\nowner = \"test\"\nttl = \"5m\"\n\
         ttl_max = \"10m\"\n",
    );
    let broker = Broker::start(config).await;
    let caller = person_in(&broker, "callers", json!({}));
    let mut refusals = Vec::new();
    for role in ["unwanted", "not-there"] {
        let job = broker.issuer.token("job");
        let answer = try_open(&broker, &job, &caller, &[role]).await.problem(403, "role_denied");
        refusals.push(["/denied_by", "/detail"].map(|place| answer.text(place)));
    }
    assert_eq!(refusals[0], refusals[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_person_has_nothing_done_for_them() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(config(store, Some(&postgres))).await;
        let (task, owner) = open(&broker).await;
        let lease = owner.mint("reader").await.expect(201);
        let url = lease.text("/credential/url");
        assert!(postgres.lets_in(&url));
        let (own, alone) = broker.client().with(&broker.issuer.token("job")).open_task().await;

        let admin = broker.client().with(&broker.admin());
        let subject = "ada@example.test";
        let wanted = json!({ "issuer": "people", "subject": subject, "reason": "left" });
        let disabled = admin.post("/api/v1/identities/disable", wanted).await.expect(200);
        assert_eq!(disabled.body["tasks"], json!([task]));
        assert_eq!(state(&owner, &task).await, "revoked");
        assert_eq!(dead(&owner, &lease.text("/id")).await, "identity_disabled");
        assert!(!postgres.lets_in(&url), "a login on a disabled person's behalf");
        owner.mint("greeter").await.problem(409, "task_closed");

        let job = broker.issuer.token("job");
        let again = try_open(&broker, &job, &ada(&broker), &[]).await;
        again.problem(422, "person_not_accepted");
        let refused = records(&broker, "identity.refused").await;
        let [refusal] = refused.as_slice() else { panic!("not one: {refused:?}") };
        assert_eq!(refusal["actor"], "people|ada@example.test");
        assert_eq!(refusal["detail"]["code"], "identity_disabled");
        assert_eq!(refusal["detail"]["shown_by"], "ci|job");
        // The workload is as good as before: neither is its task ended, nor its token used up.
        assert_eq!(state(&alone, &own).await, "open");
        broker.client().with(&job).open_task().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_session_ends_what_was_asked_for_in_it() {
    let (transmitter, receiver) = ("https://idp.example.test", "https://dayfly.example.test/ssf");
    let mut config = config(Store::Sqlite, None);
    write!(
        config.more,
        "[[ssf]]\nname = \"corporate\"\nissuer = \"{transmitter}\"\naudience = \"{receiver}\"\n\
         jwks_file = \"idp.json\"\nsubjects = [\"people\"]\n"
    )
    .unwrap();
    let mut broker = Broker::configure(config);
    let idp = Issuer::new(&broker.path().join("idp.json"));
    broker.resume().await;
    let (task, owner) = open(&broker).await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let event = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
    let subject = json!({
        "format": "iss_sub", "iss": format!("{}/people", Issuer::URL), "sub": "ada@example.test",
    });
    let now = Issuer::now();
    let set = idp.security_event(&json!({
        "iss": transmitter, "aud": receiver, "jti": "e-1", "iat": now, "sub_id": subject,
        "events": { event: { "event_timestamp": now } },
    }));
    let request = broker.client().request(Method::POST, "/api/v1/ssf/corporate");
    let request = request.header("content-type", "application/secevent+jwt").body(set);
    Client::send(request).await.unwrap().expect(202);
    assert_eq!(state(&owner, &task).await, "revoked");
    assert_eq!(dead(&owner, &lease).await, "identity_disabled");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_right_to_ask_loses_what_they_asked_for() {
    let broker = broker().await;
    let (task, owner) = open(&broker).await;
    let lease = owner.mint("greeter").await.expect(201).text("/id");
    let (own, alone) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let file = broker.path().join("policies/test.cedar");
    let rules = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, rules.replace("groups=on-call", "groups=other")).unwrap();
    broker.signal("HUP");
    assert_eq!(dead(&owner, &lease).await, "policy_changed");
    assert_eq!(state(&owner, &task).await, "revoked");
    assert_eq!(state(&alone, &own).await, "open", "nobody asked for that but the workload");
    let denied = records(&broker, "decision.denied").await;
    let [record] = denied.as_slice() else { panic!("not one: {denied:?}") };
    assert_eq!(record["detail"]["recheck"], true);
    assert_eq!(record["detail"]["denied"], "person");
    assert_eq!(record["detail"]["on_behalf_of"], "people|ada@example.test");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_tokens_both_are_used_up_or_neither() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(config(store, None)).await;
        let jobs = ["one", "two", "three"].map(|subject| broker.issuer.token(subject));
        let adas = [ada_once(&broker), ada_once(&broker), ada_once(&broker)];
        try_open(&broker, &jobs[0], &adas[0], &[]).await.expect(201);
        for (name, job, ada, of_ada) in [
            ("the person's token again", &jobs[1], &adas[0], true),
            ("the workload's token again", &jobs[0], &adas[1], false),
            ("both again", &jobs[0], &adas[0], false),
        ] {
            let refused = try_open(&broker, job, ada, &[]).await;
            assert_eq!(refused.problem(401, "unauthenticated").status, 401, "{name}");
            let record = records(&broker, "identity.refused").await.pop().expect(name);
            let [actor, detail] = ["actor", "detail"].map(|member| &record[member]);
            let workload = if job == &jobs[0] { "ci|one" } else { "ci|two" };
            assert_eq!(detail["code"], "replayed", "{name}");
            if of_ada {
                assert_eq!(actor, "staff|ada@example.test", "{name}");
                assert_eq!(detail["shown_by"], workload, "{name}");
                assert_eq!(detail["token_hash"], token_hash(ada), "{name}");
            } else {
                assert_eq!(actor, workload, "{name}");
                assert_eq!(detail["token_hash"], token_hash(job), "{name}");
                assert_eq!(detail["on_behalf_of"], "staff|ada@example.test", "{name}");
                assert_eq!(detail["person_token_hash"], token_hash(ada), "{name}");
            }
        }
        // The same by token exchange.
        oauth::exchange(&broker, &jobs[1], &adas[0]).await.expect(400);
        let record = records(&broker, "identity.refused").await.pop().unwrap();
        assert_eq!(record["actor"], "staff|ada@example.test");
        assert_eq!(record["detail"]["code"], "replayed");
        assert_eq!(record["detail"]["token_hash"], token_hash(&adas[0]));
        try_open(&broker, &jobs[1], &adas[1], &[]).await.expect(201);
        // A denial uses nothing up, and what is asked for itself takes no person's token.
        let banned = broker.issuer.token("banned");
        try_open(&broker, &banned, &adas[2], &[]).await.problem(403, "denied");
        try_open(&broker, &jobs[2], &adas[2], &[]).await.expect(201);
        assert_eq!(all_tasks(&broker).await.len(), 3);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_names_the_person_by_a_file() {
    let broker = broker().await;
    let place = tempfile::tempdir().unwrap();
    let [job, person] = ["job", "ada"].map(|name| place.path().join(name));
    std::fs::write(&job, broker.issuer.token("job")).unwrap();
    std::fs::write(&person, ada(&broker)).unwrap();
    let mut command = Command::new(program("dayfly"));
    command.args(["exec", "--role", "greeter", "--token-file"]).arg(&job);
    command.arg("--on-behalf-of-file").arg(&person).args([
        "--",
        "sh",
        "-c",
        "test -n \"$DAYFLY_API_KEY\"",
    ]);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    let output = command.env("DAYFLY_URL", broker.client().url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let opened = records(&broker, "task.opened").await;
    let [opened] = opened.as_slice() else { panic!("not one: {opened:?}") };
    assert_eq!(opened["actor"], "ci|job");
    assert_eq!(opened["detail"]["on_behalf_of"], "people|ada@example.test");
    assert_eq!(opened["detail"]["binding"], "key");

    let show = |what: &str, id: &str| {
        let admin = place.path().join("admin");
        std::fs::write(&admin, broker.admin()).unwrap();
        let mut command = Command::new(program("dayfly"));
        command.args([what, "show", id, "--token-file"]).arg(&admin);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        let output = command.env("DAYFLY_URL", broker.client().url()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let allowed = records(&broker, "lease.allowed").await;
    for (what, id) in [("task", &opened["task"]), ("lease", &allowed[0]["lease"])] {
        let shown = show(what, id.as_str().unwrap());
        assert!(shown.contains("people|ada@example.test (Ada Lovelace)\n"), "{shown}");
        assert!(shown.contains("ci|job\n"), "{shown}");
    }
}
