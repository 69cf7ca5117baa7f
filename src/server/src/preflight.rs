//! From configuration to backends and roles, and everything that is wrong with them.
//!
//! Invariant: what starts the broker is what checks the configuration; there is no second
//! way that could disagree.

use std::{collections::BTreeMap, sync::Arc};

use dayfly_backend_api_key::{ApiKeyBackend, ApiKeyConfig, KeyStore, MemoryKeyStore};
use dayfly_backend_sdk::{Backend, CanaryReport, CanaryStep, Error, ErrorKind, Timestamp};
use dayfly_lease::{Clock, Entropy, LeaseId, Store, SystemClock, SystemEntropy, quota::Quota};

use crate::{
    Role, Roles,
    config::{BackendConfig, BackendKind, Config, Fault, Faults, Given, PolicyConfig, RoleConfig},
    policy::{Policies, RoleFacts},
    root,
};

mod known;
mod table;

pub use known::known;
pub use table::table;

/// The backends by name. API-key backends are also kept as what they are, for introspection.
#[derive(Debug, Default)]
pub struct Backends {
    /// As the engine sees them.
    pub by_name: BTreeMap<String, Arc<dyn Backend>>,
    /// Those that verify keys.
    pub api_keys: Vec<Arc<ApiKeyBackend>>,
}

