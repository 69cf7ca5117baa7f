//! The runner of GitHub Actions around one step of our action: its inputs, its environment, its
//! files, and what it makes of what the step prints; and the service that gives tokens to jobs.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
    routing::get,
};
use dayfly_integration::{Issuer, Platform, node24};
use reqwest::Url;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Desk, Finished, ci, documents, machine};

/// What a job shows to the token service.
const REQUEST_TOKEN: &str = "request-token-of-the-job";

/// The service behind `ACTIONS_ID_TOKEN_REQUEST_URL`.
#[derive(Clone)]
pub(super) struct TokenService {
    platform: Arc<Platform>,
    /// So many requests are answered 503 first.
    pub(super) stumbles: Arc<Mutex<usize>>,
    /// The tokens that it gave.
    pub(super) given: Arc<Mutex<Vec<String>>>,
    port: u16,
}

impl TokenService {
    pub(super) async fn start(platform: &Arc<Platform>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = Self {
            platform: Arc::clone(platform),
            stumbles: Arc::default(),
            given: Arc::default(),
            port,
        };
        let router = Router::new().route("/token", get(give)).with_state(service.clone());
        dayfly_lease::spawn(async move { axum::serve(listener, router).await.unwrap() });
        service
    }

    fn stumbles_now(&self) -> bool {
        let mut left = self.stumbles.lock().unwrap();
        let now = *left > 0;
        *left = left.saturating_sub(1);
        now
    }

    /// What the runner gives to jobs with `id-token: write`.
    pub(super) fn environment(&self) -> [(String, String); 2] {
        let url = format!("http://127.0.0.1:{}/token?api-version=2.0", self.port);
        [
            ("ACTIONS_ID_TOKEN_REQUEST_URL".to_owned(), url),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN".to_owned(), REQUEST_TOKEN.to_owned()),
        ]
    }
}

async fn give(
    State(service): State<TokenService>,
    headers: HeaderMap,
    uri: Uri,
) -> (StatusCode, Json<Value>) {
    let bearer = headers.get("authorization").map(|value| value.to_str().unwrap());
    if bearer != Some(format!("Bearer {REQUEST_TOKEN}").as_str()) {
        return (StatusCode::UNAUTHORIZED, Json(json!({})));
    }
    if service.stumbles_now() {
        return (StatusCode::SERVICE_UNAVAILABLE, Json(json!({})));
    }
    let url = Url::parse(&format!("http://127.0.0.1{uri}")).unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    assert_eq!(query["api-version"], "2.0", "what the address had before is still there");
    let token = service.platform.github(json!({ "aud": query["audience"] }));
    service.given.lock().unwrap().push(token.clone());
    (StatusCode::OK, Json(json!({ "value": token })))
}

/// One job with one step of our action.
pub(super) struct Runner {
    machine: TempDir,
    path: String,
    pub(super) service: TokenService,
    pub(super) inputs: BTreeMap<String, String>,
    pub(super) environment: BTreeMap<String, String>,
}

/// A stage of the step that has ended.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) finished: Finished,
    pub(super) outputs: BTreeMap<String, String>,
    pub(super) state: BTreeMap<String, String>,
    pub(super) variables: BTreeMap<String, String>,
}

impl Runner {
    /// With the inputs' defaults, the broker's address and audience, and `with`.
    pub(super) async fn new(desk: &Desk, with: &[(&str, &str)]) -> Self {
        let manifest = documents("github-action/action.yml").remove(0);
        let known = manifest["inputs"].as_object().unwrap();
        let mut inputs = BTreeMap::new();
        for (name, input) in known {
            // In a default the job's status is the only expression that we have.
            let default = input["default"].as_str().unwrap_or_default();
            inputs.insert(name.clone(), default.replace("${{ job.status }}", "success"));
        }
        let url = desk.url();
        for (name, value) in
            [("url", url.as_str()), ("audience", Issuer::AUDIENCE)].iter().chain(with)
        {
            assert!(known.contains_key(*name), "action.yml knows no input {name}");
            inputs.insert((*name).to_owned(), (*value).to_owned());
        }
        let machine = machine();
        fs::create_dir(machine.path().join("temp")).unwrap();
        fs::create_dir(machine.path().join("workspace")).unwrap();
        let service = TokenService::start(&desk.platform).await;
        let environment = service.environment().into();
        Self { machine, path: desk.path(), service, inputs, environment }
    }

