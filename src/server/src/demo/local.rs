//! A broker for one machine: its own issuer, two roles, permissive rules.
//!
//! Invariant: it listens on loopback only.

use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use dayfly_backend_api_key::{ApiKeyBackend, KeyStore};
use dayfly_backend_sdk::{Backend, HandlePrefix, Secret};
use dayfly_lease::{
    Clock, Entropy, ReplicaId, Settings, SystemClock, SystemEntropy, audit::Signer,
};
use dayfly_store::{AnyStore, Incarnation, SqliteOptions, SqliteStore};
use serde_json::{Value, json};

use crate::{
    Role, Roles, StoredKeys,
    broker::{Broker, Limits},
    identity::{Authenticator, FixedKeys, IssuerConfig, KeySource, Kind, LocalIssuer, OwnAddress},
    pods::Clusters,
    policy::{Policies, RoleFacts},
    serve::{Assembly, Listening, assemble, listen},
    ssf::Streams,
    webhook::Hooks,
};

const AUDIENCE: &str = "dayfly";
/// Two issuers with one key: workloads and people are never the same principal.
const WORKLOADS: &str = "https://local.dayfly.invalid/workloads";
const PEOPLE: &str = "https://local.dayfly.invalid/people";
const TOKEN_LIFE: Duration = Duration::from_hours(1);

/// A running broker of this kind.
#[derive(Debug)]
pub struct Local {
    broker: Arc<Broker>,
    listening: Listening,
    issuer: LocalIssuer,
    signer: Signer,
    loops: Vec<tokio::task::JoinHandle<()>>,
}

impl Local {
    /// Starts it, with its database in `directory`.
    pub async fn start(directory: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        if !address.ip().is_loopback() {
            bail!("`{address}` is not loopback; a development broker is for one machine");
        }
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
        let issuer = LocalIssuer::new(entropy.as_ref())
            .map_err(|error| anyhow::anyhow!("the development key was refused: {error}"))?;
        let path = directory.join("dayfly.db");
        let seed = crate::serve::key_beside(&path, entropy.as_ref())?;
        let signer = Signer::from_seed(seed.expose()).context("the signing key is not one")?;
        let replica = ReplicaId::new(clock.now(), entropy.as_ref());
        let incarnation = Incarnation { replica, signer: signer.clone() };
        let options = SqliteOptions { path };
        let store = SqliteStore::open(&options, incarnation, Arc::clone(&clock)).await?;
        let store = AnyStore::Sqlite(store);
        let keys = api_key_backend(&store, &entropy)?;
        let roles = roles(keys.as_ref())?;
        let texts = [("dev.cedar".to_owned(), include_str!("dev.cedar").to_owned())];
        let policies = Policies::from_texts(&texts, &roles.facts())
            .map_err(|faults| anyhow::anyhow!("the built-in rules are broken: {faults:?}"))?;
        let broker = assemble(Assembly {
            store,
            replica,
            backends: BTreeMap::from([("keys".to_owned(), Arc::clone(&keys) as Arc<dyn Backend>)]),
            api_keys: vec![keys],
            roots: None,
            hooks: Hooks::default(),
            streams: Streams::default(),
            clusters: Clusters::default(),
            login: None,
            roles,
            policies,
            authenticator: authenticator(&issuer, &clock)?,
            own_address: OwnAddress::new(None, address, false),
            public_url: None,
            limits: Limits::default(),
            settings: Settings::default(),
            clock,
            entropy,
        });
        let loops = broker.engine.start();
        let listening = listen(&broker, address, None).await?;
        Ok(Self { broker, listening, issuer, signer, loops })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.listening.address())
    }

    /// Its parts.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The key with which its audit log can be checked.
    pub fn public_key(&self) -> &[u8] {
        self.signer.public_key()
    }

    /// A token of the development workload.
    pub fn workload_token(&self) -> Secret {
        self.token(WORKLOADS, "repo:example/hello", json!({ "repository_id": "42" }))
    }

    /// A token of the development administrator.
    pub fn admin_token(&self) -> Secret {
        self.token(PEOPLE, "you", json!({}))
    }

    fn token(&self, issuer: &str, subject: &str, more: Value) -> Secret {
        let now = self.broker.clock.now();
        let mut random = [0; 16];
        self.broker.entropy.fill(&mut random);
        let mut claims = json!({
            "iss": issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now.seconds(),
            "nbf": now.seconds(),
            "exp": now.plus(TOKEN_LIFE).seconds(),
            "jti": data_encoding::HEXLOWER.encode(&random),
        });
        if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
            claims.extend(more);
        }
        Secret::new(self.issuer.sign(&claims))
    }

    /// Writes a token where only its owner can read it.
    pub(super) fn write_token(
        directory: &Path,
        name: &str,
        token: &Secret,
    ) -> anyhow::Result<PathBuf> {
        let path = directory.join(name);
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(token.expose().as_bytes())?;
        Ok(path)
    }

    /// Serves until the process is told to stop.
    pub(super) async fn serve_until_stopped(self) {
        let engine = &self.broker.engine;
        self.listening.until_told_to_stop(|| {}, || engine.listen_no_more()).await;
        finish(&self.broker, self.loops).await;
    }

    /// Stops at once.
    pub async fn stop(self) {
        self.listening.stop().await;
        finish(&self.broker, self.loops).await;
    }
}

