//! What a platform's `iss` looks like.
//!
//! Invariant: a pattern is matched from the first byte to the last. What stands between its
//! gaps is compared to the letter, and no gap takes a character that could end a host, begin
//! a query or climb out of a path.

use uuid::Uuid;

const UUID_LEN: usize = 36;
const LABEL_LEN_MAX: usize = 63;

/// One form of `iss`.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The URL. What differs from one issuer to the next is a gap: `{host}` (with a port, if
    /// any), `{label}` (one label of a host), `{path}` (the rest, or nothing), `{slug}` (one
    /// part of a path) or `{uuid}`.
    pub pattern: &'static str,
    /// Where the keys are, if the discovery names another origin, which we do not believe.
    pub jwks_url: Option<&'static str>,
}

impl Shape {
    /// With keys where its discovery says.
    pub(crate) const fn of(pattern: &'static str) -> Self {
        Self { pattern, jwks_url: None }
    }

    /// With keys elsewhere.
    pub(crate) const fn with_keys_at(pattern: &'static str, jwks_url: &'static str) -> Self {
        Self { pattern, jwks_url: Some(jwks_url) }
    }

    /// The URL, if it has no gap.
    pub(super) fn exact(&self) -> Option<&'static str> {
        (!self.pattern.contains('{')).then_some(self.pattern)
    }

    /// Whether `issuer` has this form.
    pub(super) fn matches(&self, issuer: &str) -> bool {
        let (mut pattern, mut rest) = (self.pattern, issuer);
        while let Some((literal, after)) = pattern.split_once('{') {
            let Some((name, next)) = after.split_once('}') else { return false };
            let Some((gap, here)) = Gap::named(name).zip(rest.strip_prefix(literal)) else {
                return false;
            };
            let end = here.find(|c: char| !gap.may_hold(c)).unwrap_or(here.len());
            let (value, left) = here.split_at(end);
            if !gap.takes(value) {
                return false;
            }
            (pattern, rest) = (next, left);
        }
        rest == pattern
    }

    /// Whether the platform does not own the host.
    pub(super) fn has_any_host(&self) -> bool {
        self.pattern.contains("{host}")
    }

    /// Whether the host of `issuer` holds the host that this form has, label by label.
    pub(super) fn is_in(&self, issuer: &str) -> bool {
        let (own, theirs) = (labels(self.pattern), labels(issuer));
        let same = |(their, own): (&&str, &&str)| own.starts_with('{') || their == own;
        !self.has_any_host()
            && theirs.windows(own.len()).any(|window| window.iter().zip(&own).all(same))
    }
}

/// The labels of a URL's host; never empty.
fn labels(url: &str) -> Vec<&str> {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    host.split('.').collect()
}

/// What differs from one issuer of a platform to the next.
#[derive(Debug, Clone, Copy)]
enum Gap {
    Host,
    Label,
    Path,
    Slug,
    Uuid,
}

impl Gap {
    fn named(name: &str) -> Option<Self> {
        match name {
            "host" => Some(Self::Host),
            "label" => Some(Self::Label),
            "path" => Some(Self::Path),
            "slug" => Some(Self::Slug),
            "uuid" => Some(Self::Uuid),
            _ => None,
        }
    }

    /// Capitals are left out of hosts: a client that compares without them reads two as one.
    fn may_hold(self, c: char) -> bool {
        match self {
            Self::Host => is_label_char(c) || matches!(c, '.' | ':'),
            Self::Label => is_label_char(c),
            Self::Path => is_slug_char(c) || c == '/',
            Self::Slug => is_slug_char(c),
            Self::Uuid => c.is_ascii_hexdigit() || c == '-',
        }
    }

    fn takes(self, value: &str) -> bool {
        match self {
            Self::Host => is_host(value),
            Self::Label => is_label(value),
            Self::Path => is_path(value),
            Self::Slug => is_slug(value),
            Self::Uuid => value.len() == UUID_LEN && Uuid::try_parse(value).is_ok(),
        }
    }
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

fn is_slug_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')
}

