//! `[[backend]]`: the systems that mint.
//!
//! Invariant: what a backend's own settings mean only the backend knows; they are kept with
//! their places until it reads them. No password and no key that signs stands in them.

use dayfly_backend_sdk::{HandlePrefix, Secret};
use dayfly_lease::quota::Quota;
use serde::de::DeserializeOwned;
use url::Url;

use super::{
    audit::schedule,
    fault::{Fault, Wrong},
    foreign, quotas,
    section::{Origin, Reading, Section, name, one_of, text},
    tree::{Entry, Item, Table, Value},
};

/// `[[backend]]`.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// What roles call it.
    pub name: String,
    /// Which kind of system it is.
    pub kind: BackendKind,
    /// What all its handles begin with. Whatever bears it is ours, so each has its own.
    pub prefix: HandlePrefix,
    /// Dayfly's own password there, where the kind has one.
    pub password: Option<Secret>,
    /// `jwt.signing_key`: with what its keys are signed, where they are.
    pub signing_key: Option<Secret>,
    /// `server.public_url`: what a signed key calls its issuer when `jwt.issuer` is absent.
    pub public_url: Option<Url>,
    /// When Dayfly changes its own password there: cron with seconds, in UTC.
    pub rotate: Option<String>,
    /// `quotas`: how many leases of it, and how fast.
    pub quotas: Vec<Quota>,
    settings: Table,
    origin: Origin,
}

/// Which kind of system a backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// Keys that Dayfly itself verifies.
    ApiKey,
    /// Sessions and users of an AWS account.
    Aws,
    /// What an external program makes.
    Exec,
    /// What an HTTP API makes, by configuration.
    Http,
    /// Accounts of a MySQL or MariaDB server.
    Mysql,
    /// Users of a PostgreSQL server.
    Postgres,
    /// Users of a RabbitMQ broker.
    Rabbitmq,
    /// ACL users of Redis or Valkey nodes.
    Redis,
}

impl BackendKind {
    /// All of them, in the order in which messages name them.
    pub const ALL: [Self; 8] = [
        Self::ApiKey,
        Self::Aws,
        Self::Exec,
        Self::Http,
        Self::Mysql,
        Self::Postgres,
        Self::Rabbitmq,
        Self::Redis,
    ];

    /// The kind as it stands in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api-key",
            Self::Aws => "aws",
            Self::Exec => "exec",
            Self::Http => "http",
            Self::Mysql => "mysql",
            Self::Postgres => "postgres",
            Self::Rabbitmq => "rabbitmq",
            Self::Redis => "redis",
        }
    }
}

impl BackendConfig {
    /// The kind's own settings, as its type has them. Paths under keys that end in `_file`
    /// are absolute.
    ///
    /// # Errors
    /// Every fault, with its place.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T, Vec<Fault>> {
        let read = foreign::deserialize(&self.origin.at, &self.origin.path, &self.settings);
        read.map_err(|refused| [refused.absent, refused.wrong].concat())
    }

    /// A fault of this backend at `key`, a dotted path within its section.
    pub fn fault(&self, key: &str, message: impl Into<String>) -> Fault {
        self.origin.fault(key, message)
    }
}

/// Reads a backend of a server that clients reach at `public_url`.
pub(super) fn read(section: &Section<'_>, public_url: Option<&Url>) -> Option<BackendConfig> {
    let kinds = BackendKind::ALL.map(|kind| (kind.as_str(), kind));
    let name = section.required("name", name);
    let kind = section.required("kind", one_of(&kinds));
    let prefix = section.required("prefix", prefix);
    let password = match kind {
        Some(
            BackendKind::Aws
            | BackendKind::Exec
            | BackendKind::Http
            | BackendKind::Mysql
            | BackendKind::Postgres
            | BackendKind::Rabbitmq
            | BackendKind::Redis,
        ) => section.secret("password"),
        Some(BackendKind::ApiKey) | None => None,
    };
    let jwt = match kind {
        Some(BackendKind::ApiKey) => section.table("jwt", jwt),
        Some(
            BackendKind::Aws
            | BackendKind::Exec
            | BackendKind::Http
            | BackendKind::Mysql
            | BackendKind::Postgres
            | BackendKind::Rabbitmq
            | BackendKind::Redis,
        )
        | None => None,
    };
    let rotate = section.optional("rotate", schedule);
    let quotas = section.table("quotas", quotas::of_backend).unwrap_or_default();
    let mut settings = section.rest();
    settings.resolve_files(section.context.base);
    let signing_key = match (jwt, section.table.0.get("jwt")) {
        (Some((signing_key, rest)), Some(Entry { key, item })) => {
            let item = Item { at: item.at.clone(), value: Value::Table(rest) };
            settings.0.insert("jwt".to_owned(), Entry { key: key.clone(), item });
            // Without it the backend would only find once more that it is not there.
            Some(signing_key?)
        }
        (Some(_), None) | (None, _) => None,
    };
    let origin = section.origin();
    Some(BackendConfig {
        name: name?,
        kind: kind?,
        prefix: prefix?,
        password,
        signing_key,
        public_url: public_url.cloned(),
        rotate,
        quotas,
        settings,
        origin,
    })
}

/// `[backend.jwt]`: the key that signs, which is a secret, and the rest, which is the kind's own.
fn jwt(section: &Section<'_>) -> (Option<Secret>, Table) {
    if section.item("signing_key").is_none() {
        section.missing("signing_key");
    }
    (section.secret("signing_key"), section.rest())
}

fn prefix(item: &Item) -> Reading<HandlePrefix> {
    HandlePrefix::parse(text(item)?).map_err(|error| Wrong::from(error.to_string()))
}