async fn finish(broker: &Broker, loops: Vec<tokio::task::JoinHandle<()>>) {
    broker.engine.drain(Duration::from_secs(5)).await;
    broker.engine.stop();
    for handle in loops {
        if let Err(error) = handle.await {
            tracing::error!(%error, "reaper.died");
        }
    }
    broker.store.close().await;
}

fn api_key_backend(
    store: &AnyStore,
    entropy: &Arc<dyn Entropy>,
) -> anyhow::Result<Arc<ApiKeyBackend>> {
    let keys: Arc<dyn KeyStore> = Arc::new(StoredKeys::new(store.clone()));
    let random = Arc::clone(entropy);
    let random = Arc::new(move |bytes: &mut [u8]| random.fill(bytes));
    Ok(Arc::new(ApiKeyBackend::new(HandlePrefix::parse("dev_")?, keys, random)))
}

fn roles(backend: &ApiKeyBackend) -> anyhow::Result<Roles> {
    let role = |name: &str, environment: &str, scope: &str| -> anyhow::Result<Role> {
        Ok(Role {
            facts: RoleFacts {
                name: name.to_owned(),
                backend: "keys".to_owned(),
                owner: "you".to_owned(),
                labels: BTreeMap::from([("environment".to_owned(), environment.to_owned())]),
            },
            kind: backend.capabilities().kind,
            ttl: Duration::from_mins(5),
            ttl_max: Duration::from_hours(1),
            ttl_min: backend.capabilities().ttl_min,
            renewable: true,
            quotas: Vec::new(),
            template: backend.template(&json!({ "scopes": [scope] }))?,
        })
    };
    Ok(Roles::new(vec![
        role("greeter", "development", "greet")?,
        role("production-deploy", "production", "deploy")?,
    ]))
}

fn authenticator(issuer: &LocalIssuer, clock: &Arc<dyn Clock>) -> anyhow::Result<Authenticator> {
    let source = |name, iss, kind| -> anyhow::Result<(IssuerConfig, Arc<dyn KeySource>)> {
        // A developer's token opens many tasks within its hour.
        let single_use = false;
        let config = IssuerConfig { kind, single_use, ..IssuerConfig::new(name, iss, AUDIENCE) };
        let keys = FixedKeys::parse(issuer.jwks().to_string().as_bytes())?;
        Ok((config, Arc::new(keys)))
    };
    let sources = vec![
        source("local", WORKLOADS, Kind::Workload)?,
        source("local-people", PEOPLE, Kind::Human)?,
    ];
    Ok(Authenticator::with_sources(sources, Arc::clone(clock))?)
}
