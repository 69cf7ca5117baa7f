//! For which hosts a helper answers.
//!
//! Invariant: a host that was not named gets nothing, however it is written, and plain http nothing
//! unless that was asked for.

/// The hosts of the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hosts<'a> {
    pub(super) named: &'a [String],
    pub(super) allow_http: bool,
}

impl Hosts<'_> {
    /// Whether `host`, which may have a port, is one of them and is spoken to in a way that keeps a
    /// password secret.
    pub(super) fn cover(&self, protocol: &str, host: &str) -> bool {
        let secure = protocol == "https" || (protocol == "http" && self.allow_http);
        secure && self.named.iter().any(|named| named.eq_ignore_ascii_case(host))
    }

    /// The same of an address as docker writes it: with or without a protocol, with or without a
    /// path.
    pub(super) fn cover_address(&self, address: &str) -> bool {
        let (protocol, rest) = address.split_once("://").unwrap_or(("https", address));
        let host = rest.split('/').next().unwrap_or_default();
        self.cover(protocol, host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_hosts_are_covered_and_only_over_https() {
        let named = ["ghcr.io".to_owned(), "registry.example:5000".to_owned()];
        let hosts = Hosts { named: &named, allow_http: false };
        for good in [
            "ghcr.io",
            "GHCR.io",
            "https://ghcr.io",
            "https://ghcr.io/v2/",
            "registry.example:5000",
        ] {
            assert!(hosts.cover_address(good), "{good}");
        }
        for bad in [
            "",
            "http://ghcr.io",
            "ghcr.io.evil.example",
            "evil.example/ghcr.io",
            "https://ghcr.io@evil.example",
            "https://evil.example#ghcr.io",
            "registry.example",
            "ghcr.io:443",
            "ghcr.io\n",
            "ftp://ghcr.io",
            "://ghcr.io",
        ] {
            assert!(!hosts.cover_address(bad), "{bad:?}");
        }
        let plain = Hosts { named: &named, allow_http: true };
        assert!(plain.cover_address("http://ghcr.io/v2/"));
        assert!(!plain.cover_address("http://evil.example"));
    }
}
