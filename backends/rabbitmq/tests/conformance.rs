//! The conformance suite on a real RabbitMQ, used by real clients (`amqp-tools`).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by panicking what does not hold"
)]

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_rabbitmq::{RabbitmqBackend, RabbitmqConfig};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Liveness, MintRequest, Retry, Revocation,
    Secret, Timestamp,
    testkit::{self, Hop, Login, Session, Subject, eventually},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::Server;

#[path = "conformance/disk.rs"]
mod disk;
#[path = "conformance/server.rs"]
mod server;

static PREFIXES: AtomicU32 = AtomicU32::new(1);

struct Service {
    server: Arc<Server>,
    config: RabbitmqConfig,
    backend: RabbitmqBackend,
}

fn config(server: &Server) -> RabbitmqConfig {
    let raw = json!({ "url": format!("http://127.0.0.1:{}", server.management),
        "username": "root", "public_port": server.amqp, "public_tls": false });
    let mut config: RabbitmqConfig = serde_json::from_value(raw).unwrap();
    config.password = Some(Secret::new("root"));
    config.prefix = format!("d{}_", PREFIXES.fetch_add(1, Ordering::Relaxed));
    config
}

impl Service {
    async fn start() -> Self {
        let server = Server::shared().await;
        let config = config(&server);
        Self { backend: RabbitmqBackend::new(&config).unwrap(), server, config }
    }

    async fn mint(&self, number: u128, raw: Value) -> Result<(Doomed, Credential), Error> {
        mint(&self.backend, number, &raw).await
    }

    async fn end(&self, doomed: &Doomed) -> Result<(), Error> {
        match self.backend.revoke(std::slice::from_ref(doomed)).await.pop().unwrap() {
            Revocation::Gone => Ok(()),
            Revocation::Lingers => panic!("it lingers"),
            Revocation::Failed(error) => Err(error),
        }
    }

    async fn liveness(&self, doomed: &Doomed) -> Liveness {
        self.backend.verify(std::slice::from_ref(doomed)).await.unwrap()[0]
    }
}

