//! Tokens that nobody can verify, ten thousand a second, beside good ones: how often the issuer is
//! asked for its keys, and what the good ones pay. Then tokens of issuers that do not answer,
//! answer without end, or send elsewhere, beside the same good ones.
//!
//! Invariant: quiet and crowded slices alternate, so that a busy moment of the machine falls on
//! both.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    response::Redirect,
    routing::get,
};
use data_encoding::BASE64URL_NOPAD;
use dayfly_lease::{Clock, SystemClock, SystemEntropy, spawn};
use dayfly_server::identity::{Authenticator, IssuerConfig, LocalIssuer, Rejection};
use futures_util::{future::join_all, stream};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    measure::{median, percentile, watch},
    report::Report,
};

const AUDIENCE: &str = "https://dayfly.example.test";
/// Tokens a second, as waves of so many.
const WAVE: usize = 50;
const WAVES_A_SECOND: u32 = 200;
const ROUNDS: usize = 16;
const SLICE: Duration = Duration::from_secs(4);
/// Tokens of each bad issuer that wait at a time.
const WAITING: usize = 32;
/// The answer of the issuer that has no end, in parts of so many bytes.
const PART: usize = 64 * 1024;

/// What bad issuers do when they are asked for their keys.
const BAD: [&str; 3] = ["silent", "endless", "elsewhere"];

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let asked = Arc::new(AtomicU64::new(0));
    let signer = LocalIssuer::new(&SystemEntropy::new())
        .map_err(|error| anyhow::anyhow!("the Ed25519 key was refused: {error}"))?;
    let origin = serve(signer.jwks(), Arc::clone(&asked)).await?;
    let desk = Arc::new(desk(&origin)?);
    let good = signer.sign(&claims(&format!("{origin}/good")));
    ensure!(desk.authenticate(&good).await.is_ok(), "the good token is refused");
    let before = asked.load(Ordering::SeqCst);

    let unknown: Vec<String> = (0..10_000).map(|n| stranger(&origin, "good", n)).collect();
    let sent = Arc::new(AtomicU64::new(0));
    let (mut quiet, mut flooded) = (Samples::default(), Samples::default());
    let started = watch();
    let mut flooding = Duration::ZERO;
    let unknown = Arc::new(unknown);
    for _ in 0..ROUNDS {
        quiet.take(&desk, &good).await?;
        let on = Arc::new(AtomicBool::new(true));
        let strangers = spawn(flood(
            Arc::clone(&desk),
            Arc::clone(&unknown),
            Arc::clone(&on),
            Arc::clone(&sent),
        ));
        let since = watch();
        flooded.take(&desk, &good).await?;
        on.store(false, Ordering::SeqCst);
        strangers.await??;
        flooding += since.elapsed();
    }
    let lasted = started.elapsed();
    let fetches = asked.load(Ordering::SeqCst) - before;
    note_flood(report, &sent, flooding, (fetches, lasted));
    let what = "a good token's verification beside that flood, to without it";
    report.aim("flood.known_ratio", what, (flooded.median() / quiet.median(), "×"), 1.5);
    report.note("flood.known_p99_us", "the same, p99", flooded.p99(), "µs");
    report.note("flood.quiet_p99_us", "p99 without it", quiet.p99(), "µs");
    beside_bad_issuers(report, &desk, &origin, &good).await
}

fn note_flood(
    report: &mut Report,
    sent: &AtomicU64,
    flooding: Duration,
    (fetches, lasted): (u64, Duration),
) {
    let rate = sent.load(Ordering::SeqCst) as f64 / flooding.as_secs_f64();
    report.note("flood.tokens", "tokens with an unknown kid", rate, "/s");
    let most = lasted.as_secs() / 30 + 1;
    let what = format!("fetches of keys for them in {} s", lasted.as_secs());
    report.aim("flood.fetches", &what, (fetches as f64, ""), most as f64);
}