/// Sets up the configured backends; none is contacted yet.
pub fn backends(
    configs: &[BackendConfig],
    keys: &Arc<dyn KeyStore>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Backends, Vec<Fault>> {
    let mut backends = Backends::default();
    let mut faults = Vec::new();
    for config in configs {
        let built: Result<Arc<dyn Backend>, Vec<Fault>> = match config.kind {
            BackendKind::ApiKey => api_key(config, keys, entropy).map(|backend| {
                backends.api_keys.push(Arc::clone(&backend));
                backend as Arc<dyn Backend>
            }),
            BackendKind::Aws => aws(config),
            BackendKind::Exec => exec(config),
            BackendKind::Http => http(config),
            BackendKind::Mysql => mysql(config),
            BackendKind::Postgres => postgres(config),
            BackendKind::Rabbitmq => rabbitmq(config),
            BackendKind::Redis => redis(config),
        };
        match built {
            Ok(backend) => {
                backends.by_name.insert(config.name.clone(), backend);
            }
            Err(more) => faults.extend(more),
        }
    }
    if faults.is_empty() { Ok(backends) } else { Err(faults) }
}

fn api_key(
    config: &BackendConfig,
    keys: &Arc<dyn KeyStore>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Arc<ApiKeyBackend>, Vec<Fault>> {
    let mut settings: ApiKeyConfig = config.settings()?;
    if let Some(jwt) = &mut settings.jwt {
        jwt.signing_key.clone_from(&config.signing_key);
        if jwt.issuer.is_none() {
            // An issuer is compared to the letter, and nobody writes the slash of a bare host.
            let public = config.public_url.as_ref();
            jwt.issuer = public.map(|url| url.as_str().trim_end_matches('/').to_owned());
        }
    }
    let entropy = Arc::clone(entropy);
    let random = Arc::new(move |bytes: &mut [u8]| entropy.fill(bytes));
    let (prefix, keys) = (config.prefix.clone(), Arc::clone(keys));
    let built = ApiKeyBackend::configured(prefix, &settings, keys, random);
    built.map(Arc::new).map_err(|error| vec![config.fault("jwt", chain(&error))])
}

/// A function that sets up one kind of backend; without its feature it says so.
macro_rules! kind {
    ($name:ident, $feature:literal, $library:ident::{$backend:ident, $settings:ident}) => {
        #[cfg(feature = $feature)]
        fn $name(config: &BackendConfig) -> Result<Arc<dyn Backend>, Vec<Fault>> {
            let mut settings: $library::$settings = config.settings()?;
            settings.password.clone_from(&config.password);
            config.prefix.as_str().clone_into(&mut settings.prefix);
            match $library::$backend::new(&settings) {
                Ok(backend) => Ok(Arc::new(backend)),
                Err(error) => Err(vec![config.fault("", chain(&error))]),
            }
        }

        #[cfg(not(feature = $feature))]
        fn $name(config: &BackendConfig) -> Result<Arc<dyn Backend>, Vec<Fault>> {
            let text = concat!("this program was built without the ", $feature, " backend");
            Err(vec![config.fault("kind", text)])
        }
    };
}

kind!(aws, "aws", dayfly_backend_aws::{AwsBackend, AwsConfig});
kind!(exec, "exec", dayfly_backend_exec::{ExecBackend, ExecConfig});
kind!(http, "http", dayfly_backend_http::{HttpBackend, HttpConfig});
kind!(mysql, "mysql", dayfly_backend_mysql::{MysqlBackend, MysqlConfig});
kind!(postgres, "postgres", dayfly_backend_postgres::{PostgresBackend, PostgresConfig});
kind!(rabbitmq, "rabbitmq", dayfly_backend_rabbitmq::{RabbitmqBackend, RabbitmqConfig});
kind!(redis, "redis", dayfly_backend_redis::{RedisBackend, RedisConfig});

/// Has each role's template checked by its backend.
pub fn roles(
    configs: &[RoleConfig],
    backends: &BTreeMap<String, Arc<dyn Backend>>,
    (backend_configs, everybody): (&[BackendConfig], &[Quota]),
) -> Result<Roles, Vec<Fault>> {
    let mut roles = Vec::new();
    let mut faults = Vec::new();
    for config in configs {
        // That the backend exists was checked with the rest of the configuration.
        let Some(backend) = backends.get(&config.backend) else { continue };
        let ttl_min = backend.capabilities().ttl_min;
        if config.ttl < ttl_min {
            let text = format!("less than the backend's minimum of {} s", ttl_min.as_secs());
            faults.push(config.fault("ttl", text));
        }
        if let Some(longest) = backend.capabilities().ttl_max
            && config.ttl_max > longest
        {
            let text = format!("more than the backend's maximum of {} s", longest.as_secs());
            faults.push(config.fault("ttl_max", text));
        }
        match backend.template(&config.template) {
            Ok(template) => roles.push(Role {
                facts: facts(config),
                kind: backend.capabilities().kind,
                ttl: config.ttl,
                ttl_max: config.ttl_max,
                ttl_min,
                renewable: config.renewable,
                quotas: quotas(config, backend_configs, everybody),
                template,
            }),
            Err(error) => faults.push(config.fault("template", chain(&error))),
        }
    }
    if faults.is_empty() { Ok(Roles::new(roles)) } else { Err(faults) }
}

/// What must have room before a role is minted, the narrowest first.
fn quotas(role: &RoleConfig, backends: &[BackendConfig], everybody: &[Quota]) -> Vec<Quota> {
    let backend = backends.iter().find(|backend| backend.name == role.backend);
    let of_backend = backend.map(|backend| backend.quotas.as_slice()).unwrap_or_default();
    [role.quotas.as_slice(), everybody, of_backend].concat()
}

/// What policy is told of a role.
pub fn facts(config: &RoleConfig) -> RoleFacts {
    RoleFacts {
        name: config.name.clone(),
        backend: config.backend.clone(),
        owner: config.owner.clone(),
        labels: config.labels.clone(),
    }
}

/// Settings and templates, for the configuration's own check. Nothing is kept and nothing is
/// contacted. Must be called within a runtime, because connection pools ask for one.
pub fn inspect(
    backend_configs: &[BackendConfig],
    role_configs: &[RoleConfig],
    entropy: &Arc<dyn Entropy>,
    Given { mint_within, sealed }: Given,
) -> Vec<Fault> {
    let keys: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::new(Timestamp::EPOCH));
    let mut faults = Vec::new();
    let mut by_name = BTreeMap::new();
    for config in backend_configs {
        match backends(std::slice::from_ref(config), &keys, entropy) {
            Ok(built) => {
                if !sealed && built.by_name.values().any(|backend| backend.keeps()) {
                    let text = "what revoking needs of its answers is kept, sealed: \
                         `seal.key` is needed (32 bytes, `openssl rand -base64 32`)";
                    faults.push(config.fault("", text));
                }
                if config.rotate.is_some() {
                    let rotates = built.by_name.values().any(|backend| backend.rotates());
                    if !rotates {
                        faults.push(config.fault("rotate", "its kind has no password to change"));
                    } else if !sealed {
                        let text = "the new password is kept, sealed: `seal.key` is needed \
                             (32 bytes, `openssl rand -base64 32`)";
                        faults.push(config.fault("rotate", text));
                    }
                }
                let margin = built.by_name.values().map(|backend| backend.mint_margin()).max();
                if margin.is_some_and(|margin| margin >= mint_within) {
                    let text = "a mint of it could never be in time: it ends so long before its \
                         deadline as clocks may differ and locks be waited for, which is no less \
                         than `engine.mint_within`";
                    faults.push(config.fault("", text));
                }
                by_name.extend(built.by_name);
            }
            Err(more) => faults.extend(more),
        }
    }
    faults.extend(roles(role_configs, &by_name, (backend_configs, &[])).err().unwrap_or_default());
    faults
}

/// Mints, uses, revokes and verifies each role once. API keys go to a table in memory: what
/// would be kept in the store is proved without touching it.
pub async fn canaries(
    config: &Config,
    by_name: &BTreeMap<String, Arc<dyn Backend>>,
) -> Result<Vec<(String, CanaryReport)>, Faults> {
    let entropy = SystemEntropy::new();
    let quotas = (config.backends.as_slice(), config.quotas.as_slice());
    let roles = roles(&config.roles, by_name, quotas).map_err(Faults)?;
    let mut reports = Vec::new();
    for role in roles.iter() {
        let Some(backend) = by_name.get(&role.facts.backend) else { continue };
        let id = LeaseId::new(SystemClock.now(), &entropy);
        let report = match backend.handle(id.uuid()) {
            Ok(handle) => backend.canary(&handle, &role.template).await,
            Err(error) => {
                let error = Error::new(ErrorKind::Invalid, error.to_string());
                CanaryReport {
                    steps: vec![CanaryStep { name: "mint", result: Err(error) }],
                    ..CanaryReport::default()
                }
            }
        };
        reports.push((role.facts.name.clone(), report));
    }
    Ok(reports)
}

/// The backends as [`canaries`] and [`advice`] use them: with the passwords that `store` has,
/// where there is one.
pub async fn signed_in(
    config: &Config,
    store: Option<Arc<dyn Store>>,
) -> anyhow::Result<BTreeMap<String, Arc<dyn Backend>>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let keys: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::new(clock.now()));
    let mut backends = backends(&config.backends, &keys, &entropy).map_err(Faults)?;
    if let Some(store) = store
        && let Some(roots) = root::follow(config, &mut backends.by_name, store, (&clock, &entropy))?
    {
        roots.reading().adopt().await?;
    }
    Ok(backends.by_name)
}

