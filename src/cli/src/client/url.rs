//! The broker's address.
//!
//! Invariant: an address that parses keeps a token secret on its way: https, or http that does
//! not leave this machine.

use std::fmt;

use url::{Host, Url};

use crate::client::Error;

/// Where the broker is; with a path if it is served under one.
#[derive(Clone, Debug)]
pub(crate) struct BrokerUrl(Url);

impl BrokerUrl {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Error> {
        let Some(text) = text else {
            return Err(fault(
                "no broker is named; give --url, set DAYFLY_URL, or write `url` into \
                 ~/.config/dayfly/config.toml"
                    .to_owned(),
            ));
        };
        // The text is not repeated when it can't be parsed: it could be a secret in the wrong
        // place, and it is at hand anyway.
        let url = Url::parse(text).map_err(|error| {
            fault(format!("the broker's address is not a URL ({error}); expected https://HOST"))
        })?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("the broker's address must not hold a user or password".to_owned()));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(fault("the broker's address must not hold `?` or `#`".to_owned()));
        }
        check_secure(&url).map_err(|()| {
            fault(format!(
                "`{url}` would send the token in clear; use https, or http on a loopback address"
            ))
        })?;
        Ok(Self(url))
    }

    /// Whether it is plain http, which [`check_secure`] allows on loopback alone.
    pub(crate) fn is_plain(&self) -> bool {
        self.0.scheme() == "http"
    }

    /// The host and the port to connect to.
    pub(crate) fn place(&self) -> Option<(String, u16)> {
        let host = match self.0.host()? {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        Some((host, self.0.port_or_known_default()?))
    }

    /// Whether both are one address, but for a `/` at the end. A prefix or another spelling of the
    /// path is not: what stands for allowed is what was read by the one who allowed it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let plain = |url: &Self| {
            let text = url.0.as_str();
            text.strip_suffix('/').unwrap_or(text).to_owned()
        };
        plain(self) == plain(other)
    }

    /// The address of a path below the broker's. Segments are escaped, so that an id that a
    /// user typed can't reach another path.
    pub(super) fn join(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

/// Refuses an address that a token must not be sent to.
pub(crate) fn check_secure(url: &Url) -> Result<(), ()> {
    match (url.scheme(), url.host()) {
        ("https", Some(_)) => Ok(()),
        ("http", Some(host)) if is_loopback(&host) => Ok(()),
        _ => Err(()),
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        // The transport never asks DNS for this name.
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

fn fault(reason: String) -> Error {
    Error::Url { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_and_loopback_are_accepted() {
        for good in [
            "https://broker.example.com",
            "https://broker.example.com:8443/dayfly/",
            "http://127.0.0.1:8200",
            "http://[::1]:8200",
            "http://localhost:8200",
        ] {
            assert!(BrokerUrl::parse(Some(good)).is_ok(), "{good}");
        }
    }

    #[test]
    fn what_would_show_the_token_is_refused() {
        for bad in [
            "http://broker.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://0.0.0.0:8200",
            "http://10.0.0.1",
            "ftp://localhost",
            "https://user:pass@broker.example.com",
            "https://broker.example.com?x=1",
            "broker.example.com",
            "",
        ] {
            assert!(BrokerUrl::parse(Some(bad)).is_err(), "{bad}");
        }
        assert!(BrokerUrl::parse(None).is_err());
    }

    #[test]
    fn an_address_is_the_same_however_its_host_is_written_and_no_prefix_of_another() {
        let is_same = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| BrokerUrl::parse(Some(text)).unwrap());
            one.is_same(&other)
        };
        let known = "https://broker.example.com/dayfly";
        for same in [
            known,
            "https://broker.example.com/dayfly/",
            "HTTPS://Broker.Example.COM:443/dayfly",
            "https://broker.example.com/x/../dayfly",
        ] {
            assert!(is_same(known, same), "{same}");
        }
        for other in [
            "https://broker.example.com",
            "https://broker.example.com/dayfly/x",
            "https://broker.example.com/dayfly//",
            "https://broker.example.com/Dayfly",
            "https://broker.example.com:8443/dayfly",
            "https://broker.example.com.evil.example/dayfly",
            "https://broker.example.com./dayfly",
            "https://evil.example/dayfly",
        ] {
            assert!(!is_same(known, other), "{other}");
        }
    }

    #[test]
    fn the_place_to_connect_to_has_a_port_and_no_brackets() {
        let place = |text: &str| BrokerUrl::parse(Some(text)).unwrap().place().unwrap();
        assert_eq!(place("https://b.example/x"), ("b.example".to_owned(), 443));
        assert_eq!(place("http://[::1]:8200"), ("::1".to_owned(), 8200));
        assert_eq!(place("http://127.0.0.1"), ("127.0.0.1".to_owned(), 80));
    }

    #[test]
    fn ids_cannot_leave_their_path() {
        let url = BrokerUrl::parse(Some("https://b.example/base/")).unwrap();
        assert_eq!(
            url.join(&["api", "v1", "leases", "../roles?x"]).as_str(),
            "https://b.example/base/api/v1/leases/..%2Froles%3Fx"
        );
        assert_eq!(url.join(&["healthz"]).as_str(), "https://b.example/base/healthz");
        assert_eq!(url.to_string(), "https://b.example/base");
    }
}
