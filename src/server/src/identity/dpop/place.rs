//! Whether a URL in a proof is ours.
//!
//! Invariant: what we are called comes from the configuration, never from the request: a `Host`
//! that somebody else chose would let a proof that was made for him be shown to us.

use std::{fmt::Write as _, net::SocketAddr};

use url::Url;

const URL_LEN_MAX: usize = 2_048;
const LOOPBACK: [&str; 3] = ["127.0.0.1", "[::1]", "localhost"];

/// How clients reach us, as far as the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddress(Reach);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Reach {
    /// From this machine alone, by whatever port leads to us: through a tunnel it is another one
    /// than ours.
    Loopback,
    /// By one URL.
    Public(Place),
    /// It does not say, so that no proof can be held against it.
    #[default]
    Unknown,
}

/// A URL without query and fragment, as RFC 3986 §6.2.2 and §6.2.3 normalise it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    scheme: String,
    /// In small letters, with a port only where it is not the scheme's own.
    authority: String,
    /// It begins with a slash.
    path: String,
}

impl OwnAddress {
    /// Of a broker that listens on `listen` and calls itself `public_url`, if it does.
    pub fn new(public_url: Option<&Url>, listen: SocketAddr, behind_proxy: bool) -> Self {
        Self(match public_url.map(|url| Place::parse(url.as_str())) {
            Some(Some(place)) => Reach::Public(place),
            None if listen.ip().is_loopback() && !behind_proxy => Reach::Loopback,
            Some(None) | None => Reach::Unknown,
        })
    }

    /// Whether proofs can be verified at all.
    pub fn is_known(&self) -> bool {
        self.0 != Reach::Unknown
    }

    /// Whether `url` is that of our `path`.
    pub(super) fn is_meant(&self, url: &str, path: &str) -> bool {
        let (Some(meant), Some(path)) = (Place::parse(url), normal(path)) else { return false };
        match &self.0 {
            Reach::Loopback => LOOPBACK.contains(&meant.host()) && meant.path == path,
            Reach::Public(own) => {
                let below = own.path.trim_end_matches('/');
                own.scheme == meant.scheme
                    && own.authority == meant.authority
                    && meant.path.strip_prefix(below) == Some(path.as_str())
            }
            Reach::Unknown => false,
        }
    }
}

impl Place {
    fn parse(url: &str) -> Option<Self> {
        if url.len() > URL_LEN_MAX || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (scheme, rest) = url.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let own_port = match scheme.as_str() {
            "http" => ":80",
            "https" => ":443",
            _ => return None,
        };
        let rest = rest.split(['?', '#']).next()?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at_checked(at)?,
            None => (rest, "/"),
        };
        let authority = authority.to_ascii_lowercase();
        let authority = authority.strip_suffix(own_port).unwrap_or(&authority);
        // An empty port is the scheme's own too.
        let authority = authority.strip_suffix(':').unwrap_or(authority);
        if authority.is_empty() || authority.contains(['@', '\\']) {
            return None;
        }
        Some(Self { authority: authority.to_owned(), scheme, path: normal(path)? })
    }

    /// Without its port.
    fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            Some(_) | None => self.authority.as_str(),
        }
    }
}

