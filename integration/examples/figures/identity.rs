//! Who is asking and may they: the whole check of a federated token and the decision on one
//! mint, against the bare check of the token's signature.
//!
//! Invariant: the bare check is the very call that the broker makes, with the key decoded
//! beforehand, on the same token.

use std::{process::Command, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{Clock, SystemClock, SystemEntropy};
use dayfly_server::{
    identity::{Authenticator, FixedKeys, IssuerConfig, KeySource, LocalIssuer},
    policy::{Circumstances, Policies, RoleFacts},
};
use jsonwebtoken::{Algorithm, DecodingKey, jwk::JwkSet};
use ring::{
    rand::SystemRandom,
    rsa::{KeyPair, PublicKeyComponents},
    signature::RSA_PKCS1_SHA256,
};
use serde_json::{Value, json};

use crate::{
    measure::{median, watch},
    report::Report,
};

const ISSUER: &str = "https://token.actions.example.test";
const AUDIENCE: &str = "https://dayfly.example.test";
const ROUNDS: usize = 25;
const SLICE: Duration = Duration::from_millis(30);

/// A token with what is needed to check it.
struct Signed {
    name: &'static str,
    algorithm: Algorithm,
    token: String,
    jwks: Value,
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let now = SystemClock.now();
    for signed in [rs256(now)?, eddsa(now)?] {
        compare(report, &signed, now).await?;
    }
    Ok(())
}

/// What is timed.
#[derive(Clone, Copy)]
enum Subject<'a> {
    Bare,
    Authenticate,
    Decide(&'a Policies, &'a RoleFacts),
}

async fn compare(report: &mut Report, signed: &Signed, now: Timestamp) -> anyhow::Result<()> {
    let roles: Vec<RoleFacts> = (0..1_000).map(role).collect();
    let (few, last) = (roles.get(..10).context("ten roles")?, roles.last().context("a role")?);
    let ten_pinned = rules(&pinned(10), few)?;
    let ten_jobs = rules(&of_jobs(10), few)?;
    let ten_open = rules(&unpinned(10), few)?;
    let thousand = rules(&pinned(1_000), &roles)?;
    let tenth = few.last().context("a role")?;
    let check = Check::new(signed, now)?;
    let subjects = [
        Subject::Bare,
        Subject::Authenticate,
        Subject::Decide(&ten_pinned, tenth),
        Subject::Decide(&ten_jobs, tenth),
        Subject::Decide(&ten_open, tenth),
        Subject::Decide(&thousand, last),
    ];
    let mut samples = vec![Vec::with_capacity(ROUNDS); subjects.len()];
    for round in 0..=ROUNDS {
        for (subject, samples) in subjects.iter().zip(&mut samples) {
            let micros = check.slice(*subject).await?;
            // The first round fetches the keys and warms up.
            if round > 0 {
                samples.push(micros);
            }
        }
    }
    let medians: Vec<f64> = samples.iter().map(|samples| median(samples)).collect();
    let &[bare, authenticate, pinned, jobs, open, thousand] = medians.as_slice() else {
        panic!("a median of each subject");
    };
    let name = signed.name;
    let key = |what: &str| format!("identity.{}.{what}", name.to_lowercase());
    let text = |what: &str| format!("{name}: {what}");
    report.note(&key("bare_us"), &text("the bare signature check"), bare, "µs");
    report.note(&key("token_us"), &text("the token's whole verification"), authenticate, "µs");
    let what = text("verification + decision, 10 rules pinned to 10 roles");
    report.aim(&key("ten_pinned_ratio"), &what, (pinned / bare, "×"), 1.5);
    let what = text("verification + decision, 10 rules for 10 repositories and any role");
    report.aim(&key("ten_jobs_ratio"), &what, (jobs / bare, "×"), 1.5);
    let what = text("verification + decision, 10 rules that are all looked at");
    report.aim(&key("ten_unpinned_ratio"), &what, (open / bare, "×"), 1.5);
    let what = text("verification + decision, 1,000 rules pinned to 1,000 roles");
    report.aim(&key("thousand_us"), &what, (thousand, "µs"), 300.0);
    Ok(())
}

/// Everything that a check of one token takes.
struct Check<'a> {
    signed: &'a Signed,
    key: DecodingKey,
    authenticator: Authenticator,
    circumstances: Circumstances,
}

impl<'a> Check<'a> {
    fn new(signed: &'a Signed, now: Timestamp) -> anyhow::Result<Self> {
        let set: JwkSet = serde_json::from_value(signed.jwks.clone())?;
        let key = DecodingKey::from_jwk(set.keys.first().context("one key")?)?;
        let config = IssuerConfig::new("ci", ISSUER, AUDIENCE);
        let keys: Arc<dyn KeySource> =
            Arc::new(FixedKeys::parse(signed.jwks.to_string().as_bytes())?);
        let authenticator =
            Authenticator::with_sources(vec![(config, keys)], Arc::new(SystemClock))?;
        let circumstances = Circumstances {
            source_address: Some([127, 0, 0, 1].into()),
            now,
            own_task: Some("tsk_01890a5d-ac96-774b-bcce-b302099a8057".to_owned()),
            binding: None,
            on_behalf_of: None,
        };
        Ok(Self { signed, key, authenticator, circumstances })
    }

    /// Microseconds of one, as the mean of as many as fit into a slice of time.
    async fn slice(&self, subject: Subject<'_>) -> anyhow::Result<f64> {
        const BATCH: u32 = 8;
        let started = watch();
        let mut done = 0;
        while started.elapsed() < SLICE {
            for _ in 0..BATCH {
                self.once(subject).await?;
            }
            done += BATCH;
        }
        Ok(started.elapsed().as_secs_f64() * 1e6 / f64::from(done))
    }

