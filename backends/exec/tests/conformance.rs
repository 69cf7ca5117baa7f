//! The conformance suite over a real program, and every fault that a program can have.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says by panicking what does not hold"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use async_trait::async_trait;
use data_encoding::HEXLOWER;
use dayfly_backend_exec::{ExecBackend, ExecConfig, NativeExpiry};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Handle, Liveness, MintRequest, Revocation,
    Secret, Template, Timestamp,
    testkit::{self, Login, Session, Subject, eventually},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

/// A system of keys and the program that makes them.
struct Service {
    directory: TempDir,
    backend: ExecBackend,
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/plugin.py")
}

fn digest(path: &Path) -> String {
    HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, &fs::read(path).unwrap()).as_ref())
}

fn config(keys: &Path, faults: &[&str]) -> ExecConfig {
    let mut args = vec![keys.to_str().unwrap().to_owned()];
    args.extend(faults.iter().map(|&fault| fault.to_owned()));
    let raw = json!({ "command": program(), "sha256": digest(&program()), "args": args,
        "timeout_ms": 20_000, "can": ["deadline_guard", "list", "renew", "verify"] });
    let mut config: ExecConfig = serde_json::from_value(raw).unwrap();
    config.native_expiry = Some(NativeExpiry { slack_s: 0 });
    config.password = Some(Secret::new("plugin-password"));
    "df_".clone_into(&mut config.prefix);
    config
}

impl Service {
    fn start(faults: &[&str]) -> Self {
        Self::with(faults, |_| {})
    }

    fn with(faults: &[&str], change: impl FnOnce(&mut ExecConfig)) -> Self {
        let directory = TempDir::new().unwrap();
        let mut config = config(directory.path(), faults);
        change(&mut config);
        Self { backend: ExecBackend::new(&config).unwrap(), directory }
    }

    /// The same keys by a program with another fault.
    fn now_with(&self, faults: &[&str]) -> ExecBackend {
        ExecBackend::new(&config(self.directory.path(), faults)).unwrap()
    }

    fn template(&self) -> Template {
        self.backend.template(&json!({ "site": "eu" })).unwrap()
    }

    fn doomed(&self, number: u128) -> Doomed {
        let handle = self.backend.handle(Uuid::from_u128(number)).unwrap();
        Doomed::new(handle, self.template().plan().clone())
    }

    async fn mint(&self, number: u128) -> Result<Credential, Error> {
        mint(&self.backend, &self.doomed(number).handle, &self.template()).await
    }

    fn exists(&self, number: u128) -> bool {
        self.directory.path().join(self.doomed(number).handle.as_str()).exists()
    }

    fn note(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.directory.path().join(format!(".note-{name}"))).ok()
    }
}

async fn mint(
    backend: &ExecBackend,
    handle: &Handle,
    template: &Template,
) -> Result<Credential, Error> {
    let request = MintRequest {
        handle,
        template,
        expires_at: now().plus(Duration::from_mins(10)),
        mint_deadline: now().plus(Duration::from_secs(30)),
        principal: "test",
        lease: "lse_test",
    };
    backend.mint(&request).await
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

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        now()
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// As the system itself judges a key, without the program.
    async fn works(&self, credential: &Credential) -> bool {
        let name = credential.field("name").unwrap();
        let Ok(text) = fs::read_to_string(self.directory.path().join(name)) else { return false };
        let key: Value = serde_json::from_str(&text).unwrap();
        let until = Timestamp::parse_rfc3339(key["expires_at"].as_str().unwrap()).unwrap();
        key["secret"].as_str() == credential.field("key") && now() < until
    }

    async fn open(&self, _credential: &Credential) -> Option<Box<dyn Session>> {
        None
    }
}

#[tokio::test]
async fn a_program_conforms() {
    let service = Service::start(&[]);
    // Names that a prefix alone would take for ours.
    for name in ["df_a", "df_stranger", "df_zzzzzzzzzzzzzzzzzzzzzzzzzzz"] {
        let key = r#"{"secret": "x", "expires_at": "2030-01-01T00:00:00Z"}"#;
        fs::write(service.directory.path().join(name), key).unwrap();
    }
    let template = service.template();
    let ran = testkit::run(&Subject::new(&service.backend, &template, &service)).await;
    let ran = ran.unwrap_or_else(|failure| panic!("{failure}"));
    let expected: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| *step != "session_kill").collect();
    assert_eq!(ran, expected);
    assert!(service.directory.path().join("df_stranger").exists());
}