/// A path whose escapes are written in one way. None where it is none: also where it has the
/// segments `.` and `..`, which clients take out before they send a request and which readers
/// understand differently.
fn normal(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut normal = String::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                let byte = u8::try_from(high * 16 + low).ok()?;
                if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                    normal.push(char::from(byte));
                } else {
                    write!(normal, "%{byte:02X}").ok()?;
                }
            }
            b'\\' | b'?' | b'#' => return None,
            b'!'..=b'~' => normal.push(char::from(byte)),
            _ => return None,
        }
    }
    let is_plain = |segment: &str| segment != "." && segment != "..";
    normal.split('/').all(is_plain).then_some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(url: &str) -> OwnAddress {
        let listen = "0.0.0.0:8420".parse().unwrap();
        OwnAddress::new(Some(&Url::parse(url).unwrap()), listen, true)
    }

    #[test]
    fn a_url_that_is_ours_in_another_spelling_is_ours() {
        let own = public("https://dayfly.example.com/base/");
        for url in [
            "https://dayfly.example.com/base/api/v1/tasks/tsk_1",
            "HTTPS://Dayfly.Example.COM:443/base/api/v1/tasks/tsk_1",
            "https://dayfly.example.com:/base/api/v1/tasks/tsk%5f1",
            "https://dayfly.example.com/base/%61pi/v1/tasks/tsk_1?wait=5s#top",
        ] {
            assert!(own.is_meant(url, "/api/v1/tasks/tsk_1"), "{url}");
            assert!(own.is_meant(url, "/api/v1/t%61sks/tsk_1"), "{url}");
        }
        assert!(public("https://dayfly.example.com").is_meant("https://dayfly.example.com", "/"));
        let port = public("https://dayfly.example.com:8443");
        assert!(port.is_meant("https://dayfly.example.com:8443/a", "/a"));
        assert!(own.is_meant("https://dayfly.example.com/base/a%2Fb%3b", "/a%2fb%3B"));
    }

    #[test]
    fn a_url_that_is_not_ours_is_not() {
        let own = public("https://dayfly.example.com/base");
        for url in [
            "http://dayfly.example.com/base/a",
            "https://dayfly.example.com:8443/base/a",
            "https://dayfly.example.com:80/base/a",
            "https://dayfly.example.com./base/a",
            "https://dayfly.example.com.evil.example/base/a",
            "https://evil.example/base/a",
            "https://u@dayfly.example.com/base/a",
            "https://dayfly.example.com\\@evil.example/base/a",
            "https://evil.example\\@dayfly.example.com/base/a",
            "https://dayfly.example.com/base/A",
            "https://dayfly.example.com/base/a/",
            "https://dayfly.example.com/base//a",
            "https://dayfly.example.com/a",
            "https://dayfly.example.com/base/b/../a",
            "https://dayfly.example.com/base/%2e/a",
            "https://dayfly.example.com/base%2Fa",
            "https://dayfly.example.com/base/a%",
            "https://dayfly.example.com/base/a%6",
            "https://dayfly.example.com/base/a%zz",
            " https://dayfly.example.com/base/a",
            "https://dayfly.example.com/base/a\n",
            "//dayfly.example.com/base/a",
            "https:/dayfly.example.com/base/a",
            "https:///base/a",
            "/base/a",
            "/a",
            "",
        ] {
            assert!(!own.is_meant(url, "/a"), "{url:?}");
        }
        assert!(!own.is_meant("https://dayfly.example.com/base/a", "/a/../a"));
        assert!(!own.is_meant(&format!("https://{}/base/a", "x".repeat(3_000)), "/a"));
    }

    #[test]
    fn who_listens_on_loopback_alone_is_meant_by_each_name_of_it() {
        let own = OwnAddress::new(None, "127.0.0.1:8420".parse().unwrap(), false);
        assert_eq!(own, OwnAddress(Reach::Loopback));
        for url in ["http://127.0.0.1:8420/a", "http://localhost:9000/a", "https://[::1]:1/a"] {
            assert!(own.is_meant(url, "/a"), "{url}");
        }
        for url in ["http://localhost.evil.example/a", "http://10.0.0.1/a", "http://[::2]:1/a"] {
            assert!(!own.is_meant(url, "/a"), "{url}");
        }
    }

    #[test]
    fn who_is_not_told_its_url_takes_no_proof() {
        let everywhere = "0.0.0.0:8420".parse().unwrap();
        let unknown = OwnAddress::new(None, everywhere, false);
        let proxied = OwnAddress::new(None, "127.0.0.1:8420".parse().unwrap(), true);
        for own in [unknown, proxied] {
            assert!(!own.is_known());
            assert!(!own.is_meant("http://127.0.0.1:8420/a", "/a"));
        }
    }
}