    async fn once(&self, subject: Subject<'_>) -> anyhow::Result<()> {
        let token = &self.signed.token;
        if let Subject::Bare = subject {
            let (message, signature) = token.rsplit_once('.').context("a signature")?;
            let (message, algorithm) = (message.as_bytes(), self.signed.algorithm);
            ensure!(jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm)?);
            return Ok(());
        }
        let principal = self.authenticator.authenticate(token).await?;
        if let Subject::Decide(policies, role) = subject {
            let permit = policies.permit_mint(
                &principal,
                role,
                "figures",
                300,
                "tsk_01890a5d-ac96-774b-bcce-b302099a8057",
                &self.circumstances,
            );
            let permit = permit.map_err(|denial| anyhow::anyhow!("denied: {denial:?}"))?;
            drop(std::hint::black_box(permit));
        }
        Ok(())
    }
}

/// What a platform for continuous integration says of a job.
fn claims(now: Timestamp) -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "repo:example/orders:environment:production",
        "iat": now.seconds(), "nbf": now.seconds(), "exp": now.seconds() + 3_600,
        "jti": "9e0c1a52-8f4b-4d59-9f3c-1d0c64a5a7f1",
        "ref": "refs/heads/main", "sha": "f3a1c0d2b4e5968778695a4b3c2d1e0f12345678",
        "repository": "example/orders", "repository_id": "456789",
        "repository_owner": "example", "repository_owner_id": "123456",
        "repository_visibility": "private", "actor": "someone", "actor_id": "1234",
        "run_id": "8123456789", "run_number": "118", "run_attempt": "1",
        "workflow": "deploy", "event_name": "push", "ref_protected": "true", "ref_type": "branch",
        "environment": "production", "runner_environment": "hosted",
        "job_workflow_ref": "example/orders/.github/workflows/deploy.yml@refs/heads/main",
    })
}

/// RSA keys cannot be made with ring, so OpenSSL makes it.
fn rs256(now: Timestamp) -> anyhow::Result<Signed> {
    let made = Command::new("openssl")
        .args(["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
        .args(["-outform", "DER"])
        .output()
        .context("openssl (Debian: openssl)")?;
    ensure!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let pair = KeyPair::from_pkcs8(&made.stdout)
        .or_else(|_| KeyPair::from_der(&made.stdout))
        .map_err(|error| anyhow::anyhow!("the RSA key was refused: {error}"))?;
    let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
    let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "rsa" });
    let message = format!("{}.{}", part(&header), part(&claims(now)));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .map_err(|_| anyhow::anyhow!("the RSA key did not sign"))?;
    let jwks = json!({ "keys": [{
        "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "rsa",
        "n": BASE64URL_NOPAD.encode(&public.n), "e": BASE64URL_NOPAD.encode(&public.e),
    }] });
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(&signature));
    Ok(Signed { name: "RS256", algorithm: Algorithm::RS256, token, jwks })
}

fn eddsa(now: Timestamp) -> anyhow::Result<Signed> {
    let issuer = LocalIssuer::new(&SystemEntropy::new())
        .map_err(|error| anyhow::anyhow!("the Ed25519 key was refused: {error}"))?;
    let (token, jwks) = (issuer.sign(&claims(now)), issuer.jwks());
    Ok(Signed { name: "EdDSA", algorithm: Algorithm::EdDSA, token, jwks })
}

fn role(number: usize) -> RoleFacts {
    RoleFacts {
        name: format!("role-{number}"),
        backend: "pg".to_owned(),
        owner: "figures".to_owned(),
        labels: [("environment".to_owned(), "production".to_owned())].into(),
    }
}

fn rules(text: &str, roles: &[RoleFacts]) -> anyhow::Result<Policies> {
    let files = [("figures.cedar".to_owned(), text.to_owned())];
    Policies::from_texts(&files, roles).map_err(|faults| anyhow::anyhow!("{faults:?}"))
}

/// As an installation has them: each role with the job that may have it.
fn pinned(count: usize) -> String {
    let rule =
        |n: usize| permit(n, &format!("resource == Dayfly::Role::\"role-{n}\""), &job("456789"));
    (0..count).map(rule).collect()
}

/// Each repository with whatever it may have; the last is the one that asks.
fn of_jobs(count: usize) -> String {
    (0..count).map(|n| permit(n, "resource", &job(&repository(n, count)))).collect()
}

/// The worst of as many: they begin with what they all ask for, so that all must be looked at.
fn unpinned(count: usize) -> String {
    let rule = |n: usize| {
        let [repository, owner, protected] = job(&repository(n, count));
        permit(n, "resource", &[protected, owner, repository])
    };
    (0..count).map(rule).collect()
}

fn repository(number: usize, count: usize) -> String {
    if number + 1 == count { "456789".to_owned() } else { number.to_string() }
}

/// What is asked of a job.
fn job(repository: &str) -> [String; 3] {
    let tag = |name: &str, value: &str| {
        format!("principal.hasTag(\"{name}\") && principal.getTag(\"{name}\") == \"{value}\"")
    };
    [
        tag("repository_id", repository),
        tag("repository_owner_id", "123456"),
        tag("ref_protected", "true"),
    ]
}

fn permit(number: usize, resource: &str, conditions: &[String; 3]) -> String {
    let conditions = conditions.join(" && ");
    format!(
        r#"
@id("figures/rule-{number}")
@reason("a repository, in its production environment, from a protected branch")
permit (
    principal is Dayfly::Workload in Dayfly::Issuer::"ci",
    action == Dayfly::Action::"mint",
    {resource}
)
when {{ {conditions} }};
"#
    )
}
