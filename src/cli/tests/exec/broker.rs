//! A broker for tests: HTTP/1.1 on a loopback port, with the real wire types.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use dayfly_api::{Completed, Credential, Heartbeat, Lease, LeaseCounts, OpenedTask, Problem};
use serde_json::Value;

pub(crate) const TASK_TOKEN: &str = "dft_task-secret";
pub(crate) const PASSWORD: &str = "hunter2-secret";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) target: String,
    /// How the token is shown: `Bearer`, `DPoP`.
    pub(crate) scheme: String,
    pub(crate) bearer: String,
    /// The proof that comes with it; empty without one.
    pub(crate) proof: String,
    /// Under which it is the same request when it is sent again; empty without one.
    pub(crate) key: String,
    pub(crate) body: Value,
}

impl Request {
    /// Method and path, for matching.
    pub(crate) fn line(&self) -> String {
        let path = self.target.split('?').next().unwrap();
        format!("{} {path}", self.method)
    }
}

/// What to answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json<T: serde::Serialize>(status: u16, body: &T) -> Self {
        Self { status, headers: Vec::new(), body: serde_json::to_string(body).unwrap() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

pub(crate) struct Broker {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Broker {
    /// Listens; `answer` gets each request and how many like it came before.
    pub(crate) fn start(
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::<Request>::new()));
        let (seen, answer) = (Arc::clone(&requests), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream.unwrap(), &seen, &*answer));
            }
        });
        Self { url, requests }
    }

    /// One that grants `roles` and completes.
    pub(crate) fn granting(leases: Vec<Lease>) -> Self {
        Self::start(move |request, _| grant(request, &leases))
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The requests that ask for `line`, as in [`Request::line`].
    pub(crate) fn asked(&self, line: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.line() == line).collect()
    }

    /// The outcome that the one task was completed with. It is said again where the answer takes a
    /// while.
    pub(crate) fn outcome(&self) -> String {
        let completions = self.asked("POST /api/v1/tasks/tsk_1/complete");
        assert!(!completions.is_empty(), "{:?}", self.requests());
        for completion in &completions {
            assert_eq!(completion.bearer, TASK_TOKEN);
            assert_eq!(completion.body, completions[0].body);
        }
        completions[0].body["outcome"].as_str().unwrap().to_owned()
    }
}

/// The answers of a broker that has nothing against it.
pub(crate) fn grant(request: &Request, leases: &[Lease]) -> Answer {
    let line = request.line();
    if line == "POST /api/v1/tasks" {
        return Answer::json(201, &opened(leases));
    }
    if line == "POST /api/v1/tasks/tsk_1/complete" {
        return Answer::json(200, &completed("completed", 0, 1));
    }
    Answer::json(404, &problem(404, "not_found", "there is no such thing"))
}

pub(crate) fn opened(leases: &[Lease]) -> OpenedTask {
    OpenedTask {
        id: "tsk_1".into(),
        token: TASK_TOKEN.into(),
        token_type: "Bearer".into(),
        binding: None,
        state: "open".into(),
        expires_at: "2026-01-01T00:15:00Z".into(),
        lost_at: None,
        leases: leases.to_vec(),
    }
}

pub(crate) fn heard() -> Heartbeat {
    Heartbeat {
        id: "tsk_1".into(),
        state: "open".into(),
        lost_at: "2026-01-01T00:01:15Z".into(),
        expires_at: "2026-01-01T00:15:00Z".into(),
    }
}

pub(crate) fn completed(state: &str, revoking: u64, revoked: u64) -> Completed {
    let leases = LeaseCounts { revoking, revoked, ..LeaseCounts::default() };
    Completed { id: "tsk_1".into(), state: state.into(), leases, residual_until: None }
}

pub(crate) fn lease(role: &str, environment: &[(&str, &str)], fields: &[(&str, &str)]) -> Lease {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    Lease {
        id: format!("lse_{role}"),
        task: "tsk_1".into(),
        principal: "ci:repo".into(),
        on_behalf_of: None,
        role: role.into(),
        backend: "main".into(),
        handle: "df_x".into(),
        state: "active".into(),
        cause: None,
        credential: Some(Credential { fields: map(fields), environment: map(environment) }),
        issued_at: "2026-01-01T00:00:00Z".into(),
        expires_at: "2026-01-01T00:15:00Z".into(),
        max_expires_at: "2026-01-01T01:00:00Z".into(),
        revoked_at: None,
        renewable: true,
        belts: vec!["revoke".into()],
        exposure_seconds: Some(60),
        residual_until: None,
        attempts: 0,
        last_error: None,
        abandonment: None,
    }
}

/// What the PostgreSQL backend hands out.
pub(crate) fn postgres(role: &str) -> Lease {
    let url = format!("postgresql://df_x:{PASSWORD}@db.example:5432/shop");
    lease(
        role,
        &[
            ("DATABASE_URL", "url"),
            ("PGDATABASE", "database"),
            ("PGHOST", "host"),
            ("PGPASSWORD", "password"),
            ("PGPORT", "port"),
            ("PGUSER", "username"),
        ],
        &[
            ("database", "shop"),
            ("host", "db.example"),
            ("password", PASSWORD),
            ("port", "5432"),
            ("url", &url),
            ("username", "df_x"),
        ],
    )
}

pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Problem {
    Problem {
        kind: format!("urn:dayfly:problem:{code}"),
        title: "No".into(),
        status,
        code: code.into(),
        detail: detail.into(),
        request_id: "req_1".into(),
        retryable: status == 503,
        denied_by: None,
        errors: Vec::new(),
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request, usize) -> Answer,
) {
    let Some(request) = read(&stream) else { return };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|other| other.line() == request.line()).count();
        seen.push(request.clone());
        before
    };
    // A client that was told to stop may be gone.
    let _ = write(&mut stream, &answer(&request, before));
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut scheme, mut bearer) = (String::new(), String::new());
    let (mut proof, mut key, mut length) = (String::new(), String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => {
                // What gives AWS credentials to a container is shown its token bare.
                let (how, token) = value.split_once(' ').unwrap_or(("", value));
                how.clone_into(&mut scheme);
                token.clone_into(&mut bearer);
            }
            "dpop" => value.clone_into(&mut proof),
            "idempotency-key" => value.clone_into(&mut key),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
    Some(Request { method, target, scheme, bearer, proof, key, body })
}

fn write(stream: &mut TcpStream, answer: &Answer) -> std::io::Result<()> {
    let length = ("content-length", answer.body.len().to_string());
    write!(stream, "HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status)?;
    for (name, value) in answer.headers.iter().chain([&length]) {
        write!(stream, "{name}: {value}\r\n")?;
    }
    write!(stream, "\r\n{}", answer.body)
}
