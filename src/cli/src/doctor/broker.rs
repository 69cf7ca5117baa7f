//! The way to the broker, and the broker itself.
//!
//! Invariant: no token is sent; names of proxy variables are told and not their values, which may
//! hold passwords.

use std::{net::SocketAddr, time::Duration};

use serde_json::Value;
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    Report,
    certificate::{Moment, not_after},
};
use crate::{
    ambient::Ambient,
    args::Context,
    client::{self, Client, Probe},
    failure::{self, Failure},
};

/// How long one step of the way may take.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Proofs and tokens are refused when clocks differ by much more.
const CLOCK_DIFFERENCE_MAX_S: u64 = 30;
const CERTIFICATE_DAYS_MIN: i64 = 14;
const PROXIES: [&str; 4] = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Whether the broker has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reached {
    No,
    Yes,
}

/// Whether the broker is known and its address one that a token may be sent to.
pub(super) fn address(report: &mut Report, context: Context<'_>) -> Option<Client> {
    const NAME: &str = "broker";
    match context.client() {
        Ok(client) => {
            report.ok(NAME, client.url().to_string());
            Some(client)
        }
        Err(error) => {
            let failure = Failure::from(error);
            report.fail(NAME, failure.to_line(), "", failure.exit_code());
            None
        }
    }
}

/// Goes the way step by step.
pub(super) async fn look(report: &mut Report, client: &Client, ambient: &Ambient) -> Reached {
    let is_proxied = proxies(report, client, ambient);
    way(report, client, is_proxied).await;
    let (health, now) = (client.probe("healthz").await, Moment::now());
    tls(report, client, &health, now);
    let health = match health {
        Ok(health) => health,
        Err(error) => {
            let line = chain(&error);
            let code = Failure::from(error).exit_code();
            report.fail("healthz", line, "see what failed before", code);
            for name in ["readyz", "version", "clock"] {
                report.skip(name, "the broker was not reached");
            }
            return Reached::No;
        }
    };
    let is_ours = is_broker(&health);
    if is_ours {
        report.ok("healthz", "the broker answers");
    } else {
        let detail = format!("it answered {}, and not as a Dayfly broker does", health.status);
        report.fail("healthz", detail, "check --url, and what stands before it", failure::FAILED);
    }
    ready(report, client).await;
    version(report, client).await;
    clock(report, &health, now);
    if is_ours { Reached::Yes } else { Reached::No }
}

fn is_broker(health: &Probe) -> bool {
    health.status == 200 && health.body == b"ok\n"
}

