//! What is a SPIFFE ID, and what only looks like one.

use crate::identity::{SpiffeId, SpiffeIdError};

#[test]
fn good_ids_are_kept_as_they_came() {
    for (id, trust_domain, segments) in [
        ("spiffe://example.org", "example.org", vec![]),
        ("spiffe://example.org/a", "example.org", vec!["a"]),
        ("spiffe://example.org/ns/prod/sa/web", "example.org", vec!["ns", "prod", "sa", "web"]),
        ("spiffe://td/A.b-c_9", "td", vec!["A.b-c_9"]),
        ("spiffe://1.2.3.4/x", "1.2.3.4", vec!["x"]),
        ("spiffe://trust_domain/x", "trust_domain", vec!["x"]),
        ("spiffe://a-b.c_d/x", "a-b.c_d", vec!["x"]),
        ("spiffe://td/...", "td", vec!["..."]),
        ("spiffe://td/.path", "td", vec![".path"]),
        ("spiffe://td/..path", "td", vec!["..path"]),
    ] {
        let read = SpiffeId::parse(id).unwrap();
        assert_eq!((read.as_str(), read.trust_domain()), (id, trust_domain));
        assert_eq!(read.segments(), segments, "{id}");
        assert_eq!(read.to_string(), id);
    }
}

#[test]
fn what_only_looks_like_an_id_is_refused() {
    use SpiffeIdError::{
        DotSegment, EmptySegment, PathCharacter, Scheme, TrustDomainCharacter, TrustDomainLen,
    };
    for (text, error) in [
        ("", Scheme),
        ("s", Scheme),
        ("spiffe:/td/x", Scheme),
        ("Spiffe://td/x", Scheme),
        ("SPIFFE://td/x", Scheme),
        (" spiffe://td/x", Scheme),
        ("http://td/x", Scheme),
        ("spiffe://", TrustDomainLen),
        ("spiffe:///x", TrustDomainLen),
        ("spiffe://TD/x", TrustDomainCharacter),
        ("spiffe://Example.org/x", TrustDomainCharacter),
        ("spiffe://user@td/x", TrustDomainCharacter),
        ("spiffe://user:password@td/x", TrustDomainCharacter),
        ("spiffe://td:443/x", TrustDomainCharacter),
        ("spiffe://[::1]/x", TrustDomainCharacter),
        ("spiffe://%74d/x", TrustDomainCharacter),
        ("spiffe://t\u{434}/x", TrustDomainCharacter),
        ("spiffe://td?q", TrustDomainCharacter),
        ("spiffe://td#f", TrustDomainCharacter),
        ("spiffe://td\n", TrustDomainCharacter),
        ("spiffe://td/", EmptySegment),
        ("spiffe://td//", EmptySegment),
        ("spiffe://td//x", EmptySegment),
        ("spiffe://td/x/", EmptySegment),
        ("spiffe://td/x//y", EmptySegment),
        ("spiffe://td/.", DotSegment),
        ("spiffe://td/..", DotSegment),
        ("spiffe://td/../x", DotSegment),
        ("spiffe://td/x/./y", DotSegment),
        ("spiffe://td/x/..", DotSegment),
        ("spiffe://td/%61", PathCharacter),
        ("spiffe://td/%2e%2e/x", PathCharacter),
        ("spiffe://td/x%2fy", PathCharacter),
        ("spiffe://td/x?q", PathCharacter),
        ("spiffe://td/x#f", PathCharacter),
        ("spiffe://td/x y", PathCharacter),
        ("spiffe://td/x ", PathCharacter),
        ("spiffe://td/\u{fc}", PathCharacter),
        ("spiffe://td/x\n", PathCharacter),
        ("spiffe://td/x\0", PathCharacter),
        ("spiffe://td/a:b", PathCharacter),
        ("spiffe://td/a@b", PathCharacter),
        ("spiffe://td/a\\b", PathCharacter),
        ("spiffe://td/*", PathCharacter),
    ] {
        assert_eq!(SpiffeId::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn lengths_are_held_to_the_byte() {
    let of_domain = |len: usize| SpiffeId::parse(&format!("spiffe://{}/x", "d".repeat(len)));
    assert!(of_domain(255).is_ok());
    assert_eq!(of_domain(256), Err(SpiffeIdError::TrustDomainLen));
    let prefix = "spiffe://td/";
    let of_len = |len: usize| SpiffeId::parse(&format!("{prefix}{}", "x".repeat(len - 12)));
    assert_eq!(of_len(2_048).unwrap().as_str().len(), 2_048);
    assert_eq!(of_len(2_049), Err(SpiffeIdError::TooLong));
}

/// Every character below 256, in both places.
#[test]
fn only_the_characters_of_the_specification_pass() {
    for c in (0..=255_u8).map(char::from) {
        let lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        let in_domain = lower || ['.', '-', '_'].contains(&c);
        // A slash ends the trust domain, and a path begins.
        assert_eq!(SpiffeId::parse(&format!("spiffe://a{c}b")).is_ok(), in_domain || c == '/');
        let in_path = in_domain || c.is_ascii_uppercase() || c == '/';
        assert_eq!(SpiffeId::parse(&format!("spiffe://td/a{c}b")).is_ok(), in_path, "{c:?}");
    }
}

#[test]
fn ids_that_differ_in_a_byte_are_different_workloads() {
    let id = |text| SpiffeId::parse(text).unwrap();
    let web = id("spiffe://td/sa/web");
    for other in ["spiffe://td/sa/web2", "spiffe://td/sa/web/x", "spiffe://td/sa/Web"] {
        assert_ne!(web, id(other));
    }
    assert!(SpiffeId::parse("spiffe://td/sa/web/").is_err());
}
