//! What a workload is given.
//!
//! Invariant: user name and password are of characters that mean nothing to a shell or a
//! URL; everything else in the URL is percent-encoded.

use data_encoding::BASE32_NOPAD;
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Handle, Name, Secret, percent_encode};
use ring::{
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};

use crate::{config::PostgresConfig, scram::SALT_LEN};

/// Random bits of a password: 256.
const PASSWORD_BYTES: usize = 32;

/// Which variable carries which field, as clients read them.
const VARIABLES: &[(&str, &str)] = &[
    ("PGHOST", "host"),
    ("PGPORT", "port"),
    ("PGUSER", "username"),
    ("PGPASSWORD", "password"),
    ("PGDATABASE", "database"),
    ("DATABASE_URL", "url"),
];

/// The same for who asks before there is a credential.
pub(crate) fn variables() -> Vec<(Name, Name)> {
    VARIABLES.iter().map(|(variable, field)| ((*variable).into(), (*field).into())).collect()
}

/// Where workloads find the server.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    pub(crate) fn of(config: &PostgresConfig) -> Self {
        Self {
            host: config.public_host.clone().unwrap_or_else(|| config.host.clone()),
            port: config.public_port.unwrap_or(config.port),
        }
    }

    /// The whole credential, with the variables that clients read.
    pub(crate) fn credential(
        &self,
        handle: &Handle,
        password: Secret,
        database: &str,
    ) -> Credential {
        let url = self.url(handle.as_str(), password.expose(), database);
        let credential = Credential::new()
            .public("username", handle.as_str())
            .secret("password", password)
            .public("host", self.host.clone())
            .public("port", self.port.to_string())
            .public("database", database)
            .secret("url", Secret::new(url));
        VARIABLES.iter().fold(credential, |it, (variable, field)| it.variable(*variable, *field))
    }

    /// libpq's form. A socket directory cannot stand where a host does, and goes as a
    /// parameter.
    fn url(&self, user: &str, password: &str, database: &str) -> String {
        let (user, password) = (percent_encode(user), percent_encode(password));
        let (database, port) = (percent_encode(database), self.port);
        if self.host.starts_with('/') {
            let directory = percent_encode(&self.host);
            return format!(
                "postgres://{user}:{password}@/{database}?host={directory}&port={port}"
            );
        }
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            percent_encode(&self.host)
        };
        format!("postgres://{user}:{password}@{host}:{port}/{database}")
    }
}

/// A new password and the salt of its verifier.
pub(crate) fn random_password(
    random: &SystemRandom,
) -> Result<(Secret, [u8; SALT_LEN]), Unspecified> {
    let mut bytes = [0; PASSWORD_BYTES];
    let mut salt = [0; SALT_LEN];
    random.fill(&mut bytes)?;
    random.fill(&mut salt)?;
    Ok((Secret::new(BASE32_NOPAD.encode(&bytes)), salt))
}

/// That there is no password without them.
pub(crate) fn no_random_numbers(_: Unspecified) -> Error {
    Error::new(ErrorKind::Unavailable, "the operating system has no random numbers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> Address {
        Address { host: host.to_owned(), port: 5433 }
    }

    #[test]
    fn the_url_is_read_back_whatever_the_database_is_called() {
        let url = address("db.example").url("dayfly_a", "PW", "a b/ü?#%");
        let url = url::Url::parse(&url).unwrap();
        assert_eq!((url.host_str(), url.port()), (Some("db.example"), Some(5433)));
        assert_eq!((url.username(), url.password()), ("dayfly_a", Some("PW")));
        assert_eq!(url.path(), "/a%20b%2F%C3%BC%3F%23%25");
        assert_eq!((url.query(), url.fragment()), (None, None));
    }

    #[test]
    fn an_address_and_a_socket_have_their_own_forms() {
        assert_eq!(address("::1").url("u", "p", "d"), "postgres://u:p@[::1]:5433/d");
        assert_eq!(
            address("/run/pg sock").url("u", "p", "d"),
            "postgres://u:p@/d?host=%2Frun%2Fpg%20sock&port=5433"
        );
    }

    #[test]
    fn passwords_are_random_and_plain() {
        let random = SystemRandom::new();
        let (one, salt_one) = random_password(&random).unwrap();
        let (two, salt_two) = random_password(&random).unwrap();
        assert_ne!(one, two);
        assert_ne!(salt_one, salt_two);
        assert_eq!(one.expose().len(), 52);
        assert!(one.expose().bytes().all(|c| c.is_ascii_alphanumeric()));
    }
}