#[tokio::test]
async fn one_that_cannot_be_ended_delays_no_other() {
    let service = Service::start(&[]);
    let (held, other) = (service.doomed(1), service.doomed(2));
    service.mint(1).await.unwrap();
    service.mint(2).await.unwrap();
    fs::write(service.directory.path().join(format!("{}.held", held.handle)), "").unwrap();
    let ended = service.backend.revoke(&[held, other]).await;
    let Revocation::Failed(error) = &ended[0] else { panic!("{ended:?}") };
    assert_eq!(error.kind(), ErrorKind::Dependent);
    assert!(chain(error).contains("it is held"), "{}", chain(error));
    assert!(matches!(ended[1], Revocation::Gone), "{ended:?}");
}

/// Whatever goes wrong at a mint, nobody knows whether the credential is there: it is never
/// said that nothing happened, and what ends it finds it.
#[tokio::test]
async fn a_mint_that_goes_wrong_may_have_made_it() {
    for (fault, made, says) in [
        ("silent", false, "said nothing"),
        ("dies-after", true, "ended with exit status: 1"),
        ("partial", true, "not one JSON object"),
        ("twice", true, "not one JSON object"),
        ("another", true, "to another call"),
        ("flood", false, "more than 65536 bytes"),
        ("deaf", false, "to another call"),
        ("hang", false, "did not end in time"),
        ("stubborn", false, "did not end in time"),
    ] {
        let service = Service::with(&[fault], |config| {
            if ["hang", "stubborn"].contains(&fault) {
                config.timeout_ms = 1_000;
            }
        });
        let error = service.mint(1).await.unwrap_err();
        let text = chain(&error);
        assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{fault}: {text}");
        assert!(text.contains(says), "{fault}: {text}");
        // The new secret, and what we sign in with, were on its standard error.
        assert!(!text.contains("plugin-password") && !text.contains("secrets"), "{fault}: {text}");
        assert_eq!(service.exists(1), made, "{fault}");
        let well = service.now_with(&[]);
        let ended = well.revoke(&[service.doomed(1)]).await;
        assert!(matches!(ended[..], [Revocation::Gone]), "{fault}: {ended:?}");
        assert!(!service.exists(1), "{fault}");
    }
}

/// The engine's own pages are larger than what a program may say at once.
#[tokio::test]
async fn a_list_of_many_comes_in_pages_that_fit() {
    let service = Service::start(&[]);
    for number in 0..900 {
        let key = r#"{"secret": "x", "expires_at": "2030-01-01T00:00:00Z"}"#;
        let name = service.doomed(number).handle.to_string();
        fs::write(service.directory.path().join(name), key).unwrap();
    }
    let mut seen: Vec<Handle> = Vec::new();
    loop {
        let page = service.backend.list(seen.last(), 1_000).await;
        let page = page.unwrap_or_else(|error| panic!("{}", chain(&error)));
        seen.extend(page.credentials.into_iter().map(|one| one.handle));
        if !page.more {
            break;
        }
    }
    assert_eq!(seen.len(), 900);
}

/// Mints that hang are in nobody's way who must die.
#[tokio::test]
async fn what_must_die_waits_behind_no_mint() {
    let service = Service::with(&["hang", "mint"], |config| {
        config.concurrency_max = 1;
        config.timeout_ms = 3_000;
    });
    let hanging = service.mint(1);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        service.backend.revoke(&[service.doomed(2)]).await
    };
    let (minted, ended) = tokio::join!(hanging, ending);
    assert!(minted.is_err());
    assert!(matches!(ended[..], [Revocation::Gone]), "{ended:?}");
}

/// What is written beside the answer does no harm, however much it is.
#[tokio::test]
async fn noise_is_not_an_answer() {
    let service = Service::start(&["noise"]);
    let credential = service.mint(1).await.unwrap();
    assert!(service.works(&credential).await);
}