fn is_label(text: &str) -> bool {
    (1..=LABEL_LEN_MAX).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_host(text: &str) -> bool {
    let (name, port) = text.split_once(':').unwrap_or((text, "443"));
    name.split('.').all(is_label) && port.bytes().all(|c| c.is_ascii_digit()) && is_port(port)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_slug(text: &str) -> bool {
    !["", ".", ".."].contains(&text)
}

/// Nothing, or parts each of which begins with a slash. The last may be empty: some issuers
/// end with a slash, and it is a part of their name.
fn is_path(text: &str) -> bool {
    let Some(parts) = text.strip_prefix('/') else { return text.is_empty() };
    parts.strip_suffix('/').unwrap_or(parts).split('/').all(is_slug) || parts.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0184990a-4771-4d4a-9c48-000000000001";

    fn matches(pattern: &'static str, issuer: &str) -> bool {
        Shape::of(pattern).matches(issuer)
    }

    #[test]
    fn a_pattern_takes_the_whole_url_and_nothing_beside_it() {
        let exact = "https://ci.example";
        assert!(matches(exact, exact));
        for other in ["https://ci.example/", "https://ci.example.evil.example", "https://ci.exampl"]
        {
            assert!(!matches(exact, other), "{other}");
        }
        for other in ["http://ci.example", "https://ci.example@evil.example", "HTTPS://ci.example"]
        {
            assert!(!matches(exact, other), "{other}");
        }
        let slug = "https://ci.example/org/{slug}/oidc";
        assert!(matches(slug, "https://ci.example/org/Acme_1.x/oidc"));
        for bad in ["", "..", ".", "a/b", "a%2fb", "a?b", "a#b", "a b", "\u{430}"] {
            assert!(!matches(slug, &format!("https://ci.example/org/{bad}/oidc")), "{bad}");
        }
        assert!(!matches(slug, "https://ci.example/org/a/oidc/x"));
    }

    #[test]
    fn a_gap_takes_what_its_name_says() {
        assert!(matches("https://x/{uuid}/y", &format!("https://x/{ID}/y")));
        let simple = ID.replace('-', "");
        for bad in [simple.as_str(), "ORG-UUID", &format!("{ID}0"), &format!("{{{ID}}}"), ""] {
            assert!(!matches("https://x/{uuid}/y", &format!("https://x/{bad}/y")), "{bad}");
        }
        let label = "https://{label}.ci.example";
        assert!(matches(label, "https://acme-1.ci.example"));
        for bad in ["", "-a", "a-", "a.b", "A", "a_b", "a:1", "evil.example/a"] {
            assert!(!matches(label, &format!("https://{bad}.ci.example")), "{bad}");
        }
        let host = "https://{host}/_services/token";
        for good in ["ghes.example", "ghes", "10.0.0.1", "ghes.example:8443"] {
            assert!(matches(host, &format!("https://{good}/_services/token")), "{good}");
        }
        for bad in
            ["", ".a", "a..b", "a@b", "a:", "a:+1", "a:0", "a:65536", "a:1:2", "a/b", "[::1]"]
        {
            assert!(!matches(host, &format!("https://{bad}/_services/token")), "{bad}");
        }
        for good in ["", "/", "/gitlab", "/a/b-c_d", "/a/"] {
            assert!(matches("https://{host}{path}", &format!("https://x.example{good}")), "{good}");
        }
        for bad in ["//", "/a//b", "/..", "/a/../b", "/a?b", "/a#b", "/%2e", "/a\\b", "@evil"] {
            assert!(!matches("https://{host}{path}", &format!("https://x.example{bad}")), "{bad}");
        }
    }

    #[test]
    fn a_host_that_holds_another_is_known_for_it() {
        let own = Shape::of("https://gitlab.com");
        for feigned in ["https://gitlab.com.evil.example", "https://my.gitlab.com:1/x"] {
            assert!(own.is_in(feigned), "{feigned}");
        }
        for good in ["https://gitlab.company.com", "https://gitlab.example", "https://com.gitlab"] {
            assert!(!own.is_in(good), "{good}");
        }
        let region = Shape::of("https://oidc.eks.{label}.amazonaws.com/id/{slug}");
        assert!(region.is_in("https://oidc.eks.eu-west-1.amazonaws.com.evil.example/id/X"));
        assert!(!region.is_in("https://oidc.eks.example/id/X"));
        assert!(!Shape::of("https://{host}{path}").is_in("https://anything.example"));
    }

    #[test]
    fn a_pattern_with_a_gap_that_nobody_knows_matches_nothing() {
        assert!(!matches("https://{anything}", "https://x"));
        assert!(!matches("https://{host", "https://x"));
    }
}