    pub(super) fn temp(&self) -> PathBuf {
        self.machine.path().join("temp")
    }

    /// The files of one stage; the runner makes them empty.
    fn file(&self, script: &str, name: &str) -> PathBuf {
        self.machine.path().join(format!("{script}-{name}"))
    }

    /// `node` with one of the action's scripts, as the runner starts it.
    pub(super) fn command(&self, script: &str, state: &BTreeMap<String, String>) -> Command {
        let mut command = Command::new(node24());
        command.arg(ci("github-action").join(script)).env_clear().env("PATH", &self.path);
        command.current_dir(self.machine.path().join("workspace")).stdin(Stdio::null());
        for (name, value) in [
            ("CI", "true"),
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "octo-org/octo-repo"),
            ("GITHUB_WORKFLOW", "deploy"),
            ("GITHUB_JOB", "migrate"),
            ("GITHUB_RUN_ID", "17000000001"),
            ("GITHUB_RUN_ATTEMPT", "1"),
        ] {
            command.env(name, value);
        }
        command.env("RUNNER_TEMP", self.temp());
        for name in ["OUTPUT", "STATE", "ENV"] {
            let path = self.file(script, name);
            fs::write(&path, "").unwrap();
            command.env(format!("GITHUB_{name}"), path);
        }
        for (name, value) in &self.inputs {
            command.env(format!("INPUT_{}", name.replace(' ', "_").to_uppercase()), value);
        }
        for (name, value) in state {
            command.env(format!("STATE_{name}"), value);
        }
        command.envs(&self.environment);
        command
    }

    /// What a stage has left in its files so far.
    pub(super) fn left(&self, script: &str, finished: Finished) -> Stage {
        let read = |name| commands(&self.file(script, name));
        Stage { finished, outputs: read("OUTPUT"), state: read("STATE"), variables: read("ENV") }
    }

    pub(super) fn main(&self) -> Stage {
        let output = self.command("main.mjs", &BTreeMap::new()).output().unwrap();
        self.left("main.mjs", output.into())
    }

    /// The post step of `main` in a job that ended as `status` says.
    pub(super) fn post(&mut self, main: &Stage, status: &str) -> Stage {
        self.inputs.insert("job-status".to_owned(), status.to_owned());
        let output = self.command("post.mjs", &main.state).output().unwrap();
        self.left("post.mjs", output.into())
    }
}

impl Stage {
    /// The log as the runner shows it: commands are taken out, and what was masked is hidden from
    /// then on.
    pub(super) fn log(&self) -> String {
        let mut masks: Vec<String> = Vec::new();
        let mut log = String::new();
        for line in self.finished.out.lines().chain(self.finished.err.lines()) {
            if let Some(mask) = line.strip_prefix("::add-mask::") {
                masks.push(unescaped(mask));
                continue;
            }
            let mut line = unescaped(line);
            for mask in &masks {
                line = line.replace(mask.as_str(), "***");
            }
            log += &line;
            log.push('\n');
        }
        log
    }

    /// What the runner hides.
    pub(super) fn masks(&self) -> Vec<String> {
        let masks = self.finished.out.lines().filter_map(|line| line.strip_prefix("::add-mask::"));
        masks.map(unescaped).collect()
    }

    /// Asserts that `secret` is printed by no line but the one that masks it.
    pub(super) fn hides(&self, secret: &str) {
        assert!(!self.log().contains(secret), "shown: {}", self.log());
        assert!(self.masks().iter().any(|mask| mask == secret), "not masked");
        let others = self.finished.out.lines().filter(|line| !line.starts_with("::add-mask::"));
        for line in others.chain(self.finished.err.lines()) {
            assert!(!unescaped(line).contains(secret), "printed: {line}");
        }
    }
}

fn unescaped(text: &str) -> String {
    text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")
}

/// The `NAME<<DELIMITER` entries of a file; what is not of this form fails the job.
fn commands(path: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let mut found = BTreeMap::new();
    while let Some(line) = lines.next() {
        let (name, delimiter) = line.split_once("<<").unwrap();
        assert!(!name.contains('=') && delimiter.len() >= 32, "{line}");
        let value: Vec<&str> = lines.by_ref().take_while(|line| *line != delimiter).collect();
        found.insert(name.to_owned(), value.join("\n"));
    }
    found
}
