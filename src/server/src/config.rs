//! The configuration: TOML, one file or a directory of files.
//!
//! Invariant: it is read whole and checked whole. A [`Config`] has no fault, and where there
//! are faults all of them are reported, each with its line.

mod audit;
mod aws_identity;
mod backend;
mod cluster;
mod duration;
mod engine;
mod fault;
mod foreign;
mod issuer;
mod login;
mod policies;
mod poller;
mod quotas;
mod role;
mod seal;
mod secret;
mod section;
mod server;
mod source;
mod store;
mod stream;
mod tasks;
mod telemetry;
mod tree;
mod trust_domain;
mod webhook;

use std::{path::Path, time::Duration};

use crate::identity::{AwsIdentityConfig, ClusterConfig, IssuerConfig, TrustDomainConfig};

pub use audit::{AuditConfig, KeyBytes};
pub use backend::{BackendConfig, BackendKind};
pub use duration::{DurationError, parse_duration};
pub use engine::EngineConfig;
pub use fault::{Fault, Faults};
pub use login::{LoginConfig, LoginToken};
pub use policies::PolicyConfig;
pub use poller::PollerConfig;
pub use role::RoleConfig;
pub use seal::SealConfig;
pub use secret::SecretSource;
pub use server::{ClientCertificates, LimitsConfig, ServerConfig, TlsConfig};
pub use store::StoreConfig;
pub use stream::StreamConfig;
pub use tasks::TaskConfig;
pub use telemetry::{LogFormat, TelemetryConfig};
pub use webhook::{HookKind, WebhookConfig};

use dayfly_lease::quota::Quota;