async fn beside_bad_issuers(
    report: &mut Report,
    desk: &Arc<Authenticator>,
    origin: &str,
    good: &str,
) -> anyhow::Result<()> {
    let (mut quiet, mut beside) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS / 4 {
        quiet.take(desk, good).await?;
        let tokens: Vec<String> = BAD
            .iter()
            .flat_map(|bad| (0..WAITING).map(move |n| (bad, n)))
            .map(|(bad, n)| stranger(origin, bad, round * WAITING + n))
            .collect();
        let desk_of_theirs = Arc::clone(desk);
        let waiting = spawn(async move {
            let all = tokens.iter().map(|token| desk_of_theirs.authenticate(token));
            join_all(all).await.into_iter().all(|answer| answer.is_err())
        });
        beside.take(desk, good).await?;
        ensure!(waiting.await?, "a token without keys was accepted");
    }
    let what = "a good token's verification beside issuers that fail, to without them";
    report.aim("flood.beside_bad_ratio", what, (beside.median() / quiet.median(), "×"), 1.5);
    report.note("flood.beside_bad_p99_us", "the same, p99", beside.p99(), "µs");
    Ok(())
}

/// Good tokens' verifications, in microseconds.
#[derive(Default)]
struct Samples(Vec<f64>);

impl Samples {
    /// A slice of them, a short pause apart, as callers come.
    async fn take(&mut self, desk: &Authenticator, good: &str) -> anyhow::Result<()> {
        let started = watch();
        while started.elapsed() < SLICE {
            let one = watch();
            desk.authenticate(good).await.map_err(|error| anyhow::anyhow!("{error:?}"))?;
            self.0.push(one.elapsed().as_secs_f64() * 1e6);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    fn median(&self) -> f64 {
        median(&self.0)
    }

    fn p99(&self) -> f64 {
        percentile(&self.0, 99)
    }
}

async fn flood(
    desk: Arc<Authenticator>,
    tokens: Arc<Vec<String>>,
    on: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
) -> anyhow::Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / WAVES_A_SECOND);
    let mut waves = tokens.chunks(WAVE).cycle();
    while on.load(Ordering::SeqCst) {
        ticks.tick().await;
        let wave = waves.next().context("a wave")?;
        for answer in join_all(wave.iter().map(|token| desk.authenticate(token))).await {
            ensure!(answer == Err(Rejection::UnknownKey), "{answer:?}");
        }
        sent.fetch_add(wave.len() as u64, Ordering::SeqCst);
    }
    Ok(())
}

fn desk(origin: &str) -> anyhow::Result<Authenticator> {
    let rules = |name: &str| {
        let mut rules = IssuerConfig::new(name, format!("{origin}/{name}"), AUDIENCE);
        rules.insecure_http = true;
        rules
    };
    let issuers = std::iter::once("good").chain(BAD).map(rules).collect();
    Ok(Authenticator::new(issuers, Arc::new(SystemClock))?)
}

/// All issuers, each under its path; the good one counts its fetches.
async fn serve(jwks: Value, asked: Arc<AtomicU64>) -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let discovery = |name: &str| {
        let issuer = format!("{origin}/{name}");
        let document = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/jwks") });
        (format!("/{name}/.well-known/openid-configuration"), document)
    };
    let mut router = Router::new();
    for name in std::iter::once("good").chain(BAD) {
        let (path, document) = discovery(name);
        router = router.route(&path, get(async move || Json(document.clone())));
    }
    let good = async move || {
        asked.fetch_add(1, Ordering::SeqCst);
        Json(jwks.clone())
    };
    let parts = || stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; PART])));
    let router = router
        .route("/good/jwks", get(good))
        .route("/silent/jwks", get(std::future::pending::<()>))
        .route("/endless/jwks", get(async move || Body::from_stream(parts())))
        .route("/elsewhere/jwks", get(async || Redirect::temporary("/good/jwks")));
    drop(spawn(async move { axum::serve(listener, router).await }));
    Ok(origin)
}

fn claims(issuer: &str) -> Value {
    let now = SystemClock.now().seconds();
    json!({
        "iss": issuer, "aud": AUDIENCE, "sub": "someone", "iat": now, "nbf": now,
        "exp": now + 3_600,
    })
}

/// A token in the right shape that names a key which is not there.
fn stranger(origin: &str, issuer: &str, number: usize) -> String {
    let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
    let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": format!("stranger-{number}") });
    let claims = claims(&format!("{origin}/{issuer}"));
    format!("{}.{}.{}", part(&header), part(&claims), BASE64URL_NOPAD.encode(&[7; 64]))
}