/// One that says no more than it must about those that it was asked about leaves them alive.
#[tokio::test]
async fn what_is_not_said_is_not_so() {
    let service = Service::start(&["forgets"]);
    let ended = service.backend.revoke(&[service.doomed(1)]).await;
    let Revocation::Failed(error) = &ended[0] else { panic!("{ended:?}") };
    assert!(chain(error).contains("did not say what became of it"), "{}", chain(error));
    let error = service.backend.verify(&[service.doomed(1)]).await.unwrap_err();
    assert!(chain(&error).contains("did not say whether"), "{}", chain(&error));
}

/// One that says that it has revoked and has not is found out by looking.
#[tokio::test]
async fn a_lie_is_found_out() {
    let service = Service::start(&["lies", "revoke"]);
    service.mint(1).await.unwrap();
    let ended = service.backend.revoke(&[service.doomed(1)]).await;
    assert!(matches!(ended[..], [Revocation::Gone]), "{ended:?}");
    let seen = service.backend.verify(&[service.doomed(1)]).await.unwrap();
    assert_eq!(seen, [Liveness::Live]);
    let handle = service.backend.handle(Uuid::from_u128(9)).unwrap();
    let report = service.backend.canary(&handle, &service.template()).await;
    assert!(!report.passed(), "{report:?}");
}

/// Its complaint is told where it cannot hold a new secret, without what we sign in with.
#[tokio::test]
async fn a_complaint_is_told_without_the_password() {
    let service = Service::start(&["dies-after", "list"]);
    let text = chain(&service.backend.list(None, 10).await.unwrap_err());
    assert!(text.contains("it broke with …"), "{text}");
    let mut wrong = config(service.directory.path(), &[]);
    wrong.password = Some(Secret::new("something else"));
    let backend = ExecBackend::new(&wrong).unwrap();
    let error = mint(&backend, &service.doomed(1).handle, &service.template()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    // Of a mint not a word: it could hold the new secret.
    assert!(chain(&error).ends_with("the program says: denied"), "{}", chain(&error));
}

#[tokio::test]
async fn it_inherits_nothing() {
    let service = Service::start(&["environment"]);
    service.mint(1).await.unwrap();
    let environment: Value = serde_json::from_str(&service.note("environment").unwrap()).unwrap();
    let names: Vec<_> = environment.as_object().unwrap().keys().collect();
    // What Python sets for itself where there is no locale.
    assert!(names.iter().all(|name| *name == "LC_CTYPE"), "{names:?}");
}

/// When a call is over, so is all that it started: one that ignores SIGTERM, one that is left
/// behind with the output open, and one that makes ever more of itself.
#[tokio::test]
async fn nothing_is_left_running() {
    for (fault, timeout_ms, answers) in
        [("stubborn", 1_500, false), ("orphan", 20_000, true), ("bomb", 3_000, false)]
    {
        let service = Service::with(&[fault], |config| config.timeout_ms = timeout_ms);
        let minted = service.mint(1).await;
        assert_eq!(minted.is_ok(), answers, "{fault}: {minted:?}");
        let pid = service.note("pid").unwrap();
        eventually(fault, async || (!is_running(&pid)).then_some(())).await;
        let group = async || {
            // All but those that have ended and were not asked after yet.
            let left = Command::new("pgrep").args(["-r", "R,S,D,T", "-g", &pid]).output().unwrap();
            left.stdout.is_empty().then_some(())
        };
        eventually(fault, group).await;
    }
}

fn is_running(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

/// A program that is not the pinned one is not run, and one that is exchanged after it was
/// looked at changes nothing.
#[tokio::test]
async fn only_what_was_pinned_runs() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("plugin");
    let put = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    put(&fs::read_to_string(program()).unwrap());
    let service = Service::with(&[], |config| config.command.clone_from(&path));
    service.mint(1).await.unwrap();
    put("#!/bin/sh\ntouch /tmp/dayfly-exchanged\n");
    service.mint(2).await.unwrap();
    assert!(!Path::new("/tmp/dayfly-exchanged").exists());

    let late = Service::with(&[], |config| config.command.clone_from(&path));
    let error = late.mint(3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(chain(&error).contains("is not the program that `sha256` pins"), "{}", chain(&error));
    let none = Service::with(&[], |config| config.command = directory.path().join("none"));
    let error = none.mint(4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(chain(&error).contains("No such file"), "{}", chain(&error));
}