/// What each backend has to say of itself and of our account there.
pub async fn advice(
    by_name: &BTreeMap<String, Arc<dyn Backend>>,
) -> Vec<(&str, Result<Vec<String>, Error>)> {
    let mut advice = Vec::new();
    for (name, backend) in by_name {
        advice.push((name.as_str(), backend.advice().await));
    }
    advice
}

/// The table of what each backend of a configuration can.
pub fn capabilities(config: &Config) -> Result<String, Faults> {
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let keys: Arc<dyn KeyStore> = Arc::new(MemoryKeyStore::new(SystemClock.now()));
    let backends = backends(&config.backends, &keys, &entropy).map_err(Faults)?.by_name;
    Ok(table(backends.iter().map(|(name, one)| (name.as_str(), one.capabilities()))))
}

/// The policies of a configuration.
pub fn policies(config: &PolicyConfig, roles: &[RoleFacts]) -> Result<Policies, Vec<Fault>> {
    Policies::load(&config.dir, roles).map_err(|faults| {
        let fault = |fault: crate::policy::PolicyFault| Fault {
            file: fault.file,
            line: fault.line.unwrap_or(0),
            column: usize::from(fault.line.is_some()),
            key: String::new(),
            message: fault.message,
            suggestion: None,
        };
        faults.into_iter().map(fault).collect()
    })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests;