async fn mint(
    backend: &RabbitmqBackend,
    number: u128,
    raw: &Value,
) -> Result<(Doomed, Credential), Error> {
    let template = backend.template(raw)?;
    let handle = backend.handle(Uuid::from_u128(number)).unwrap();
    let request = MintRequest {
        handle: &handle,
        template: &template,
        expires_at: now().plus(Duration::from_mins(10)),
        mint_deadline: now().plus(Duration::from_secs(30)),
        principal: "test",
        lease: "lse_test",
    };
    let credential = backend.mint(&request).await?;
    Ok((Doomed::new(handle, template.plan().clone()), credential))
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// What a client says; empty where all went well.
fn amqp(credential: &Credential, program: &str, arguments: &[&str]) -> String {
    let url = credential.field("url").unwrap();
    let mut command = Command::new(format!("amqp-{program}"));
    let output = command.args(["-u", url]).args(arguments).output().unwrap();
    if output.status.success() {
        return String::new();
    }
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn usual() -> Value {
    json!({ "configure": ["app.*"], "write": ["app.*", "amq.default"], "read": ["app.*"] })
}

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        now()
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    async fn works(&self, credential: &Credential) -> bool {
        let said = amqp(credential, "declare-queue", &["-q", "app.works"]);
        // Only "you may not" counts; a dead server would prove nothing.
        assert!(said.is_empty() || said.contains("ACCESS_REFUSED"), "{said}");
        said.is_empty()
    }

    async fn open(&self, credential: &Credential) -> Option<Box<dyn Session>> {
        Some(Box::new(Consumer::open(credential).await))
    }
}

/// A client that waits for messages.
struct Consumer(Child);

impl Consumer {
    async fn open(credential: &Credential) -> Self {
        assert_eq!(amqp(credential, "declare-queue", &["-q", "app.session"]), "");
        let url = credential.field("url").unwrap();
        let mut command = Command::new("amqp-consume");
        command.args(["-u", url, "-q", "app.session", "cat"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let consumer = Self(command.spawn().unwrap());
        tokio::time::sleep(Duration::from_millis(500)).await;
        consumer
    }
}

#[async_trait]
impl Session for Consumer {
    async fn alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[tokio::test]
async fn conforms() {
    let service = Service::start().await;
    // Names that a prefix alone would take for ours.
    let prefix = &service.config.prefix;
    let strangers = [format!("{prefix}{}", "A".repeat(26)), format!("{prefix}x")];
    for name in &strangers {
        let put = service.server.ask(
            "PUT",
            &format!("users/{name}"),
            r#"{"password_hash":"","tags":""}"#,
        );
        assert_eq!(put.0, "201");
    }
    let template = service.backend.template(&usual()).unwrap();
    let ran = testkit::run(&Subject::new(&service.backend, &template, &service)).await;
    let ran = ran.unwrap_or_else(|failure| panic!("{failure}"));
    let left_out = ["native_expiry", "late_mint"];
    let expected: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| !left_out.contains(step)).collect();
    assert_eq!(ran, expected);
    for name in &strangers {
        assert_eq!(service.server.ask("GET", &format!("users/{name}"), "").0, "200");
    }
}

#[tokio::test]
async fn a_user_has_its_templates_rights_and_no_others() {
    let service = Service::start().await;
    let raw = json!({ "configure": ["mine.*"], "write": ["mine.*", "amq.topic", "amq.default"],
        "read": ["mine.*"], "connection_limit": 1,
        "topics": [{ "exchange": "amq.topic", "write": ["orders.*"], "read": [] }] });
    let (doomed, credential) = service.mint(1, raw).await.unwrap();
    let queue = |name: &str| amqp(&credential, "declare-queue", &["-q", name]);
    let publish = |exchange: &str, key: &str| {
        amqp(&credential, "publish", &["-e", exchange, "-r", key, "-b", "x"])
    };
    assert_eq!(queue("mine.a"), "");
    assert_eq!(publish("amq.topic", "orders.eu"), "");
    // The whole name counts, and a dot is a dot.
    for name in ["other", "not-mine.a", "mineXa", "mine"] {
        assert!(queue(name).contains("ACCESS_REFUSED"), "{name}");
    }
    let get = amqp(&credential, "get", &["-q", "app.works"]);
    assert!(get.contains("ACCESS_REFUSED") || get.contains("NOT_FOUND"), "{get}");
    let consumer = {
        let url = credential.field("url").unwrap();
        let mut command = Command::new("amqp-consume");
        command.args(["-u", url, "-q", "mine.a", "cat"]).stdout(Stdio::null());
        Consumer(command.stderr(Stdio::null()).spawn().unwrap())
    };
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(queue("mine.b").contains("NOT_ALLOWED"), "one connection at a time");
    drop(consumer);
    service.end(&doomed).await.unwrap();
}

/// No template makes somebody who can make users, and a user cannot ask for what he has not.
#[tokio::test]
async fn nobody_lifts_himself_up() {
    let service = Service::start().await;
    let raw = json!({ "configure": ["*"], "write": ["*"], "read": ["*"], "tags": ["monitoring"] });
    let (doomed, credential) = service.mint(1, raw).await.unwrap();
    let field = |name| credential.field(name).unwrap();
    let login = format!("{}:{}", field("username"), field("password"));
    let name = &doomed.handle;
    for (method, path, body) in [
        ("PUT", "users/friend".to_owned(), r#"{"password":"x","tags":"administrator"}"#),
        ("PUT", format!("users/{name}"), r#"{"password":"x","tags":"administrator"}"#),
        (
            "PUT",
            format!("permissions/%2F/{name}"),
            r#"{"configure":".*","write":".*","read":".*"}"#,
        ),
        ("PUT", "vhosts/other".to_owned(), "{}"),
        ("PUT", "policies/%2F/p".to_owned(), r#"{"pattern":".*","definition":{"max-length":1}}"#),
        ("PUT", "global-parameters/x".to_owned(), r#"{"value":"x"}"#),
        ("PUT", format!("user-limits/{name}/max-connections"), r#"{"value":99}"#),
        ("DELETE", "users/root".to_owned(), ""),
        ("GET", "definitions".to_owned(), ""),
        ("GET", "users".to_owned(), ""),
    ] {
        let url = format!("http://127.0.0.1:{}/api/{path}", service.server.management);
        let mut command = Command::new("curl");
        command.args(["-s", "-u", &login, "-X", method, "-o", "/dev/null", "-w", "%{http_code}"]);
        command.args(["-H", "content-type: application/json", "-d", body, &url]);
        let status = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert!(["401", "403"].contains(&status.as_str()), "{method} {path}: {status}");
    }
    service.end(&doomed).await.unwrap();
}

/// A vhost may have any name.
#[tokio::test]
async fn whatever_a_vhost_is_called_it_is_only_a_name() {
    let service = Service::start().await;
    for (number, (name, path)) in
        [("a/b", "a%2Fb"), ("a%2Fb?#", "a%252Fb%3F%23"), ("x y", "x%20y"), ("..", "%2E%2E")]
            .into_iter()
            .enumerate()
    {
        let made = service.server.ask("PUT", &format!("vhosts/{path}"), "{}");
        let raw = json!({ "vhost": name, "configure": ["q"] });
        let minted = service.mint(u128::try_from(number).unwrap() + 10, raw).await;
        if !made.0.starts_with('2') {
            // A path of dots is another path to every HTTP client: it must be an error.
            assert!(minted.is_err(), "{name}: {made:?}");
            continue;
        }
        let (doomed, credential) = minted.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert_eq!(amqp(&credential, "declare-queue", &["-q", "q"]), "", "{name}");
        service.end(&doomed).await.unwrap();
    }
}

/// The user is made, and nobody is told: that is not known, and what revokes it finds it.
#[tokio::test]
async fn an_answer_that_is_lost_means_nothing() {
    let service = Service::start().await;
    let place = format!("127.0.0.1:{}", service.server.management);
    let hop = Hop::losing_the_answer(&place, b"password_hash");
    let config =
        RabbitmqConfig { url: format!("http://{}", hop.place()), ..service.config.clone() };
    let backend = RabbitmqBackend::new(&config).unwrap();
    let error = mint(&backend, 1, &usual()).await.unwrap_err();
    assert!(hop.met(), "else this proves nothing");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{}", chain(&error));
    let handle = service.backend.handle(Uuid::from_u128(1)).unwrap();
    let doomed = Doomed::new(handle, dayfly_backend_sdk::Plan::default());
    eventually("it was made", async || {
        (service.liveness(&doomed).await == Liveness::Live).then_some(())
    })
    .await;
    service.end(&doomed).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_the_way_is_said() {
    let service = Service::start().await;
    let failure = async |config: RabbitmqConfig| {
        let error = mint(&RabbitmqBackend::new(&config).unwrap(), 1, &usual()).await;
        let error = error.map(drop).unwrap_err();
        (error.kind(), chain(&error))
    };
    let base = || service.config.clone();
    let (kind, text) =
        failure(RabbitmqConfig { password: Some(Secret::new("wrong")), ..base() }).await;
    assert_eq!(kind, ErrorKind::Denied, "{text}");
    let nobody = format!("http://127.0.0.1:{}", testkit::free_port());
    let (kind, text) = failure(RabbitmqConfig { url: nobody, ..base() }).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("refused"), "{text}");
    // One that may look and not make.
    let put = r#"{"password":"bare","tags":"monitoring"}"#;
    assert!(service.server.ask("PUT", "users/bare", put).0.starts_with('2'));
    let bare = RabbitmqConfig {
        username: "bare".to_owned(),
        password: Some(Secret::new("bare")),
        ..base()
    };
    let (kind, text) = failure(bare).await;
    assert_eq!(kind, ErrorKind::Denied, "{text}");
    let error = service.mint(1, json!({ "vhost": "none" })).await.unwrap_err();
    assert!(chain(&error).contains("vhost_or_user_not_found"), "{}", chain(&error));
    let url = format!("https://127.0.0.1:{}", service.server.management_tls);
    let (kind, text) = failure(RabbitmqConfig { url: url.clone(), ..base() }).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("UnknownIssuer"), "{text}");
    let known = RabbitmqConfig { url, ca_file: Some(service.server.path("ca.pem")), ..base() };
    let backend = RabbitmqBackend::new(&known).unwrap();
    let handle = backend.handle(Uuid::from_u128(77)).unwrap();
    let report = backend.canary(&handle, &backend.template(&usual()).unwrap()).await;
    assert!(report.passed(), "{report:?}");
    // What the mint with the unknown vhost left behind.
    let handle = service.backend.handle(Uuid::from_u128(1)).unwrap();
    service.end(&Doomed::new(handle, dayfly_backend_sdk::Plan::default())).await.unwrap();
}

/// The server is killed, comes back, and has what it had. It is told a hash, and writes no
/// password.
#[tokio::test]
async fn a_server_that_dies_loses_nothing_and_knows_no_password() {
    let mut server = Server::start();
    let config = config(&server);
    let backend = RabbitmqBackend::new(&config).unwrap();
    let (gone, _) = mint(&backend, 1, &usual()).await.unwrap();
    let (stays, credential) = mint(&backend, 2, &usual()).await.unwrap();
    let ended = backend.revoke(std::slice::from_ref(&gone)).await;
    assert!(matches!(ended[..], [Revocation::Gone]), "{ended:?}");
    server.kill();
    let ended = backend.revoke(std::slice::from_ref(&stays)).await;
    let Revocation::Failed(error) = &ended[0] else { panic!("{ended:?}") };
    assert_eq!(error.retry(), Retry::Temporary, "{}", chain(error));
    server.resume();
    let listed = backend.list(None, 10).await.unwrap().credentials;
    let listed: Vec<_> = listed.into_iter().map(|one| one.handle).collect();
    assert_eq!(listed, std::slice::from_ref(&stays.handle));
    assert_eq!(amqp(&credential, "declare-queue", &["-q", "app.x"]), "");
    let written = server.written();
    assert!(written.contains(stays.handle.as_str()));
    assert!(!written.contains(credential.field("password").unwrap()));
    let ended = backend.revoke(&[stays]).await;
    assert!(matches!(ended[..], [Revocation::Gone]), "{ended:?}");
}

/// Our own password is changed by us, and what we may do is as before.
#[tokio::test]
async fn our_own_password_changes() {
    let service = Service::start().await;
    let put = r#"{"password":"correct horse","tags":"administrator"}"#;
    assert!(service.server.ask("PUT", "users/turning", put).0.starts_with('2'));
    let make = |password: &Secret| -> Box<dyn Backend> {
        let (username, password) = ("turning".to_owned(), Some(password.clone()));
        let config = RabbitmqConfig { username, password, ..service.config.clone() };
        Box::new(RabbitmqBackend::new(&config).unwrap())
    };
    let rotated = testkit::rotation(&make, &Secret::new("correct horse")).await;
    rotated.unwrap_or_else(|failure| panic!("{failure}"));
    let (status, user) = service.server.ask("GET", "users/turning", "");
    assert_eq!(status, "200");
    assert!(user.contains("administrator"), "{user}");
}
