//! Keycloak as the issuer of workloads and of people.

use std::{
    fmt::Write as _,
    fs::{self, File},
    process::{Command, Stdio},
    time::Duration,
};

use dayfly_integration::{
    Broker, BrokerConfig, Keycloak, Postgres, Store, Visitor, eventually, program,
};
use serde_json::{Value, json};

/// People of the group `platform` may look at every task.
const PLATFORM: &str = "\n@id(\"platform-looks\") permit (principal is Dayfly::Human in \
    Dayfly::Claim::\"groups=platform\", action in [Dayfly::Action::\"list_tasks\", \
    Dayfly::Action::\"read_task\"], resource);\n";

/// An issuer is asked for its keys once in half a minute, whatever its tokens name.
const KEYS_WITHIN: Duration = Duration::from_mins(1);

async fn broker(keycloak: &Keycloak, postgres: &Postgres) -> Broker {
    let mut config = BrokerConfig::new(Store::Sqlite, Some(postgres));
    for (realm, kind) in [("ci", "workload"), ("people", "human")] {
        write!(
            config.more,
            "[[issuer]]\nname = \"keycloak-{realm}\"\nissuer = \"{}\"\naudience = \"{}\"\n\
             kind = \"{kind}\"\nca_file = \"{}\"\n",
            keycloak.issuer(realm),
            Keycloak::AUDIENCE,
            keycloak.ca_file().display()
        )
        .unwrap();
    }
    config.more.push_str(
        "[login]\nissuer = \"keycloak-people\"\nclient_id = \"dayfly-cli\"\n\
         token = \"access_token\"\n",
    );
    config.policies.push_str(PLATFORM);
    Broker::start(config).await
}

/// One server for all of it, since its start takes longer than everything else.
#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_workloads_and_people_are_who_they_are() {
    let postgres = Postgres::start();
    let keycloak = Keycloak::start().await;
    let broker = broker(&keycloak, &postgres).await;

    // A service account gets a database login that dies with its task.
    let token = keycloak.workload().await;
    let (task, owner) = broker.client().with(&token).open_task().await;
    let url = owner.mint("reader").await.expect(201).text("/credential/url");
    assert!(postgres.lets_in(&url));

    // A person sees it by a group that Keycloak says, and mints nothing.
    let ada = broker.client().with(&keycloak.ada().await);
    let me = ada.get("/api/v1/whoami").await.unwrap().expect(200);
    assert!(me.text("/principal").starts_with("keycloak-people|"), "{}", me.text);
    ada.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200);
    let body = json!({ "purpose": "mine", "ttl_seconds": 60, "roles": ["reader"] });
    let denied = ada.post("/api/v1/tasks", body.clone()).await;
    assert_eq!((denied.status, denied.text("/code")), (403, "denied".into()), "{}", denied.text);

    ada_signs_in_with_a_code(&keycloak, &broker).await;

    // Used once, for another, or of a realm that is not configured: each is nobody.
    for (words, bad) in [
        ("used", token),
        ("for another", keycloak.workload_elsewhere().await),
        // Keycloak gives it no audience.
        ("of the master realm", keycloak.administrator().await),
    ] {
        let answer = broker.client().with(&bad).post("/api/v1/tasks", body.clone()).await;
        assert_eq!(
            (answer.status, answer.text("/code")),
            (401, "unauthenticated".into()),
            "{words}"
        );
    }

    // A key that Keycloak has begun to use is found as soon as it may be asked for keys again,
    // and those of the key before are good as long.
    let before = keycloak.workload().await;
    keycloak.rotate().await;
    let after = keycloak.workload().await;
    assert_ne!(header(&before), header(&after), "another key");
    eventually("the new key is known", KEYS_WITHIN, async || {
        let opened = broker.client().with(&after).post("/api/v1/tasks", body.clone()).await;
        (opened.status == 201).then_some(())
    })
    .await;
    broker.client().with(&before).open_task().await;

    owner.complete(&task, "15s").await.expect(200);
    assert!(!postgres.lets_in(&url), "a login after completion");
    let refused: Vec<String> = broker
        .audit()
        .await
        .iter()
        .filter(|record| record["event"] == "identity.refused")
        .map(|record| record["detail"]["code"].as_str().unwrap_or_default().to_owned())
        .filter(|code| code != "unknown_key")
        .collect();
    assert_eq!(refused, ["replayed", "wrong_audience", "malformed"]);
}

/// By the device flow, with an access token for the broker, from a client that must use PKCE.
async fn ada_signs_in_with_a_code(keycloak: &Keycloak, broker: &Broker) {
    let home = tempfile::tempdir().unwrap();
    let log = home.path().join("log");
    let dayfly = |words: &[&str]| {
        let mut command = Command::new(program("dayfly"));
        command.args(words).env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path());
        command.env("DAYFLY_URL", broker.client().url()).env("DAYFLY_CA_FILE", keycloak.ca_file());
        command.stdin(Stdio::null());
        command
    };
    let login = dayfly(&["login"]).stderr(File::create(&log).unwrap()).spawn();
    let page = eventually("a code is shown", Duration::from_secs(20), async || {
        let text = fs::read_to_string(&log).unwrap();
        let (_, rest) = text.split_once("or open ")?;
        Some(rest.split_once('\n')?.0.to_owned())
    })
    .await;
    let visitor = Visitor::new(keycloak.ca_file());
    let form = visitor.open(&page);
    let consent = visitor.submit(&form, &[("username", "ada"), ("password", "ada-password")]);
    let done = visitor.submit(&consent, &[("accept", "Yes")]);
    assert!(done.html.contains("Device Login Successful"), "{done:?}");
    let status = login.unwrap().wait().unwrap();
    assert!(status.success(), "{}", fs::read_to_string(&log).unwrap());
    let me = dayfly(&["whoami", "--output", "json"]).output().unwrap();
    let me: Value = serde_json::from_slice(&me.stdout).unwrap_or_else(|_| panic!("{me:?}"));
    assert_eq!((&me["issuer"], &me["kind"]), (&json!("keycloak-people"), &json!("human")));
    let out = dayfly(&["logout"]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(dayfly(&["whoami"]).output().unwrap().status.code(), Some(5));
}

fn header(token: &str) -> &str {
    token.split_once('.').unwrap().0
}