use fault::{At, Report, Wrong};
use section::{Context, Section};
use tree::{Table, Value};

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: ServerConfig,
    /// `[store]`
    pub store: StoreConfig,
    /// `store.keep_ended`: how long leases and tasks are kept after their end.
    pub keep_ended: Duration,
    /// `[engine]`
    pub engine: EngineConfig,
    /// `[audit]`
    pub audit: AuditConfig,
    /// `[seal]`
    pub seal: Option<SealConfig>,
    /// `[tasks]`
    pub tasks: TaskConfig,
    /// `[policies]`
    pub policies: PolicyConfig,
    /// `[[issuer]]`
    pub issuers: Vec<IssuerConfig>,
    /// `[[trust_domain]]`
    pub trust_domains: Vec<TrustDomainConfig>,
    /// `[[aws_identity]]`
    pub aws_identities: Vec<AwsIdentityConfig>,
    /// `[[cluster]]`
    pub clusters: Vec<ClusterConfig>,
    /// `[[backend]]`
    pub backends: Vec<BackendConfig>,
    /// `[[role]]`
    pub roles: Vec<RoleConfig>,
    /// `[quotas]`: of every principal.
    pub quotas: Vec<Quota>,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[[webhook]]`
    pub webhooks: Vec<WebhookConfig>,
    /// `[[poller]]`
    pub pollers: Vec<PollerConfig>,
    /// `[[ssf]]`
    pub streams: Vec<StreamConfig>,
    /// `[login]`
    pub login: Option<LoginConfig>,
}

/// The environment: the value of a variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What the backends themselves find wrong with their settings and with the templates of
/// their roles. It is asked even when other sections are at fault, unless what is there is not
/// TOML.
pub type Inspect<'a> =
    &'a dyn Fn(&[BackendConfig], &[RoleConfig], Option<&PolicyConfig>, Given) -> Vec<Fault>;

/// What other sections give backends to work with.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// `engine.mint_within`: how long a mint may take.
    pub mint_within: Duration,
    /// There is a key to seal with.
    pub sealed: bool,
}

/// Reads a file, or all `*.toml` files of a directory.
///
/// # Errors
/// Everything that is wrong.
pub fn load(path: &Path, env: Env<'_>) -> Result<Config, Faults> {
    load_with(path, env, &|_, _, _, _| Vec::new())
}

/// As [`load`], and asks `inspect` too.
///
/// # Errors
/// Everything that is wrong.
pub fn load_with(path: &Path, env: Env<'_>, inspect: Inspect<'_>) -> Result<Config, Faults> {
    let report = Report::default();
    let found = source::find(path).and_then(|found| Ok((found, std::path::absolute(path)?)));
    let (files, absolute) = match found {
        Ok(found) => found,
        Err(error) => {
            let fault = At::file(&path.display().to_string()).fault("", error.to_string());
            return Err(Faults(vec![fault]));
        }
    };
    let base = if absolute.is_dir() { Some(absolute.as_path()) } else { absolute.parent() };
    let mut root = Table::default();
    for file in files {
        let name = file.display().to_string();
        match source::read(&file) {
            Ok(text) => source::merge(&mut root, tree::parse(&text, &name, &report), &report),
            Err(fault) => report.note_damage(fault),
        }
    }
    let context = Context { base: base.unwrap_or(path), env, report: &report };
    let config = read(&root, &path.display().to_string(), context, inspect);
    finish(config, report)
}

/// Reads a text as [`load`] would read the file `file_name` in `base_dir`.
///
/// # Errors
/// Everything that is wrong.
pub fn parse(text: &str, file_name: &str, base_dir: &Path, env: Env<'_>) -> Result<Config, Faults> {
    let report = Report::default();
    let root = tree::parse(text, file_name, &report);
    let context = Context { base: base_dir, env, report: &report };
    let config = read(&root, file_name, context, &|_, _, _, _| Vec::new());
    finish(config, report)
}

fn finish(config: Option<Config>, report: Report) -> Result<Config, Faults> {
    let faults = report.into_faults();
    config.filter(|_| faults.is_empty()).ok_or(Faults(faults))
}

/// What no two sections of a list have in common.
const UNIQUE: [(&str, &str); 6] = [
    ("issuer", "issuer"),
    ("backend", "name"),
    ("role", "name"),
    ("webhook", "name"),
    ("poller", "name"),
    ("ssf", "name"),
];

fn read(root: &Table, file: &str, context: Context<'_>, inspect: Inspect<'_>) -> Option<Config> {
    let top = At { line: 1, column: 1, ..At::file(file) };
    Section::read(context, (String::new(), &top, root), |root| {
        for key in ["store", "policies"] {
            if root.item(key).is_none() {
                root.missing_section(key);
            }
        }
        let server = root.table("server", server::read).unwrap_or_default();
        let store = root.table("store", store::read).flatten();
        let keep_ended = store.as_ref().map(|(_, keep_ended)| *keep_ended);
        let store = store.map(|(store, _)| store);
        let engine = root.table("engine", engine::read).unwrap_or_default();
        let audit = root.table("audit", audit::read).unwrap_or_default();
        let seal = root.table("seal", seal::read).flatten();
        let tasks = root.table("tasks", |it| tasks::read(it, &server)).unwrap_or_default();
        let policies = root.table("policies", policies::read).flatten();
        let issuers = root.each("issuer", issuer::read);
        let trust_domains = root.each("trust_domain", trust_domain::read);
        let public_url = server.public_url.as_ref();
        let aws_identities =
            root.each("aws_identity", |section| aws_identity::read(section, public_url));
        aws_identity::check(root, &aws_identities);
        let clusters = cluster::read_all(root, &issuers);
        let backends = root.each("backend", |section| backend::read(section, public_url));
        let names = texts(root, "backend", "name");
        let names: Vec<_> = names.into_iter().map(|(name, ..)| name).collect();
        let roles = root.each("role", |section| role::read(section, &names));
        let quotas = root.table("quotas", quotas::of_everybody).unwrap_or_default();
        let telemetry = root.table("telemetry", telemetry::read).unwrap_or_default();
        let (webhooks, pollers, streams) = tellers(root, &issuers);
        let login = how_to_sign_in(root, &issuers);
        check_names(root);
        trust_domain::check(root, &server);
        check_prefixes(root);
        if matches!(store, Some(StoreConfig::Postgres { .. })) {
            check_signing_key(root);
        }
        if !context.report.is_damaged() {
            // Rules name roles and backends, so they are judged only when all of those are known.
            let complete = declared(root, "backend") == backends.len()
                && declared(root, "role") == roles.len();
            let rules = policies.as_ref().filter(|_| complete);
            let (mint_within, sealed) = (engine.mint_within, root.item("seal").is_some());
            for fault in inspect(&backends, &roles, rules, Given { mint_within, sealed }) {
                context.report.note(fault);
            }
        }
        Some(Config {
            server,
            store: store?,
            keep_ended: keep_ended?,
            engine,
            audit,
            seal,
            tasks,
            policies: policies?,
            issuers,
            trust_domains,
            aws_identities,
            clusters,
            backends,
            roles,
            quotas,
            telemetry,
            webhooks,
            pollers,
            streams,
            login,
        })
    })
}

/// How many `[[list]]` sections there are, with those that are at fault.
fn declared(root: &Section<'_>, list: &'static str) -> usize {
    match root.item(list).map(|item| &item.value) {
        Some(Value::Array(items)) => items.len(),
        _ => 0,
    }
}

/// Whoever may tell us that something of an issuer has ended, by itself or when it is asked.
fn tellers(
    root: &Section<'_>,
    issuers: &[IssuerConfig],
) -> (Vec<WebhookConfig>, Vec<PollerConfig>, Vec<StreamConfig>) {
    let names = |list| texts(root, list, "name").into_iter().map(|(name, ..)| name);
    let trusted: Vec<_> = names("issuer").collect();
    let is_taken = |actor: &str| ISSUERS.into_iter().flat_map(names).any(|name| name == actor);
    let taken = is_taken(webhook::ACTOR);
    let webhooks = root.each("webhook", |section| webhook::read(section, &trusted, taken));
    let taken = is_taken(poller::ACTOR);
    let pollers = root.each("poller", |section| poller::read(section, &trusted, issuers, taken));
    webhook::check_kinds(root, &webhooks, &pollers);
    (webhooks, pollers, root.each("ssf", |section| stream::read(section, &trusted)))
}

fn how_to_sign_in(root: &Section<'_>, issuers: &[IssuerConfig]) -> Option<LoginConfig> {
    let names = texts(root, "issuer", "name");
    let names: Vec<_> = names.into_iter().map(|(name, ..)| name).collect();
    root.table("login", |section| login::read(section, &names, issuers)).flatten()
}

/// The texts under `key` of all `[[list]]` sections, in order: text, place, dotted path.
/// From the tree, so that a section that is at fault elsewhere still counts.
fn texts<'a>(
    root: &Section<'a>,
    list: &'static str,
    key: &'static str,
) -> Vec<(&'a str, &'a At, String)> {
    let Some(Value::Array(items)) = root.item(list).map(|item| &item.value) else {
        return Vec::new();
    };
    let tables = items.iter().enumerate().filter_map(|(index, item)| match &item.value {
        Value::Table(table) => Some((index, table)),
        Value::Array(_)
        | Value::Flag(_)
        | Value::Float(_)
        | Value::Integer(_)
        | Value::Text(_)
        | Value::Time(_) => None,
    });
    let found = tables.filter_map(|(index, table)| {
        let path = match table.text("name") {
            Some(name) => format!("{list}.{name}.{key}"),
            None => format!("{list}[{index}].{key}"),
        };
        let (text, at) = match (list, key) {
            ("issuer", "issuer") => issuer::url(table)?,
            _ => (table.text(key)?, &table.item(key)?.at),
        };
        Some((text, at, path))
    });
    found.collect()
}

/// The lists of whoever vouches for callers.
const ISSUERS: [&str; 4] = ["issuer", "trust_domain", "aws_identity", "cluster"];

fn check_names(root: &Section<'_>) {
    // A principal's id begins with the name of its issuer, whatever kind of issuer that is.
    let names: Vec<_> = ISSUERS.into_iter().flat_map(|list| texts(root, list, "name")).collect();
    note_repeated(root, &names, "issuer", "name");
    for (list, key) in UNIQUE {
        note_repeated(root, &texts(root, list, key), list, key);
    }
}

fn note_repeated(root: &Section<'_>, texts: &[(&str, &At, String)], list: &str, key: &str) {
    for (index, (text, at, path)) in texts.iter().enumerate() {
        let first = texts.iter().take(index).find(|(other, ..)| other == text);
        if let Some((_, first, _)) = first {
            let message = format!("another {list} has this `{key}`, at {first}");
            root.context.report.note(at.fault(path, message));
        }
    }
}

/// Whatever bears a prefix belongs to its backend alone, so no prefix may begin another.
fn check_prefixes(root: &Section<'_>) {
    let prefixes = texts(root, "backend", "prefix");
    for (index, (prefix, at, path)) in prefixes.iter().enumerate() {
        let clash = |other: &str| other.starts_with(prefix) || prefix.starts_with(other);
        let first = prefixes.iter().take(index).find(|(other, ..)| clash(other));
        if let Some((other, first, _)) = first {
            let what = if other == prefix { "it is" } else { "it overlaps" };
            let message = format!(
                "{what} the prefix at {first}; each backend would kill the other's credentials"
            );
            root.context.report.note(at.fault(path, message));
        }
    }
}

fn check_signing_key(root: &Section<'_>) {
    let audit = root.item("audit");
    let given = match audit.map(|item| &item.value) {
        Some(Value::Table(table)) => table.item("signing_key").is_some(),
        _ => false,
    };
    if !given {
        let at = audit.map_or(root.at, |audit| &audit.at);
        let wrong = Wrong::from("the store is PostgreSQL, so all replicas need the same key here");
        root.context.report.note_absent(at.fault("audit.signing_key", wrong));
    }
}

#[cfg(test)]
mod tests;
