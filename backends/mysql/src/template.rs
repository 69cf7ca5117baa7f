//! What a credential may do: the template of a role.
//!
//! Invariant: no template can grant on all databases, on the server's own, the right to grant,
//! or what makes objects that act as their maker: such objects go on after it.

use std::num::NonZeroU32;

use dayfly_backend_sdk::{Plan, Template};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    authentication::Authentication,
    config::{ConfigError, Server},
    quote::{Ident, Literal, QuoteError, Sql},
};

const GRANTS_MAX: usize = 64;
const ROLES_MAX: usize = 16;
const ROLE_LEN_MAX: usize = 32;

/// What one of a role's credentials may do. Nothing that is not named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MysqlTemplate {
    /// Roles that it has, and that are in force from its login on.
    pub roles: Vec<String>,
    /// Privileges of its own.
    pub grants: Vec<Grant>,
    /// How its logins are checked; what is usual at the server when absent.
    pub authentication: Option<Authentication>,
    /// Sessions at once; the server's own bound when absent.
    pub connection_limit: Option<u16>,
    /// Logins within an hour; any number when absent.
    pub connections_per_hour: Option<NonZeroU32>,
    /// Statements within an hour; any number when absent.
    pub queries_per_hour: Option<NonZeroU32>,
    /// Statements that change something within an hour; any number when absent.
    pub updates_per_hour: Option<NonZeroU32>,
    /// Whether it may log in over TLS only.
    pub require_tls: bool,
    /// The database that the credential names.
    pub database: Option<String>,
}

/// Privileges on a database or on one of its tables.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// As the server names them: `SELECT`, `CREATE TEMPORARY TABLES`.
    pub privileges: Vec<String>,
    /// The database, by its name alone: no character of it is a wildcard.
    pub database: String,
    /// One of its tables; all of them when absent.
    #[serde(default)]
    pub table: Option<String>,
}

