//! The size of `dayfly`, and what `dayfly exec` takes besides the network and the command.
//!
//! Invariant: the requests that are taken off are the same two, over a connection that is
//! made anew, answered by the same broker in the same round.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use dayfly_integration::{Client, eventually, free_port, program};
use serde_json::json;

use crate::{
    measure::{median, ms, watch},
    report::Report,
    served::Owned,
};

const SIZE_MAX: f64 = 10_485_760.0;
const OVERHEAD_MS_MAX: f64 = 30.0;
const ROUNDS: usize = 60;
const WARM_UP: usize = 5;

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let dayfly = program("dayfly");
    let size = std::fs::metadata(&dayfly)?.len() as f64;
    report.aim("size.dayfly_bytes", "the program dayfly", (size, "bytes"), SIZE_MAX);
    let size = std::fs::metadata(program("dayfly-server"))?.len() as f64;
    report.note("size.dayfly_server_bytes", "the program dayfly-server", size, "bytes");

    let directory = tempfile::tempdir()?;
    let address = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(program("dayfly-server"));
    command.args(["dev", "--listen", &address, "--directory"]).arg(directory.path());
    let _broker = Owned::spawn(&mut command)?;
    let url = format!("http://{address}");
    let token_file = directory.path().join("identity-token");
    let ready = async || {
        let answer = Client::new(&url).get("/readyz").await?;
        (answer.status == 200 && token_file.exists()).then_some(())
    };
    eventually("the development broker is ready", Duration::from_secs(30), ready).await;
    let token = std::fs::read_to_string(&token_file)?;

    let (mut whole, mut network, mut spawned, mut rest) = (vec![], vec![], vec![], vec![]);
    for round in 0..WARM_UP + ROUNDS {
        let exec = exec(&dayfly, &url, &token_file)?;
        let requests = requests(&url, &token).await?;
        let command = command_alone()?;
        if round >= WARM_UP {
            whole.push(exec);
            network.push(requests);
            spawned.push(command);
            rest.push(exec - requests - command);
        }
    }
    let key = |what: &str| format!("exec.{what}");
    report.note(&key("whole_ms"), "dayfly exec --role greeter -- /bin/true", median(&whole), "ms");
    report.note(&key("requests_ms"), "the two requests that it makes", median(&network), "ms");
    report.note(&key("command_ms"), "/bin/true alone", median(&spawned), "ms");
    let what = "dayfly exec besides the requests and the command";
    report.aim(&key("overhead_ms"), what, (median(&rest), "ms"), OVERHEAD_MS_MAX);
    Ok(())
}

fn exec(dayfly: &Path, url: &str, token_file: &Path) -> anyhow::Result<f64> {
    let mut command = Command::new(dayfly);
    command.env("DAYFLY_URL", url).arg("exec").arg("--token-file").arg(token_file);
    command.args(["--role", "greeter", "--", "/bin/true"]);
    timed(&mut command)
}

fn command_alone() -> anyhow::Result<f64> {
    timed(&mut Command::new("/bin/true"))
}

fn timed(command: &mut Command) -> anyhow::Result<f64> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = watch();
    let status = command.status()?;
    let took = ms(started.elapsed());
    ensure!(status.success(), "{command:?}: {status}");
    Ok(took)
}

/// What `exec` asks of the broker. Making the client is the program's own work, so it is not
/// in the time that is taken off; making the connection is the network's.
async fn requests(url: &str, token: &str) -> anyhow::Result<f64> {
    let client = Client::new(url);
    let workload = client.with(token);
    let started = watch();
    let body = json!({ "purpose": "exec true", "ttl_seconds": 900, "roles": ["greeter"] });
    let opened = workload.post("/api/v1/tasks", body).await.expect(201);
    let done = client.with(&opened.text("/token")).complete(&opened.text("/id"), "5s").await;
    let took = ms(started.elapsed());
    ensure!(done.status == 200, "the task was not completed: {}", done.text);
    Ok(took)
}
