//! What `dayfly exec` adds to a command, with a broker that answers at once: time, and the most
//! memory that it ever had.
//!
//! Invariant: the command alone, the requests alone and the whole take turns, and the memory is
//! looked at while the command runs, after all that happens before it.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::Ipv4Addr,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use axum::{Json, Router, http::StatusCode, routing::post};
use dayfly_api::{Completed, Credential, Lease, LeaseCounts, OpenedTask};
use dayfly_integration::{Client, program};
use dayfly_lease::spawn;
use serde_json::json;
use tokio::net::TcpListener;

use crate::{
    measure::{median, ms, watch},
    report::Report,
    served::peak_mib,
};

const ADDED_MS_MAX: f64 = 30.0;
const PEAK_MIB_MAX: f64 = 12.0;
const ROUNDS: usize = 100;
const WARM_UP: usize = 10;
const PEAKS: usize = 5;
const FAR: &str = "2100-01-01T00:00:00Z";

pub(crate) async fn measure(report: &mut Report, named: Option<&Path>) -> anyhow::Result<()> {
    let dayfly = named.map_or_else(|| program("dayfly"), Path::to_path_buf);
    let url = serve().await?;
    let (mut whole, mut requests, mut alone) = (vec![], vec![], vec![]);
    let (mut added, mut times) = (vec![], vec![]);
    for round in 0..WARM_UP + ROUNDS {
        let exec = timed(&mut exec(&dayfly, &url, &["/bin/true"]))?;
        let asked = asked(&url).await?;
        let command = timed(&mut Command::new("/bin/true"))?;
        if round >= WARM_UP {
            whole.push(exec);
            requests.push(asked);
            alone.push(command);
            added.push(exec - command);
            times.push(exec / command);
        }
    }
    let key = |what: &str| format!("injector.{what}");
    let what = "dayfly exec -- /bin/true, with a broker that answers at once";
    report.note(&key("whole_ms"), what, median(&whole), "ms");
    report.note(&key("requests_ms"), "of that, the two requests", median(&requests), "ms");
    report.note(&key("command_ms"), "/bin/true alone", median(&alone), "ms");
    report.note(&key("ratio"), "the whole to /bin/true alone", median(&times), "×");
    let what = "what dayfly exec adds to a command, the requests included";
    report.aim(&key("added_ms"), what, (median(&added), "ms"), ADDED_MS_MAX);
    let mut peaks = vec![];
    for _ in 0..PEAKS {
        peaks.push(peak(&dayfly, &url)?);
    }
    let what = "the most memory that dayfly exec had by then";
    report.aim(&key("peak_mib"), what, (median(&peaks), "MiB"), PEAK_MIB_MAX);
    let size = std::fs::metadata(&dayfly)?.len() as f64;
    report.note(&key("size_bytes"), "the program", size, "bytes");
    Ok(())
}

fn exec(dayfly: &Path, url: &str, words: &[&str]) -> Command {
    let mut command = Command::new(dayfly);
    command.env("DAYFLY_URL", url).env("DAYFLY_ID_TOKEN", "jwt");
    command.args(["exec", "--quiet", "--role", "r", "--"]).args(words);
    command
}

fn timed(command: &mut Command) -> anyhow::Result<f64> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = watch();
    let status = command.status()?;
    let took = ms(started.elapsed());
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took)
}

/// The two requests over a new connection. Making the client is the program's own work.
async fn asked(url: &str) -> anyhow::Result<f64> {
    let client = Client::new(url).with("jwt");
    let started = watch();
    let body = json!({ "purpose": "exec true", "ttl_seconds": 900, "roles": ["r"] });
    let opened = client.post("/api/v1/tasks", body).await.expect(201);
    let done = client.complete(&opened.text("/id"), "5s").await;
    let took = ms(started.elapsed());
    ensure!(done.status == 200, "the task was not completed: {}", done.text);
    Ok(took)
}

/// The peak of the resident set, from the start of the program until its command runs.
fn peak(dayfly: &Path, url: &str) -> anyhow::Result<f64> {
    let mut command = exec(dayfly, url, &["sh", "-c", "echo ready; read -r line"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "the command said `{line}`");
    let peak = peak_mib(child.id())?;
    child.stdin.take().context("stdin")?.write_all(b"\n")?;
    let status = child.wait()?;
    ensure!(status.success(), "{}: {status}", dayfly.display());
    Ok(peak)
}

/// A broker that knows one task and has nothing against it.
async fn serve() -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let leases = LeaseCounts { revoked: 1, ..LeaseCounts::default() };
    let completed =
        Completed { id: "tsk_1".into(), state: "completed".into(), leases, residual_until: None };
    let router = Router::new()
        .route("/api/v1/tasks", post(async || (StatusCode::CREATED, Json(opened()))))
        .route("/api/v1/tasks/{id}/complete", post(async move || Json(completed.clone())));
    drop(spawn(async move { axum::serve(listener, router).await }));
    Ok(url)
}

fn opened() -> OpenedTask {
    let map = |pairs: [(&str, &str); 2]| -> BTreeMap<String, String> {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    let credential = Credential {
        fields: map([("username", "df_x"), ("password", "secret-of-nobody")]),
        environment: map([("PGUSER", "username"), ("PGPASSWORD", "password")]),
    };
    let lease = Lease {
        on_behalf_of: None,
        id: "lse_1".into(),
        task: "tsk_1".into(),
        principal: "local|figures".into(),
        role: "r".into(),
        backend: "pg".into(),
        handle: "df_x".into(),
        state: "active".into(),
        cause: None,
        credential: Some(credential),
        issued_at: "2026-01-01T00:00:00Z".into(),
        expires_at: FAR.into(),
        max_expires_at: FAR.into(),
        revoked_at: None,
        renewable: true,
        belts: vec!["revoke".into()],
        exposure_seconds: Some(0),
        residual_until: None,
        attempts: 0,
        last_error: None,
        abandonment: None,
    };
    OpenedTask {
        id: "tsk_1".into(),
        token: "dft_figures".into(),
        token_type: "Bearer".into(),
        binding: None,
        state: "open".into(),
        expires_at: FAR.into(),
        lost_at: None,
        leases: vec![lease],
    }
}