/// A template that is never minted from.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The other server's.
    #[error("accounts of `server = \"{server}\"` have no `authentication = \"{given}\"`")]
    Authentication {
        /// What the template names.
        given: Authentication,
        /// What the backend is.
        server: Server,
    },
    /// More than an account should have.
    #[error("{0} grants, and 64 are the most")]
    Grants(usize),
    /// It would end only with the objects that it makes possible.
    #[error(
        "`{0}` is never granted: what is made with it acts for an account that is gone, or lets \
         its holder hand on rights"
    )]
    Lasting(String),
    /// A grant of nothing.
    #[error("a grant on `{0}` names no privilege")]
    Nothing(String),
    /// A name that cannot be quoted.
    #[error("a name cannot be used")]
    Quote(#[from] QuoteError),
    /// A role whose name no role can have.
    #[error("the role `{0}` has more than 32 characters")]
    Role(String),
    /// MariaDB has one role in force at a time.
    #[error("{given} roles, and {most} is the most at this server")]
    Roles {
        /// How many the template names.
        given: usize,
        /// How many can be in force from the login on.
        most: usize,
    },
    /// It does not have the form of a template.
    #[error("it cannot be read")]
    Shape(#[source] serde_json::Error),
    /// The server's own databases.
    #[error("nothing is granted on the server's own database `{0}`")]
    Systems(String),
    /// No privilege of the server.
    #[error("`{0}` is no privilege that can be granted on a database")]
    Unknown(String),
}

/// Privileges on databases and tables that end with their holder.
const PRIVILEGES: [&str; 13] = [
    "ALTER",
    "CREATE",
    "CREATE TEMPORARY TABLES",
    "DELETE",
    "DROP",
    "EXECUTE",
    "INDEX",
    "INSERT",
    "LOCK TABLES",
    "REFERENCES",
    "SELECT",
    "SHOW VIEW",
    "UPDATE",
];

/// Those that do not: views, routines, triggers and events act as their definer.
const LASTING: [&str; 8] = [
    "ALL",
    "ALL PRIVILEGES",
    "ALTER ROUTINE",
    "CREATE ROUTINE",
    "CREATE VIEW",
    "EVENT",
    "GRANT OPTION",
    "TRIGGER",
];

const SYSTEMS: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

/// A template, checked.
#[derive(Debug)]
pub(crate) struct Recipe {
    pub(crate) roles: Vec<Literal>,
    /// Each `privileges ON object`.
    pub(crate) grants: Vec<Sql>,
    pub(crate) authentication: Authentication,
    pub(crate) connection_limit: u64,
    /// Each `MAX_…_PER_HOUR` and its number.
    pub(crate) hourly: Vec<(&'static str, u64)>,
    pub(crate) require_tls: bool,
    pub(crate) database: Option<String>,
}

impl std::fmt::Debug for Sql {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sql(…)")
    }
}

impl MysqlTemplate {
    /// Reads the template of a role.
    pub fn parse(raw: &Value) -> Result<Self, TemplateError> {
        serde_json::from_value(raw.clone()).map_err(TemplateError::Shape)
    }

    /// The template as the engine carries it. A name is all that an account's end needs.
    pub(crate) fn sealed(self, server: Server) -> Result<Template, ConfigError> {
        Ok(Template::new(Plan::default(), self.recipe(server)?))
    }

    fn recipe(self, server: Server) -> Result<Recipe, TemplateError> {
        let most = if server == Server::Mariadb { 1 } else { ROLES_MAX };
        if self.roles.len() > most {
            return Err(TemplateError::Roles { given: self.roles.len(), most });
        }
        if self.grants.len() > GRANTS_MAX {
            return Err(TemplateError::Grants(self.grants.len()));
        }
        let authentication = self.authentication.unwrap_or(Authentication::usual(server));
        if authentication.server() != server {
            return Err(TemplateError::Authentication { given: authentication, server });
        }
        let hourly = [
            (" MAX_CONNECTIONS_PER_HOUR ", self.connections_per_hour),
            (" MAX_QUERIES_PER_HOUR ", self.queries_per_hour),
            (" MAX_UPDATES_PER_HOUR ", self.updates_per_hour),
        ];
        let hourly = hourly.into_iter().filter_map(|(limit, most)| Some((limit, most?.get())));
        let role = |name: &String| {
            Ident::new(name)?;
            if name.chars().count() > ROLE_LEN_MAX {
                return Err(TemplateError::Role(name.clone()));
            }
            Ok(Literal::new(name)?)
        };
        if let Some(database) = &self.database {
            Ident::new(database)?;
        }
        Ok(Recipe {
            roles: self.roles.iter().map(role).collect::<Result<_, _>>()?,
            grants: self.grants.iter().map(grant).collect::<Result<_, _>>()?,
            authentication,
            connection_limit: self.connection_limit.map_or(0, u64::from),
            hourly: hourly.map(|(limit, most)| (limit, u64::from(most))).collect(),
            require_tls: self.require_tls,
            database: self.database,
        })
    }
}

fn grant(grant: &Grant) -> Result<Sql, TemplateError> {
    if grant.privileges.is_empty() {
        return Err(TemplateError::Nothing(grant.database.clone()));
    }
    // The server's names are the same in every case; ours for a database may or may not be.
    if SYSTEMS.contains(&grant.database.to_lowercase().as_str()) {
        return Err(TemplateError::Systems(grant.database.clone()));
    }
    let privileges =
        grant.privileges.iter().map(|name| privilege(name)).collect::<Result<Vec<_>, _>>()?;
    let sql = Sql::new().list(privileges, Sql::text).text(" ON ");
    Ok(match &grant.table {
        None => sql.ident(&Ident::granted_database(&grant.database)?).text(".*"),
        Some(table) => {
            sql.ident(&Ident::new(&grant.database)?).text(".").ident(&Ident::new(table)?)
        }
    })
}

fn privilege(name: &str) -> Result<&'static str, TemplateError> {
    let upper = name.to_uppercase();
    if LASTING.contains(&upper.as_str()) {
        return Err(TemplateError::Lasting(name.to_owned()));
    }
    let known = PRIVILEGES.into_iter().find(|known| *known == upper);
    known.ok_or_else(|| TemplateError::Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn recipe(raw: &Value) -> Result<Recipe, String> {
        let template = MysqlTemplate::parse(raw).map_err(|error| error.to_string())?;
        template.recipe(Server::Mariadb).map_err(|error| error.to_string())
    }

    fn grants(raw: &Value) -> Vec<String> {
        let recipe = recipe(&json!({ "grants": raw })).unwrap();
        recipe.grants.into_iter().map(Sql::into_text).collect()
    }

    #[test]
    fn a_grant_names_one_database_or_table() {
        let raw = json!([
            { "privileges": ["select", "SHOW VIEW"], "database": "a_b" },
            { "privileges": ["INSERT"], "database": "a_b", "table": "t_1" },
        ]);
        assert_eq!(grants(&raw), ["SELECT, SHOW VIEW ON `a\\_b`.*", "INSERT ON `a_b`.`t_1`"]);
    }

    #[test]
    fn what_outlives_its_holder_is_never_granted() {
        for (privilege, text) in [
            ("ALL", "is never granted"),
            ("trigger", "is never granted"),
            ("Create View", "is never granted"),
            ("GRANT OPTION", "is never granted"),
            ("SUPER", "is no privilege"),
            ("SELECT, FILE", "is no privilege"),
            ("SELECT (a)", "is no privilege"),
            ("", "is no privilege"),
        ] {
            let raw = json!({ "grants": [{ "privileges": [privilege], "database": "a" }] });
            let error = recipe(&raw).unwrap_err();
            assert!(error.contains(text), "{privilege}: {error}");
        }
    }

    #[test]
    fn each_rule_has_its_fault() {
        for (raw, text) in [
            (json!({ "grants": [{ "privileges": [], "database": "a" }] }), "names no privilege"),
            (json!({ "grants": [{ "privileges": ["SELECT"], "database": "MySQL" }] }), "own"),
            (json!({ "grants": [{ "privileges": ["SELECT"], "database": "sys" }] }), "own"),
            (json!({ "grants": [{ "privileges": ["SELECT"], "database": "" }] }), "name"),
            (json!({ "grants": [{ "privileges": ["SELECT"] }] }), "cannot be read"),
            (json!({ "roles": ["a", "b"] }), "2 roles, and 1 is the most"),
            (json!({ "roles": ["r".repeat(33)] }), "more than 32"),
            (json!({ "roles": ["a\0"] }), "cannot be used"),
            (json!({ "database": "a".repeat(65) }), "cannot be used"),
            (json!({ "role": "a" }), "cannot be read"),
            (json!({ "authentication": "sha256_password" }), "cannot be read"),
            (json!({ "authentication": "caching_sha2_password" }), "have no `authentication"),
            // The server takes it for any number.
            (json!({ "queries_per_hour": 0 }), "cannot be read"),
        ] {
            let error = recipe(&raw).unwrap_err();
            assert!(error.contains(text), "{raw}: {error}");
        }
    }
    #[test]
    fn an_account_has_the_authentication_of_its_server() {
        let of = |raw: &Value, server| {
            let recipe = MysqlTemplate::parse(raw).unwrap().recipe(server);
            recipe.map(|recipe| recipe.authentication)
        };
        let none = json!({});
        let ed25519 = json!({ "authentication": "ed25519" });
        assert_eq!(of(&none, Server::Mysql).unwrap(), Authentication::CachingSha2Password);
        assert_eq!(of(&none, Server::Mariadb).unwrap(), Authentication::MysqlNativePassword);
        assert_eq!(of(&ed25519, Server::Mariadb).unwrap(), Authentication::Ed25519);
        let error = of(&ed25519, Server::Mysql).unwrap_err();
        assert!(matches!(error, TemplateError::Authentication { .. }), "{error}");
    }

    #[test]
    fn limits_that_are_left_out_are_not_set() {
        let raw = json!({ "queries_per_hour": 7 });
        assert_eq!(recipe(&raw).unwrap().hourly, [(" MAX_QUERIES_PER_HOUR ", 7)]);
    }
}