/// Whether a proxy may stand between: then nobody here need know the broker's name.
fn proxies(report: &mut Report, client: &Client, ambient: &Ambient) -> bool {
    let set = |names: &[&'static str]| -> Vec<&'static str> {
        names.iter().copied().filter(|name| ambient.value(name).is_some()).collect()
    };
    let (proxies, exceptions) = (set(&PROXIES), set(&EXCEPTIONS));
    if client.url().is_plain() {
        report.ok("proxy", "none: the broker is on this machine");
        return false;
    }
    if proxies.is_empty() {
        report.ok("proxy", "none is set");
        return false;
    }
    let mut detail = format!("{} is set", proxies.join(", "));
    if !exceptions.is_empty() {
        detail = format!("{detail}, with exceptions in {}", exceptions.join(", "));
    }
    report.ok("proxy", detail);
    true
}

/// Name resolution, and a connection to one of the addresses.
async fn way(report: &mut Report, client: &Client, is_proxied: bool) {
    let Some((host, port)) = client.url().place() else { return };
    let found = timeout(STEP_TIMEOUT, lookup_host((host.as_str(), port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(error)) => {
            let advice = "check --url, and DNS";
            amiss(report, is_proxied, ("name", format!("`{host}`: {error}")), advice);
            return;
        }
        Err(_) => {
            let detail = format!("`{host}`: no answer in time");
            amiss(report, is_proxied, ("name", detail), "check DNS");
            return;
        }
    };
    report.ok("name", format!("{host} is {}", joined(&addresses)));
    let mut last = String::from("no address");
    for address in &addresses {
        match timeout(STEP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                report.ok("connection", format!("{address} takes one"));
                return;
            }
            Ok(Err(error)) => last = format!("{address}: {error}"),
            Err(_) => last = format!("{address}: no answer in time"),
        }
    }
    let advice = "check that the broker runs, and what firewalls let through";
    amiss(report, is_proxied, ("connection", last), advice);
}

/// A step that failed; where a proxy goes it, that need not matter.
fn amiss(
    report: &mut Report,
    is_proxied: bool,
    (name, detail): (&'static str, String),
    advice: &str,
) {
    if is_proxied {
        report.warn(name, detail, "the proxy may know better");
    } else {
        report.fail(name, detail, advice, failure::UNAVAILABLE);
    }
}

fn joined(addresses: &[SocketAddr]) -> String {
    let shown: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    shown.join(", ")
}

/// The certificate, which was verified if there is any answer at all.
fn tls(report: &mut Report, client: &Client, health: &Result<Probe, client::Error>, now: Moment) {
    const NAME: &str = "certificate";
    if client.url().is_plain() {
        report.ok(NAME, "none: http on a loopback address");
        return;
    }
    let probe = match health {
        Ok(probe) => probe,
        Err(error) => {
            let line = chain(error);
            if line.contains("certificate") || line.contains("tls") || line.contains("TLS") {
                let advice = "trust its issuer by --ca-file (DAYFLY_CA_FILE), and give the name that \
                              is in it";
                report.fail(NAME, line, advice, failure::FAILED);
            } else {
                report.skip(NAME, "the broker was not reached");
            }
            return;
        }
    };
    let Some(end) = probe.certificate.as_deref().and_then(not_after) else {
        report.ok(NAME, "verified");
        return;
    };
    let days = (end - now.0).whole_days();
    let detail = format!("verified; {days} days until its end");
    if days < CERTIFICATE_DAYS_MIN {
        report.warn(NAME, detail, "renew it at the broker");
    } else {
        report.ok(NAME, detail);
    }
}

/// The failure with all its causes: which one says most, depends on the library.
fn chain(error: &client::Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}

async fn ready(report: &mut Report, client: &Client) {
    const NAME: &str = "readyz";
    let advice = "look at its log and its store; `dayfly standing` tells what is suspended";
    match client.probe(NAME).await {
        Ok(probe) if probe.status == 200 => report.ok(NAME, "it can mint"),
        Ok(probe) => {
            let problem: Value = serde_json::from_slice(&probe.body).unwrap_or_default();
            let why = problem.get("detail").and_then(Value::as_str).unwrap_or("no reason is given");
            let detail = format!("it answered {}: {why}", probe.status);
            report.fail(NAME, detail, advice, failure::UNAVAILABLE);
        }
        Err(error) => report.fail(NAME, chain(&error), advice, failure::UNAVAILABLE),
    }
}

async fn version(report: &mut Report, client: &Client) {
    const NAME: &str = "version";
    let own = env!("CARGO_PKG_VERSION");
    let described = client.probe("openapi.json").await.ok();
    let described = described.and_then(|it| serde_json::from_slice::<Value>(&it.body).ok());
    let theirs = described.as_ref().and_then(|it| it.pointer("/info/version")?.as_str());
    match theirs {
        Some(theirs) if theirs == own => report.ok(NAME, format!("both are {own}")),
        Some(theirs) => report.ok(NAME, format!("the broker is {theirs}, this program {own}")),
        None => report.warn(
            NAME,
            format!("the broker does not tell its own; this program is {own}"),
            "let /openapi.json through",
        ),
    }
}

fn clock(report: &mut Report, health: &Probe, now: Moment) {
    const NAME: &str = "clock";
    let Some(theirs) = health.date else {
        report.warn(NAME, "the broker's answer has no date", "let the header `Date` through");
        return;
    };
    let difference = (now.0 - theirs).whole_seconds().unsigned_abs();
    let detail = format!("{difference} s from the broker's");
    if difference > CLOCK_DIFFERENCE_MAX_S {
        report.warn(NAME, detail, "set this machine's clock, by NTP say");
    } else {
        report.ok(NAME, detail);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::doctor::State;

    fn probe(date: Option<time::OffsetDateTime>) -> Probe {
        Probe { status: 200, date, certificate: None, body: b"ok\n".to_vec() }
    }

    #[test]
    fn clocks_may_differ_by_half_a_minute() {
        let now = Moment(datetime!(2026-01-01 00:01:00 UTC));
        for (theirs, state) in [
            (datetime!(2026-01-01 00:00:30 UTC), State::Ok),
            (datetime!(2026-01-01 00:01:30 UTC), State::Ok),
            (datetime!(2026-01-01 00:00:29 UTC), State::Warning),
            (datetime!(2026-01-01 00:01:31 UTC), State::Warning),
        ] {
            let mut report = Report::default();
            clock(&mut report, &probe(Some(theirs)), now);
            assert_eq!(report.checks[0].state, state, "{theirs}");
        }
        let mut report = Report::default();
        clock(&mut report, &probe(None), now);
        assert_eq!(report.checks[0].state, State::Warning);
    }

    #[test]
    fn a_page_that_anybody_could_serve_is_no_broker() {
        assert!(is_broker(&probe(None)));
        assert!(!is_broker(&Probe { body: b"<html>ok".to_vec(), ..probe(None) }));
        assert!(!is_broker(&Probe { status: 302, ..probe(None) }));
    }
}
