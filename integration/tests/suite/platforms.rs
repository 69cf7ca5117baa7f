//! Stand-ins for CI platforms: a job of each, what the platform tells of it, and its API.
//!
//! Invariant: an API answers what a test has put there, and 404 for everything else, and remembers
//! who asked for what.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{self, Request},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use data_encoding::HEXLOWER;
use dayfly_integration::{Answer, Broker, Client, Issuer};
use dayfly_lease::spawn;
use reqwest::Method;
use ring::hmac;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};

/// What the webhooks of these tests are signed with.
pub(crate) const HOOK_SECRET: &str = "the secret of these tests";

/// An API.
pub(crate) struct Api {
    /// Where it is.
    pub(crate) url: String,
    shelf: Arc<Mutex<Shelf>>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shelf {
    answers: BTreeMap<String, Canned>,
    /// Instead of all of them.
    outage: Option<Canned>,
    /// The only token that is let in, if there is one.
    token: Option<String>,
    asked: Vec<Asked>,
}

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Canned {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
    delay: Duration,
}

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) token: String,
    pub(crate) at: Instant,
}

impl Canned {
    /// 200, with what a platform says.
    pub(crate) fn shown(body: &Value) -> Self {
        Self { status: 200, headers: Vec::new(), body: body.to_string(), delay: Duration::ZERO }
    }

    /// What a platform says that will not show it.
    pub(crate) fn refusal(status: u16) -> Self {
        Self { status, ..Self::shown(&json!({ "message": "no" })) }
    }

    /// The same with another text.
    pub(crate) fn with_body(self, body: String) -> Self {
        Self { body, ..self }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

impl Api {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&shelf));
        let serving = spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shelf, serving }
    }

    /// Has `path` answered so from now on.
    pub(crate) fn put(&self, path: &str, answer: Canned) {
        self.shelf.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// Has everything answered so, until there is none.
    pub(crate) fn outage(&self, answer: Option<Canned>) {
        self.shelf.lock().unwrap().outage = answer;
    }

    /// Lets this token in and no other.
    pub(crate) fn only(&self, token: &str) {
        self.shelf.lock().unwrap().token = Some(token.to_owned());
    }

    /// What was asked for so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shelf.lock().unwrap().asked.clone()
    }

    /// How often `path` was asked for.
    pub(crate) fn times(&self, path: &str) -> usize {
        self.asked().iter().filter(|asked| asked.path == path).count()
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(
    extract::State(shelf): extract::State<Arc<Mutex<Shelf>>>,
    request: Request,
) -> Response {
    let token = shown(request.headers());
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    let canned = {
        let mut shelf = shelf.lock().unwrap();
        let asked = Asked { path: path.clone(), token: token.clone(), at: Instant::now() };
        shelf.asked.push(asked);
        let refused = shelf.token.as_ref().is_some_and(|only| *only != token);
        let refusal = refused.then(|| Canned::refusal(401));
        let put = || shelf.answers.get(&path).cloned();
        refusal.or_else(|| shelf.outage.clone()).or_else(put)
    };
    let canned = canned.unwrap_or_else(|| Canned::refusal(404));
    tokio::time::sleep(canned.delay).await;
    let mut response = canned.body.into_response();
    *response.status_mut() = canned.status.try_into().unwrap();
    for (name, value) in canned.headers {
        response.headers_mut().insert(name, value.try_into().unwrap());
    }
    response
}

/// The token, in whichever of the two headers it is.
fn shown(headers: &HeaderMap) -> String {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    let bearer = text("authorization");
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned));
    bearer.or_else(|| text("private-token")).unwrap_or_default()
}

/// A job of GitHub.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GithubJob {
    pub(crate) run: u64,
    pub(crate) job: u64,
}

const REPOSITORY: u64 = 456_789;

impl GithubJob {
    pub(crate) fn claims(self) -> Value {
        json!({
            "repository": "octo-org/octo-repo", "repository_id": REPOSITORY.to_string(),
            "run_id": self.run.to_string(), "run_attempt": "1",
            "check_run_id": self.job.to_string(),
        })
    }

    pub(crate) fn path(self) -> String {
        format!("/repos/octo-org/octo-repo/actions/jobs/{}", self.job)
    }

    pub(crate) fn run_path(self) -> String {
        format!("/repos/octo-org/octo-repo/actions/runs/{}/attempts/1", self.run)
    }

    /// What the API says of it; with a conclusion it is over.
    pub(crate) fn shown(self, conclusion: Option<&str>) -> Value {
        let status = if conclusion.is_some() { "completed" } else { "in_progress" };
        json!({
            "id": self.job, "run_id": self.run, "run_attempt": 1, "name": "deploy",
            "status": status, "conclusion": conclusion, "labels": ["ubuntu-latest"],
            "check_run_url": format!("https://api.github.test/check-runs/{}", self.job),
        })
    }

