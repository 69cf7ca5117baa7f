//! What a configuration may say.

use super::kit::{AUDIENCE, FakeClock, ISSUER, Signer, fixed};
use crate::identity::{Algorithm, Authenticator, IssuerConfig, Kind, SetupError};

fn parse(toml: &str) -> Result<IssuerConfig, toml::de::Error> {
    toml::from_str(toml)
}

#[test]
fn an_issuer_needs_three_lines_and_has_safe_defaults() {
    let three = format!("name = 'ci'\nissuer = '{ISSUER}'\naudience = '{AUDIENCE}'");
    let config = parse(&three).unwrap();
    assert_eq!(config, IssuerConfig::new("ci", ISSUER, AUDIENCE));
    assert_eq!(config.faults(), Vec::<String>::new());
    assert!(config.single_use && !config.insecure_http && !config.multiple_audiences);
    assert_eq!((config.kind, config.leeway_seconds), (Kind::Workload, 30));
    let more = format!("{three}\nkind = 'human'\nalgorithms = ['EdDSA', 'RS256']");
    let config = parse(&more).unwrap();
    assert_eq!(config.kind, Kind::Human);
    assert_eq!(config.algorithms, [Algorithm::EdDsa, Algorithm::Rs256]);
    for bad in ["audence = 'x'", "algorithms = ['HS256']", "algorithms = ['none']", "kind = 'root'"]
    {
        assert!(parse(&format!("{three}\n{bad}")).is_err(), "{bad}");
    }
}

#[test]
fn every_fault_is_named_at_once() {
    let mut config = IssuerConfig::new("CI|x", "http://issuer.example", "");
    config.jwks_url = Some("ftp://issuer.example".into());
    config.jwks_file = Some("keys.json".into());
    config.ca_file = Some("ca.pem".into());
    config.leeway_seconds = 61;
    config.token_age_max_seconds = 0;
    config.algorithms.clear();
    let faults = config.faults();
    assert_eq!(faults.len(), 9, "{faults:#?}");
    let built = Authenticator::new(vec![config], FakeClock::new());
    assert!(matches!(built, Err(SetupError::Faults { faults, .. }) if faults.len() == 9));
}

#[test]
fn an_issuer_is_https_or_this_machine_on_purpose() {
    let fault = |issuer: &str, insecure_http: bool| {
        let mut config = IssuerConfig::new("ci", issuer, AUDIENCE);
        config.insecure_http = insecure_http;
        !config.faults().is_empty()
    };
    for good in ["https://issuer.example", "https://10.0.0.1:8443/x", "https://127.0.0.1:1"] {
        assert!(!fault(good, false), "{good}");
    }
    for bad in [
        "http://localhost:1",
        "issuer.example",
        "https://user@issuer.example",
        "https://issuer.example/?q",
        "https://issuer.example/#f",
        "https://issuer.ex\u{430}mple",
        "https://169.254.169.254/latest",
        "https://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://0.0.0.0/",
        "file:///etc/passwd",
        "",
    ] {
        assert!(fault(bad, false), "{bad}");
    }
    for good in ["http://localhost:1", "http://127.0.0.1:8080/realm", "http://[::1]:1"] {
        assert!(!fault(good, true), "{good}");
    }
    for bad in ["http://issuer.example", "http://localhost.evil.example", "http://10.0.0.1"] {
        assert!(fault(bad, true), "{bad}");
    }
}

#[test]
fn two_issuers_share_neither_name_nor_url() {
    let key = || fixed(&[Signer::es256().jwk("k1")]);
    let other = "https://other.example";
    for (name, issuer, duplicate) in
        [("one", other, Some("one")), ("two", ISSUER, Some(ISSUER)), ("two", other, None)]
    {
        let issuers = vec![
            (IssuerConfig::new("one", ISSUER, AUDIENCE), key()),
            (IssuerConfig::new(name, issuer, AUDIENCE), key()),
        ];
        let built = Authenticator::with_sources(issuers, FakeClock::new());
        match (built, duplicate) {
            (Ok(_), None) => {}
            (Err(SetupError::Duplicate(found)), Some(expected)) => assert_eq!(found, expected),
            (built, _) => panic!("{name} {issuer}: {built:?}"),
        }
    }
}

#[test]
fn a_ca_file_must_hold_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    let build = || {
        let mut config = IssuerConfig::new("ci", ISSUER, AUDIENCE);
        config.ca_file = Some(path.clone());
        Authenticator::new(vec![config], FakeClock::new())
    };
    assert!(matches!(build(), Err(SetupError::CaFile { .. })));
    std::fs::write(&path, "no certificate\n").unwrap();
    assert!(matches!(build(), Err(SetupError::NoCertificate { .. })));
}
