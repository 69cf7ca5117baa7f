//! What a workload is given.
//!
//! Invariant: user name and password are of characters that mean nothing to a shell or a URL;
//! everything else in the URL is percent-encoded.

use data_encoding::{BASE32_NOPAD, BASE64};
use dayfly_backend_sdk::{Credential, Handle, Name, Secret, percent_encode};
use ring::{
    digest::{SHA256, digest},
    error::Unspecified,
    rand::{SecureRandom, SystemRandom},
};
use url::Url;

use crate::config::RabbitmqConfig;

/// Random bits of a password: 256.
const PASSWORD_BYTES: usize = 32;
const SALT_LEN: usize = 4;

/// Which variable carries which field, as clients read them.
const VARIABLES: &[(&str, &str)] = &[("AMQP_URL", "url")];

/// The same for who asks before there is a credential.
pub(crate) fn variables() -> Vec<(Name, Name)> {
    VARIABLES.iter().map(|(variable, field)| ((*variable).into(), (*field).into())).collect()
}

/// Where workloads find the broker.
#[derive(Clone, Debug)]
pub(crate) struct Address {
    host: String,
    port: u16,
    tls: bool,
}

impl Address {
    pub(crate) fn of(config: &RabbitmqConfig, url: &Url) -> Self {
        let tls = config.public_tls;
        let host = config.public_host.clone();
        Self {
            host: host.or_else(|| url.host_str().map(str::to_owned)).unwrap_or_default(),
            // The two that IANA has for `amqp` and `amqps`.
            port: config.public_port.unwrap_or(if tls { 5671 } else { 5672 }),
            tls,
        }
    }

    /// The whole credential, with the variable that clients read.
    pub(crate) fn credential(&self, handle: &Handle, password: Secret, vhost: &str) -> Credential {
        let url = self.url(handle.as_str(), password.expose(), vhost);
        let credential = Credential::new()
            .public("username", handle.as_str())
            .secret("password", password)
            .public("host", self.host.clone())
            .public("port", self.port.to_string())
            .public("vhost", vhost)
            .secret("url", Secret::new(url));
        VARIABLES.iter().fold(credential, |it, (variable, field)| it.variable(*variable, *field))
    }

    /// RabbitMQ, "RabbitMQ URI Specification": the vhost is one segment, percent-encoded.
    fn url(&self, user: &str, password: &str, vhost: &str) -> String {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let host = if bare.contains(':') { format!("[{bare}]") } else { percent_encode(bare) };
        let vhost = percent_encode(vhost);
        format!("{scheme}://{user}:{password}@{host}:{}/{vhost}", self.port)
    }
}

/// A new password, and what the broker is told of it (RabbitMQ, "Credentials and Passwords":
/// four bytes of salt, SHA-256 of salt and password, both in base64).
pub(crate) fn random_password(random: &SystemRandom) -> Result<(Secret, String), Unspecified> {
    let mut bytes = [0; PASSWORD_BYTES];
    random.fill(&mut bytes)?;
    let password = Secret::new(BASE32_NOPAD.encode(&bytes));
    let hash = salted(random, &password)?;
    Ok((password, hash))
}

/// What the broker is told of a password.
pub(crate) fn salted(random: &SystemRandom, password: &Secret) -> Result<String, Unspecified> {
    let mut salt = [0; SALT_LEN];
    random.fill(&mut salt)?;
    Ok(hash(password.expose(), salt))
}

fn hash(password: &str, salt: [u8; SALT_LEN]) -> String {
    let salted = [&salt, password.as_bytes()].concat();
    BASE64.encode(&[&salt, digest(&SHA256, &salted).as_ref()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RabbitMQ's own page.
    #[test]
    fn the_hash_is_the_brokers() {
        let salt = [0x90, 0x8d, 0xc6, 0x0a];
        assert_eq!(hash("test12", salt), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    #[test]
    fn the_url_is_read_back_whatever_the_vhost_is_called() {
        let address = Address { host: "mq.example".to_owned(), port: 5671, tls: true };
        let url = Url::parse(&address.url("df_a", "PW", "a b/ü?#%")).unwrap();
        assert_eq!((url.host_str(), url.port()), (Some("mq.example"), Some(5671)));
        assert_eq!(url.path(), "/a%20b%2F%C3%BC%3F%23%25");
        let address = Address { host: "[::1]".to_owned(), port: 5672, tls: false };
        assert_eq!(address.url("u", "p", "/"), "amqp://u:p@[::1]:5672/%2F");
    }
}
