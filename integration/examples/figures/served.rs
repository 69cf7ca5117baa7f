//! Broker processes as they would be run: with the default log, and told to stop politely.
//!
//! Invariant: a process that was started is ended with the value that stands for it.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, eventually, program};
use serde_json::{Value, json};

/// A configured broker that logs what it logs by default; the suites' log everything.
pub(crate) fn configured(config: BrokerConfig) -> Broker {
    let broker = Broker::configure(config);
    let text = fs::read_to_string(broker.config_file()).unwrap();
    let quiet = text.replace("log_filter = \"trace\"", "log_filter = \"info\"");
    assert_ne!(quiet, text, "the log filter was not where it is expected");
    fs::write(broker.config_file(), quiet).unwrap();
    broker
}

/// A server that logs what it logs by default; the suites' log every statement.
pub(crate) fn quiet(postgres: &Postgres) {
    postgres.sql(
        "postgres",
        "ALTER SYSTEM SET log_statement = 'none'; ALTER SYSTEM SET log_min_duration_statement = -1;
         SELECT pg_reload_conf()",
    );
}

/// Stops a broker as its service manager would, and waits for its end.
pub(crate) async fn stop(broker: &mut Broker) {
    broker.signal("TERM");
    let ended = async || broker.exited();
    let status = eventually("the broker ends", Duration::from_secs(30), ended).await;
    assert!(status.success(), "the broker ended with {status}:\n{}", broker.log());
}

/// Opens a task that outlives every measurement; gives its id and a client with its token.
pub(crate) async fn open_task(broker: &Broker) -> (String, Client) {
    let client = broker.client();
    let body = json!({ "purpose": "figures", "ttl_seconds": 14_400 });
    let opened = client.with(&broker.issuer.token("bench")).post("/api/v1/tasks", body).await;
    let opened = opened.expect(201);
    (opened.text("/id"), client.with(&opened.text("/token")))
}

/// The process's resident set.
pub(crate) fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    status_mib(pid, "VmRSS:")
}

/// The largest that it ever was.
pub(crate) fn peak_mib(pid: u32) -> anyhow::Result<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, field: &'static str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)).context(field)?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1_024.0)
}

/// How many processes waited for a core, over the last minute.
pub(crate) fn load() -> anyhow::Result<f64> {
    let load = fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().context("a load")?.parse()?)
}

/// A child process that is killed when it is no longer needed.
pub(crate) struct Owned(Child);

impl Owned {
    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // It may be dead already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// What is measured, and on what.
pub(crate) fn circumstances() -> anyhow::Result<Value> {
    // A program with failpoints refuses to arm one that it does not know; one without has
    // nothing to arm.
    let mut probe = Command::new(program("dayfly-server"));
    let probe = probe.arg("openapi").env("DAYFLY_FAILPOINTS", "no.such.point=abort");
    let armed = !probe.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success();
    let cores = std::thread::available_parallelism()?.get();
    Ok(json!({
        "programs": program("dayfly-server"),
        "failpoints": armed,
        "optimised": !cfg!(debug_assertions),
        "cores": cores,
        "load_before": load()?,
    }))
}
