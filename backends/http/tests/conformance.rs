//! The conformance suite on the examples, against servers that behave as the three APIs do, and
//! what can go wrong with an API and on the way to it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by panicking what does not hold"
)]

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use async_trait::async_trait;
use axum::http::Method;
use dayfly_backend_http::{HttpBackend, HttpConfig};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Liveness, MintRequest, Plan, Retry, Revocation,
    Secret, Timestamp, percent_encode,
    testkit::{self, Hop, Login, Session, Subject, eventually},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::server::{APP, Fault, ROOT, Server};

#[path = "conformance/server.rs"]
mod server;

const TEN_MINUTES: Duration = Duration::from_mins(10);

/// An API and its example's backend and role.
struct Service {
    server: Server,
    config: HttpConfig,
    backend: HttpBackend,
    role: Value,
}

fn example(api: &str) -> Value {
    let name = match api {
        "github" => "github-app",
        "gitlab" => "gitlab-project-token",
        "grafana" => "grafana-service-account",
        other => panic!("{other}"),
    };
    let path = format!("{}/examples/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    toml::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

impl Service {
    fn start(api: &str) -> Self {
        Self::with(api, |_| {})
    }

    fn with(api: &str, change: impl FnOnce(&mut HttpConfig)) -> Self {
        let server = Server::start();
        let example = example(api);
        let mut raw = example["backend"][0].clone();
        for generic in ["name", "kind", "prefix", "password"] {
            assert!(raw.as_object_mut().unwrap().remove(generic).is_some(), "{generic}");
        }
        raw["url"] = json!(format!("http://127.0.0.1:{}/{api}", server.port));
        let mut config: HttpConfig = serde_json::from_value(raw).unwrap();
        "df_".clone_into(&mut config.prefix);
        config.password = Some(Secret::new(ROOT));
        if let Some(app) = &mut config.github_app {
            APP.clone_into(&mut app.app_id);
            config.password = Some(server.key.clone());
        }
        change(&mut config);
        let backend = HttpBackend::new(&config).unwrap_or_else(|error| panic!("{}", chain(&error)));
        Self { server, config, backend, role: example["role"][0]["template"].clone() }
    }

    async fn mint(&self, number: u128) -> Result<(Doomed, Credential), Error> {
        self.mint_of(&self.backend, number, &self.role, TEN_MINUTES).await
    }

    async fn mint_of(
        &self,
        backend: &HttpBackend,
        number: u128,
        role: &Value,
        ttl: Duration,
    ) -> Result<(Doomed, Credential), Error> {
        let template = backend.template(role)?;
        let handle = backend.handle(Uuid::from_u128(number)).unwrap();
        let request = MintRequest {
            handle: &handle,
            template: &template,
            expires_at: self.server.now().plus(ttl),
            mint_deadline: self.server.now().plus(Duration::from_secs(30)),
            principal: "a\"b\\\n{id}é",
            lease: "lse_test",
        };
        let credential = backend.mint(&request).await?;
        let doomed = Doomed::new(handle, template.plan().clone());
        Ok((doomed.keeping(credential.kept().cloned()), credential))
    }

    /// One of which the answer to its mint was lost.
    fn lost(&self, number: u128) -> Doomed {
        let handle = self.backend.handle(Uuid::from_u128(number)).unwrap();
        Doomed::new(handle, self.backend.template(&self.role).unwrap().plan().clone())
    }

    async fn end(&self, doomed: &Doomed) -> Revocation {
        self.backend.revoke(std::slice::from_ref(doomed)).await.pop().unwrap()
    }

    async fn liveness(&self, doomed: &Doomed) -> Liveness {
        self.backend.verify(std::slice::from_ref(doomed)).await.unwrap()[0]
    }

    fn accepts(&self, credential: &Credential) -> bool {
        let token = credential.field("token").unwrap();
        self.server.live().iter().any(|one| one.secret == token)
    }

    /// The suite, without the steps that no HTTP API has and `left_out`.
    async fn conforms(&self, left_out: &[&str]) {
        let template = self.backend.template(&self.role).unwrap();
        let ran = testkit::run(&Subject::new(&self.backend, &template, self)).await;
        let ran = ran.unwrap_or_else(|failure| panic!("{failure}"));
        let never = ["late_mint", "renew", "session_kill"];
        let left_out = |step: &&str| never.contains(step) || left_out.contains(step);
        let expected: Vec<_> = testkit::STEPS.into_iter().filter(|step| !left_out(step)).collect();
        assert_eq!(ran, expected);
    }

    /// Names that a prefix alone would take for ours.
    fn strangers(&self, api: &'static str, place: &str) {
        let far = self.server.now().plus(Duration::from_hours(1_000_000));
        for name in [format!("df_{}", "A".repeat(26)), "df_x".to_owned(), "é".to_owned()] {
            self.server.stage(|stage| stage.make(api, place, &name, far));
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        self.server.now()
    }

    async fn wait(&self, duration: Duration) {
        self.server.stage(|stage| stage.ahead += duration);
    }

    async fn works(&self, credential: &Credential) -> bool {
        self.accepts(credential)
    }

    async fn open(&self, _: &Credential) -> Option<Box<dyn Session>> {
        None
    }
}

#[tokio::test]
async fn grafana_conforms() {
    let service = Service::start("grafana");
    service.strangers("grafana", "7");
    service.conforms(&[]).await;
    assert_eq!(service.server.live().len(), 3, "the strangers are still there");
}

/// Two tokens a page, so that ours are never all on the first. Its list asks for a project, so
/// that there is nothing to sweep.
#[tokio::test]
async fn gitlab_conforms() {
    let service = Service::start("gitlab");
    service.strangers("gitlab", "web%2Fsite");
    service.conforms(&["list"]).await;
    assert_eq!(service.server.live().len(), 3, "the strangers are still there");
    let advice = service.backend.advice().await.unwrap();
    assert!(advice.iter().any(|one| one.contains("nothing is swept")), "{advice:?}");
}

#[tokio::test]
async fn a_marker_stands_where_there_is_a_place_for_it() {
    let service = Service::with("grafana", |config| {
        config.exclusive = false;
        let marker = json!({ "read": { "path": "/marker" }, "text": "/data/text",
            "write": { "path": "/marker", "body": { "text": "{marker}" } } });
        config.marker = Some(serde_json::from_value(marker).unwrap());
    });
    service.conforms(&[]).await;
    let text = service.server.stage(|stage| stage.marker.clone()).unwrap();
    assert!(text.starts_with("dayfly installation="), "{text}");
    service.server.stage(|stage| stage.marker = Some("hands off".to_owned()));
    let error = service.backend.marker().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

/// GitHub knows no names, so that the suite's steps about them cannot be run.
#[tokio::test]
async fn a_github_token_ends_with_itself() {
    let service = Service::start("github");
    assert!(service.backend.keeps());
    let (doomed, credential) = service.mint(1).await.unwrap_or_else(|e| panic!("{}", chain(&e)));
    let (other, bystander) = service.mint(2).await.unwrap();
    assert!(service.accepts(&credential));
    assert_eq!(service.liveness(&doomed).await, Liveness::Live);
    for _ in 0..2 {
        assert!(matches!(service.end(&doomed).await, Revocation::Gone));
        assert!(!service.accepts(&credential));
        assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
    }
    assert!(service.accepts(&bystander));
    // Nobody ends it.
    service.wait(Duration::from_mins(61)).await;
    assert!(!service.accepts(&bystander));
    assert_eq!(service.liveness(&other).await, Liveness::Gone);
    let handle = service.backend.handle(Uuid::from_u128(3)).unwrap();
    let template = service.backend.template(&service.role).unwrap();
    let report = service.backend.canary(&handle, &template).await;
    assert!(report.passed(), "{report:?}");
    assert!(service.server.live().is_empty());
}

#[tokio::test]
async fn a_lost_secret_lingers_until_its_hour_is_over() {
    let service = Service::start("github");
    service.mint(1).await.unwrap();
    let lost = service.lost(1);
    assert!(matches!(service.end(&lost).await, Revocation::Lingers));
    assert_eq!(service.liveness(&lost).await, Liveness::Live, "nobody can say that it is gone");
    // An API without an expiry of its own, and a list that was not configured.
    let service = Service::with("grafana", |config| {
        config.expiry = None;
        (config.list, config.items, config.unique_names) = (None, None, true);
    });
    service.mint(1).await.unwrap();
    let Revocation::Failed(error) = service.end(&service.lost(1)).await else { panic!() };
    assert_eq!(error.kind(), ErrorKind::Dependent);
    assert!(chain(&error).contains("with a `list` it would be found"), "{}", chain(&error));
    let advice = service.backend.advice().await.unwrap();
    assert!(advice[0].contains("answer is lost"), "{advice:?}");
}

/// Of two that have one name, as an API may allow it, both end.
#[tokio::test]
async fn a_lost_id_is_found_by_its_name() {
    let service = Service::start("gitlab");
    service.strangers("gitlab", "web%2Fsite");
    let (doomed, _) = service.mint(1).await.unwrap();
    let (spared, _) = service.mint(2).await.unwrap();
    let far = service.server.now().plus(TEN_MINUTES);
    let name = doomed.handle.as_str();
    service.server.stage(|stage| stage.make("gitlab", "web%2Fsite", name, far));
    let lost = service.lost(1);
    assert_eq!(service.liveness(&lost).await, Liveness::Live);
    assert!(matches!(service.end(&lost).await, Revocation::Gone));
    assert_eq!(service.liveness(&lost).await, Liveness::Gone);
    assert!(service.server.live().iter().all(|one| one.name != name));
    assert_eq!(service.liveness(&spared).await, Liveness::Live);
    // Of one whose row is lost too, nobody knows the project.
    let unknown = Doomed::new(doomed.handle, Plan::default());
    let Revocation::Failed(error) = service.end(&unknown).await else { panic!() };
    assert!(chain(&error).contains("{role.project} is not known"), "{}", chain(&error));
}

#[tokio::test]
async fn what_is_sent_is_the_template_and_no_more() {
    let github = Service::start("github");
    github.mint(1).await.unwrap();
    let sent = &github.server.seen(&Method::POST)[0];
    assert_eq!(sent.target, "/github/app/installations/12345678/access_tokens");
    assert_eq!(
        sent.body,
        json!({ "repositories": ["website", "handbook"],
            "permissions": { "contents": "read", "pull_requests": "write" } })
    );
    assert_eq!(sent.headers["accept"], "application/vnd.github+json");
    assert_eq!(sent.headers["x-github-api-version"], "2022-11-28");
    assert_eq!(sent.headers["user-agent"], "dayfly-server");
    let gitlab = Service::start("gitlab");
    let (doomed, credential) = gitlab.mint(1).await.unwrap();
    let sent = &gitlab.server.seen(&Method::POST)[0];
    let date = gitlab.server.now().plus(Duration::from_hours(24)).rfc3339();
    assert_eq!(sent.target, "/gitlab/projects/web%2Fsite/access_tokens");
    assert_eq!(
        sent.body,
        json!({ "name": doomed.handle.as_str(), "scopes": ["read_repository", "write_repository"],
            "access_level": 30, "description": "lse_test for a\"b\\\n{id}é",
            "expires_at": gitlab_date(&date) })
    );
    assert_eq!(credential.field("host"), Some("gitlab.example.com"));
    assert_eq!(credential.environment().collect::<Vec<_>>(), [("GITLAB_TOKEN", "token")]);
    // Of the two only the id is needed to end it.
    let kept: Value = serde_json::from_str(credential.kept().unwrap().expose()).unwrap();
    assert_eq!(kept, json!({ "id": 40, "secret": null }));
}

/// In ten minutes it may be another day.
fn gitlab_date(tomorrow: &str) -> String {
    let in_ten_minutes = Timestamp::parse_rfc3339(tomorrow).unwrap().plus(TEN_MINUTES);
    in_ten_minutes.rfc3339().chars().take(10).collect()
}

/// Whatever a value is, it stays where it was put.
#[tokio::test]
async fn a_value_is_only_a_value() {
    let service = Service::start("gitlab");
    let corpus = [
        "../../users",
        "a/b",
        "%2F",
        "%2e%2e",
        "a%2Fb",
        "a b",
        "a\"b",
        "'",
        "a\r\nx-admin: 1",
        "é",
        "?state=inactive",
        "#",
        "web/site?",
        "..%2f",
        "\\..\\",
        "a\0b",
        "{id}",
        "{{",
        "a;b",
        "@",
        "\u{202e}",
        "...",
    ];
    for value in corpus {
        let mut role = service.role.clone();
        role["set"]["project"] = json!(value);
        let error = service.mint_of(&service.backend, 1, &role, TEN_MINUTES).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{value:?}: {}", chain(&error));
        let sent = service.server.seen(&Method::GET).pop().unwrap();
        let project = percent_encode(value);
        let target = format!("/gitlab/projects/{project}/access_tokens?per_page=100&state=active");
        assert_eq!(sent.target, target, "{value:?}");
        assert!(!sent.headers.contains_key("x-admin"), "{value:?}");
        let mut role = service.role.clone();
        role["set"]["scopes"] = json!([value]);
        let minted = service.mint_of(&service.backend, 2, &role, TEN_MINUTES).await;
        let (doomed, _) = minted.unwrap_or_else(|error| panic!("{value:?}: {}", chain(&error)));
        let sent = service.server.seen(&Method::POST).pop().unwrap();
        assert_eq!(sent.body["scopes"], json!([value]));
        assert!(matches!(service.end(&doomed).await, Revocation::Gone), "{value:?}");
    }
    for value in [".", "..", ""] {
        let mut role = service.role.clone();
        role["set"]["project"] = json!(value);
        let error = service.backend.template(&role).unwrap_err();
        assert!(chain(&error).contains("segment of the path empty"), "{}", chain(&error));
    }
}

/// It is there, too long, and nobody but the mint knows its id.
#[tokio::test]
async fn what_outlives_its_lease_is_ended_at_once() {
    let service = Service::with("gitlab", |config| {
        (config.list, config.items, config.unique_names) = (None, None, true);
    });
    service.server.stage(|stage| stage.days_more = 2);
    let error = service.mint(1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", chain(&error));
    assert!(chain(&error).contains("later than its lease"), "{}", chain(&error));
    assert_eq!(service.server.seen(&Method::DELETE).len(), 1);
    assert!(service.server.live().is_empty());
    // Where it cannot be ended, nothing may call the mint's outcome certain.
    service.server.fault(Method::DELETE, Fault::Forbidden);
    let error = service.mint(2).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{}", chain(&error));
    assert!(chain(&error).contains("could not be ended"), "{}", chain(&error));
    assert_eq!(service.server.live().len(), 1);
    // A lease that is longer than what the API gives is not even asked for.
    let service = Service::start("github");
    let long = Duration::from_hours(2);
    let error = service.mint_of(&service.backend, 1, &service.role, long).await.unwrap_err();
    assert!(chain(&error).contains("3600 s and no more"), "{}", chain(&error));
    assert!(service.server.seen(&Method::POST).is_empty());
}

/// What a create comes to, what must stand in its error, and whether it may pass by itself.
#[tokio::test]
async fn each_fault_is_told_and_no_secret_with_it() {
    let service = Service::start("grafana");
    let patient = service.config.clone();
    let hasty = HttpBackend::new(&HttpConfig { timeout_ms: 500, ..patient }).unwrap();
    for (number, (fault, kind, says)) in [
        (Fault::Limited, ErrorKind::Unavailable, "429"),
        (Fault::DoneThen500, ErrorKind::UnknownOutcome, "500"),
        (Fault::DoneWithoutSecret, ErrorKind::UnknownOutcome, "has no secret"),
        (Fault::NotJson, ErrorKind::UnknownOutcome, "has no secret"),
        (Fault::Huge, ErrorKind::UnknownOutcome, "longer than 16 MiB"),
        (Fault::Redirect, ErrorKind::Invalid, "307"),
        (Fault::Forbidden, ErrorKind::Denied, "403"),
        (Fault::Html404, ErrorKind::Invalid, "names what is not there"),
        (Fault::Slow, ErrorKind::UnknownOutcome, "not in time"),
    ]
    .into_iter()
    .enumerate()
    {
        let backend = if fault == Fault::Slow { &hasty } else { &service.backend };
        let number = u128::try_from(number).unwrap() + 1;
        service.server.fault(Method::POST, fault);
        let error = service.mint_of(backend, number, &service.role, TEN_MINUTES).await;
        let error = error.map(drop).unwrap_err();
        let text = chain(&error);
        assert_eq!(error.kind(), kind, "{fault:?}: {text}");
        assert!(text.contains(says), "{fault:?}: {text}");
        assert!(!format!("{text} {error:?}").contains("hunter2"), "{text}");
        assert!(!text.contains("secret-"), "{text}");
        let passes = matches!(kind, ErrorKind::Unavailable | ErrorKind::UnknownOutcome);
        assert_eq!(error.retry() == Retry::Temporary, passes, "{text}");
        if fault == Fault::DoneWithoutSecret {
            assert!(service.server.live().is_empty(), "its id was known");
        }
        service.server.well();
        if fault == Fault::Slow {
            // The server was slow and does it all the same; it may also have given up.
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
        assert!(matches!(service.end(&service.lost(number)).await, Revocation::Gone), "{fault:?}");
        assert!(service.server.live().is_empty(), "{fault:?}");
    }
}

#[tokio::test]
async fn a_death_is_not_believed_of_anybody_but_the_api() {
    let service = Service::start("grafana");
    let (doomed, credential) = service.mint(1).await.unwrap();
    for (fault, says) in [
        (Fault::Html404, "404"),
        (Fault::Redirect, "307"),
        (Fault::Forbidden, "403 Forbidden: not with …[31m"),
        (Fault::Limited, "429"),
    ] {
        service.server.fault(Method::DELETE, fault);
        let Revocation::Failed(error) = service.end(&doomed).await else { panic!("{fault:?}") };
        assert!(chain(&error).contains(says), "{fault:?}: {}", chain(&error));
        assert!(!chain(&error).contains("hunter2"), "{}", chain(&error));
        service.server.fault(Method::GET, fault);
        let verified = service.backend.verify(std::slice::from_ref(&doomed)).await;
        assert!(verified.is_err(), "{fault:?}");
    }
    for fault in [Fault::NextElsewhere, Fault::NotJson] {
        service.server.fault(Method::GET, fault);
        let error = service.backend.list(None, 10).await.unwrap_err();
        assert!(chain(&error).contains("the API's answer has"), "{}", chain(&error));
        assert!(service.backend.verify(std::slice::from_ref(&doomed)).await.is_err());
    }
    service.server.well();
    assert!(service.accepts(&credential));
    assert!(matches!(service.end(&doomed).await, Revocation::Gone));
    // The API itself says that it is gone already.
    assert!(matches!(service.end(&doomed).await, Revocation::Gone));
}

/// It is made, and nobody is told: that is not known, and what revokes it finds it.
#[tokio::test]
async fn an_answer_that_is_lost_means_nothing() {
    let service = Service::start("grafana");
    let hop =
        Hop::losing_the_answer(&format!("127.0.0.1:{}", service.server.port), b"secondsToLive");
    let url = format!("http://{}/grafana", hop.place());
    let cut = HttpBackend::new(&HttpConfig { url, ..service.config.clone() }).unwrap();
    let error = service.mint_of(&cut, 1, &service.role, TEN_MINUTES).await.unwrap_err();
    assert!(hop.met(), "else this proves nothing");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{}", chain(&error));
    eventually("it was made", async || (service.server.live().len() == 1).then_some(())).await;
    assert!(matches!(service.end(&service.lost(1)).await, Revocation::Gone));
    assert!(service.server.live().is_empty());
}

#[tokio::test]
async fn what_is_wrong_with_the_way_is_said() {
    let service = Service::start("grafana");
    let failure = async |config: HttpConfig| {
        let backend = HttpBackend::new(&config).unwrap();
        let error = service.mint_of(&backend, 1, &service.role, TEN_MINUTES).await;
        let error = error.map(drop).unwrap_err();
        (error.kind(), chain(&error))
    };
    let base = || service.config.clone();
    let (kind, text) = failure(HttpConfig { password: Some(Secret::new("wrong")), ..base() }).await;
    assert_eq!(kind, ErrorKind::Denied, "{text}");
    let nobody = format!("http://127.0.0.1:{}", testkit::free_port());
    let (kind, text) = failure(HttpConfig { url: nobody, ..base() }).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("refused"), "{text}");
    let tls = Tls::start();
    let url = format!("https://127.0.0.1:{}", tls.port);
    let (kind, text) = failure(HttpConfig { url: url.clone(), ..base() }).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("UnknownIssuer"), "{text}");
    // Known, and an answer comes: it is a page of text.
    let ca_file = Some(tls.directory.path().join("ca.pem"));
    let (_, text) = failure(HttpConfig { url, ca_file, ..base() }).await;
    assert!(text.contains("has no list where `items` says"), "{text}");
    let none = Some(tls.directory.path().join("none.pem"));
    let error = HttpBackend::new(&HttpConfig { ca_file: none, ..base() }).unwrap_err();
    assert!(chain(&error).contains("cannot be read"), "{}", chain(&error));
}

#[tokio::test]
async fn nothing_shows_a_secret() {
    for api in ["github", "gitlab", "grafana"] {
        let service = Service::start(api);
        let (doomed, credential) = service.mint(1).await.unwrap();
        let Service { backend, config, .. } = &service;
        let shown = format!("{backend:?} {config:?} {doomed:?} {credential:?}");
        for secret in ["hunter2", "PRIVATE KEY", credential.field("token").unwrap()] {
            assert!(!shown.contains(secret), "{shown}");
        }
        for sent in service.server.stage(|stage| stage.seen.clone()) {
            assert!(!sent.target.contains("secret"), "{}", sent.target);
        }
        // A lease's row has the plan.
        assert!(!doomed.plan.0.to_string().contains("secret"));
    }
}

/// A server of `openssl` with a certificate that its authority alone vouches for.
struct Tls {
    directory: TempDir,
    port: u16,
    child: std::process::Child,
}

impl Tls {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        testkit::certify(directory.path());
        let port = testkit::free_port();
        let mut command = Command::new("openssl");
        command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}")]);
        command.args(["-cert", "server.pem", "-key", "server.key"]);
        command.current_dir(directory.path()).stdin(Stdio::null());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { directory, port, child };
        for _ in 0..200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("openssl s_server does not listen");
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
