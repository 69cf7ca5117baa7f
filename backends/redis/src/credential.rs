//! What a workload is given.
//!
//! Invariant: user name and password are of characters that mean nothing to a shell or a URL.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use dayfly_backend_sdk::{Credential, Error, ErrorKind, Handle, Name, Secret};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};

use crate::config::{Place, RedisConfig, Tls};

/// Random bits of a password: 256.
const PASSWORD_BYTES: usize = 32;

/// Which variable carries which field, as clients read them.
const VARIABLES: &[(&str, &str)] = &[("REDISCLI_AUTH", "password"), ("REDIS_URL", "url")];

/// The same for who asks before there is a credential.
pub(crate) fn variables() -> Vec<(Name, Name)> {
    VARIABLES.iter().map(|(variable, field)| ((*variable).into(), (*field).into())).collect()
}

/// Where workloads find the first node.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    host: String,
    port: u16,
    tls: Tls,
}

impl Address {
    pub(crate) fn of(config: &RedisConfig, first: &Place) -> Self {
        Self {
            host: config.public_host.clone().unwrap_or_else(|| first.host.clone()),
            port: config.public_port.unwrap_or(first.port),
            tls: config.tls,
        }
    }

    /// The whole credential, with the variables that clients read.
    pub(crate) fn credential(
        &self,
        handle: &Handle,
        password: Secret,
        database: u16,
    ) -> Credential {
        let url = self.url(handle.as_str(), password.expose(), database);
        let credential = Credential::new()
            .public("username", handle.as_str())
            .secret("password", password)
            .public("host", self.host.clone())
            .public("port", self.port.to_string())
            .public("database", database.to_string())
            .secret("url", Secret::new(url));
        VARIABLES.iter().fold(credential, |it, (variable, field)| it.variable(*variable, *field))
    }

    /// The form of the provisional registration of `redis` and `rediss` at IANA.
    fn url(&self, user: &str, password: &str, database: u16) -> String {
        let scheme = if self.tls == Tls::Disable { "redis" } else { "rediss" };
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("{scheme}://{user}:{password}@{host}:{}/{database}", self.port)
    }
}

/// A new password, and the hash of it that the server is told (`#` and SHA-256 in hex).
pub(crate) fn random_password(random: &SystemRandom) -> Result<(Secret, String), Error> {
    let mut bytes = [0; PASSWORD_BYTES];
    random.fill(&mut bytes).map_err(|_| {
        Error::new(ErrorKind::Unavailable, "the operating system has no random numbers")
    })?;
    let password = Secret::new(BASE32_NOPAD.encode(&bytes));
    let hash = hash(&password);
    Ok((password, hash))
}

/// A password as an ACL rule that does not show it.
pub(crate) fn hash(password: &Secret) -> String {
    let hash = digest::digest(&digest::SHA256, password.expose().as_bytes());
    format!("#{}", HEXLOWER.encode(hash.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_says_how_and_where() {
        let url = |host: &str, tls| {
            Address { host: host.to_owned(), port: 7000, tls }.url("df_a", "PW", 3)
        };
        assert_eq!(url("cache", Tls::VerifyFull), "rediss://df_a:PW@cache:7000/3");
        assert_eq!(url("::1", Tls::Disable), "redis://df_a:PW@[::1]:7000/3");
    }

    #[test]
    fn the_server_is_told_the_hash_alone() {
        let (password, hash) = random_password(&SystemRandom::new()).unwrap();
        assert_eq!((password.expose().len(), hash.len()), (52, 65));
        assert!(!hash.contains(password.expose()));
    }
}
