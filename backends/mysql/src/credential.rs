//! What a workload is given.
//!
//! Invariant: user name and password are of characters that mean nothing to a shell or a URL;
//! everything else in the URL is percent-encoded.

use data_encoding::BASE32_NOPAD;
use dayfly_backend_sdk::{Credential, Handle, Name, Secret, percent_encode};
use ring::{
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};

use crate::{config::MysqlConfig, hash::SALT_LEN};

/// Random bits of a password: 256.
const PASSWORD_BYTES: usize = 32;

/// Which variable carries which field. `MYSQL_PWD` and `MYSQL_HOST` are those of MySQL's own
/// programs; the others are what images and frameworks have settled on.
const VARIABLES: &[(&str, &str)] = &[
    ("MYSQL_HOST", "host"),
    ("MYSQL_TCP_PORT", "port"),
    ("MYSQL_USER", "username"),
    ("MYSQL_PWD", "password"),
    ("DATABASE_URL", "url"),
];
/// The same where the role is for one database.
const DATABASE: (&str, &str) = ("MYSQL_DATABASE", "database");

/// The same for who asks before there is a credential.
pub(crate) fn variables(of_a_database: bool) -> Vec<(Name, Name)> {
    let all = VARIABLES.iter().chain(of_a_database.then_some(&DATABASE));
    all.map(|(variable, field)| ((*variable).into(), (*field).into())).collect()
}

/// Where workloads find the server.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    pub(crate) fn of(config: &MysqlConfig) -> Self {
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
        database: Option<&str>,
    ) -> Credential {
        let url = self.url(handle.as_str(), password.expose(), database.unwrap_or_default());
        let mut credential = Credential::new()
            .public("username", handle.as_str())
            .secret("password", password)
            .public("host", self.host.clone())
            .public("port", self.port.to_string())
            .secret("url", Secret::new(url));
        if let Some(database) = database {
            credential = credential.public("database", database);
        }
        let variables = variables(database.is_some()).into_iter();
        variables.fold(credential, |it, (variable, field)| it.variable(variable, field))
    }

    /// A socket's path cannot stand where a host does, and goes as a parameter.
    fn url(&self, user: &str, password: &str, database: &str) -> String {
        let database = percent_encode(database);
        if self.host.starts_with('/') {
            let socket = percent_encode(&self.host);
            return format!("mysql://{user}:{password}@localhost/{database}?socket={socket}");
        }
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            percent_encode(&self.host)
        };
        format!("mysql://{user}:{password}@{host}:{}/{database}", self.port)
    }
}

/// A new password and the salt of its hash. The salt is text without `$` or zero bytes.
pub(crate) fn random_password(
    random: &SystemRandom,
) -> Result<(Secret, [u8; SALT_LEN]), Unspecified> {
    let mut bytes = [0; PASSWORD_BYTES];
    let mut salt = [0; SALT_LEN];
    random.fill(&mut bytes)?;
    random.fill(&mut salt)?;
    for byte in &mut salt {
        *byte = b'A' + *byte % 26;
    }
    Ok((Secret::new(BASE32_NOPAD.encode(&bytes)), salt))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str) -> Address {
        Address { host: host.to_owned(), port: 3307 }
    }

    #[test]
    fn the_url_is_read_back_whatever_the_database_is_called() {
        let url = address("db.example").url("df_a", "PW", "a b/ü?#%");
        let url = url::Url::parse(&url).unwrap();
        assert_eq!((url.host_str(), url.port()), (Some("db.example"), Some(3307)));
        assert_eq!((url.username(), url.password()), ("df_a", Some("PW")));
        assert_eq!(url.path(), "/a%20b%2F%C3%BC%3F%23%25");
        assert_eq!((url.query(), url.fragment()), (None, None));
    }

    #[test]
    fn an_address_and_a_socket_have_their_own_forms() {
        assert_eq!(address("::1").url("u", "p", "d"), "mysql://u:p@[::1]:3307/d");
        assert_eq!(
            address("/run/my sql.sock").url("u", "p", "d"),
            "mysql://u:p@localhost/d?socket=%2Frun%2Fmy%20sql.sock"
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
        assert!(salt_one.iter().all(u8::is_ascii_uppercase));
    }
}