    /// What the API says of its run, which goes on.
    pub(crate) fn run_shown(self) -> Value {
        json!({
            "id": self.run, "run_attempt": 1, "status": "in_progress", "conclusion": null,
            "repository": { "id": REPOSITORY, "full_name": "octo-org/octo-repo" },
        })
    }
}

const GITHUB_JOB: GithubJob = GithubJob { run: 17_000_000_001, job: 49_000_000_123 };
const BUILDKITE_JOB: &str = "0184990a-4771-4d4a-9c48-000000000001";

/// A CI platform that runs one job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Platform {
    Buildkite,
    Github,
    Gitlab,
}

impl Platform {
    pub(crate) const ALL: [Self; 3] = [Self::Buildkite, Self::Github, Self::Gitlab];

    /// Its name: of its kind, and in these tests of its issuer, webhook and poller.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Buildkite => "buildkite",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
        }
    }

    /// What the job's token says.
    pub(crate) fn claims(self) -> Value {
        match self {
            Self::Buildkite => json!({
                "organization_slug": "acme", "pipeline_slug": "app", "build_number": 7,
                "job_id": BUILDKITE_JOB,
            }),
            Self::Github => GITHUB_JOB.claims(),
            Self::Gitlab => json!({ "project_id": "20", "job_id": "302", "pipeline_id": "574" }),
        }
    }

    /// Where its API is asked for the job.
    pub(crate) fn path(self) -> String {
        match self {
            Self::Buildkite => {
                let build = "/organizations/acme/pipelines/app/builds/7";
                format!("{build}?include_retried_jobs=true")
            }
            Self::Github => GITHUB_JOB.path(),
            Self::Gitlab => "/projects/20/jobs/302".to_owned(),
        }
    }

    /// Has `api` say that the job runs, or that it has failed.
    pub(crate) fn show(self, api: &Api, failed: bool) {
        let pipeline = "https://api.buildkite.test/v2/organizations/acme/pipelines/app";
        let shown = match self {
            Self::Buildkite => json!({
                "number": 7, "pipeline": { "slug": "app", "url": pipeline }, "jobs": [
                    { "type": "waiter" },
                    { "id": BUILDKITE_JOB, "state": if failed { "failed" } else { "running" } },
                ],
            }),
            Self::Github => GITHUB_JOB.shown(failed.then_some("failure")),
            Self::Gitlab => json!({
                "id": 302, "status": if failed { "failed" } else { "running" },
                "pipeline": { "id": 574, "project_id": 20 },
            }),
        };
        api.put(&self.path(), Canned::shown(&shown));
        if self == Self::Github {
            api.put(&GITHUB_JOB.run_path(), Canned::shown(&GITHUB_JOB.run_shown()));
        }
    }

    /// Tells the broker by webhook that the job has succeeded.
    pub(crate) async fn tell(self, broker: &Broker) -> Answer {
        let body = self.event().to_string();
        let signed = |message: &[u8]| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, HOOK_SECRET.as_bytes());
            HEXLOWER.encode(hmac::sign(&key, message).as_ref())
        };
        let path = format!("/api/v1/webhooks/{}", self.name());
        let request = broker.client().request(Method::POST, &path);
        let request = match self {
            Self::Buildkite => {
                let at = Issuer::now();
                let signature = signed(format!("{at}.{body}").as_bytes());
                let value = format!("timestamp={at},signature={signature}");
                request.header("x-buildkite-signature", value)
            }
            Self::Github => request
                .header("x-github-event", "workflow_job")
                .header("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
                .header("x-hub-signature-256", format!("sha256={}", signed(body.as_bytes()))),
            Self::Gitlab => request.header("x-gitlab-token", HOOK_SECRET),
        };
        let request = request.header("content-type", "application/json").body(body);
        Client::send(request).await.expect("an answer")
    }

    fn event(self) -> Value {
        match self {
            Self::Buildkite => json!({
                "event": "job.finished", "job": { "id": BUILDKITE_JOB, "state": "passed" },
                "build": { "number": 7 },
                "pipeline": {
                    "slug": "app",
                    "url": "https://api.buildkite.test/v2/organizations/acme/pipelines/app",
                },
            }),
            Self::Github => json!({
                "action": "completed", "workflow_job": GITHUB_JOB.shown(Some("success")),
                "repository": { "id": REPOSITORY },
            }),
            Self::Gitlab => json!({
                "object_kind": "build", "build_id": 302, "build_status": "success",
                "project_id": 20,
            }),
        }
    }
}
