//! Bundles, and the rules of a trust domain.

use std::time::Duration;

use serde_json::json;

use super::{Authority, Desk, Signer, Wanted, token_key};
use crate::identity::{
    Authenticator, BundleFrom, IssuerConfig, JwksError, SetupError, TrustDomainConfig,
    keys::Kept,
    spiffe::bundle::{Bundle, Refresh},
    tests::kit::{AUDIENCE, FakeClock, fixed},
};

const REFRESH: Refresh = Refresh { min: Duration::from_mins(1), max: Duration::from_hours(1) };

fn parse(text: &str) -> Result<Bundle, JwksError> {
    Bundle::parse(text.as_bytes(), REFRESH)
}

#[test]
fn a_bundle_is_asked_for_as_it_says_within_bounds() {
    for (hint, seconds) in [("300", 300), ("1", 60), ("86400", 3_600), ("0", 60)] {
        let bundle = parse(&format!(r#"{{"keys":[],"spiffe_refresh_hint":{hint}}}"#)).unwrap();
        assert_eq!(bundle.ages().renew_after, Duration::from_secs(seconds), "{hint}");
        assert!(bundle.ages().fresh_max > bundle.ages().renew_after);
    }
    assert_eq!(parse(r#"{"keys":[]}"#).unwrap().ages().renew_after, Duration::from_mins(5));
}

/// For as long a key that was taken back may still count.
#[test]
fn a_bundle_is_fresh_a_minute_longer_than_it_asks_for_and_stale_an_hour_later() {
    let refresh = Refresh { min: Duration::from_mins(1), max: Duration::from_hours(24) };
    let day = Bundle::parse(br#"{"keys":[],"spiffe_refresh_hint":90000}"#, refresh).unwrap();
    let fresh_max = Duration::from_hours(24) + Duration::from_mins(1);
    assert_eq!(day.ages().fresh_max, fresh_max);
    assert_eq!(day.ages().stale_max, fresh_max + Duration::from_hours(1));
}

#[test]
fn what_is_no_bundle_is_refused_whole() {
    for text in [
        "",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[],"keys":[]}"#,
        r#"{"keys":[],"spiffe_sequence":"1"}"#,
        r#"{"keys":[],"spiffe_sequence":-1}"#,
        r#"{"keys":[],"spiffe_refresh_hint":1.5}"#,
    ] {
        assert!(matches!(parse(text), Err(JwksError::Malformed { .. })), "{text}");
    }
    let keys: Vec<_> = (0..101).map(|_| json!({})).collect();
    let many = json!({ "keys": keys }).to_string();
    assert!(matches!(parse(&many), Err(JwksError::TooManyKeys)));
}

/// What is unusable is left out, and what stands beside it is used.
#[test]
fn an_unusable_authority_harms_no_other() {
    let good = Authority::new("good");
    let jwk = |wanted: Wanted| Authority::certified("bad", &wanted).jwk();
    let two = {
        let mut key = good.jwk();
        key["x5c"] = json!([key["x5c"][0], key["x5c"][0]]);
        key
    };
    let bad = [
        jwk(Wanted::workload(&["spiffe://example.org/web"])),
        jwk(Wanted { usage: None, ..Wanted::signer() }),
        jwk(Wanted { usage: Some(0x02), ..Wanted::signer() }),
        two,
        json!({ "use": "x509-svid" }),
        json!({ "use": "x509-svid", "x5c": ["%"] }),
        json!({ "use": "x509-svid", "x5c": ["AAAA"] }),
        json!({ "use": "x509-svid", "x5c": [] }),
        json!("x509-svid"),
    ];
    let expected = bad.len() - 1;
    let keys: Vec<_> =
        bad.into_iter().chain([good.jwk(), token_key(&Signer::es256(), "k")]).collect();
    let bundle = parse(&json!({ "keys": keys }).to_string()).unwrap();
    assert_eq!((bundle.authorities.len(), bundle.left_out.len()), (1, expected));
    assert_eq!(bundle.jwt.len(), 1);
}

#[test]
fn every_fault_of_a_trust_domain_is_named_at_once() {
    let url = |url: &str| BundleFrom::Url { url: url.to_owned(), ca_file: None };
    let mut config = TrustDomainConfig::new("Example.org", url("http://example.org/bundle"));
    config.audiences = vec![String::new(), "https://*.example".to_owned()];
    config.refresh_min = Duration::from_hours(2);
    config.leeway = Duration::from_mins(2);
    config.token_age_max = Duration::ZERO;
    config.certificate_age_max = Duration::ZERO;
    let faults = config.faults();
    assert_eq!(faults.len(), 8, "{faults:#?}");
    let desk = Authenticator::new(Vec::new(), FakeClock::new()).unwrap();
    assert!(matches!(desk.trusting(vec![config]), Err(SetupError::Faults { .. })));
    for bad in ["https://169.254.169.254/bundle", "https://user@example.org/", "ftp://x/"] {
        assert_eq!(TrustDomainConfig::new("td", url(bad)).faults().len(), 1, "{bad}");
    }
    let good = TrustDomainConfig::new("td", url("https://spire.example.org/bundle"));
    assert_eq!(good.faults(), Vec::<String>::new());
}

/// An issuer could sign a subject that is an ID of the trust domain.
#[tokio::test]
async fn a_trust_domain_and_an_issuer_never_share_a_name() {
    let issuer = IssuerConfig::new("td", "https://issuer.example", AUDIENCE);
    let signer = Signer::es256();
    let with = vec![(issuer, fixed(&[signer.jwk("k1")]))];
    let desk = Authenticator::with_sources(with, FakeClock::new()).unwrap();
    let domain = || TrustDomainConfig::new("td", BundleFrom::File("bundle".into()));
    let built = desk.trusting(vec![domain()]);
    assert!(matches!(built, Err(SetupError::Duplicate(name)) if name == "td"));
    let desk = Authenticator::new(Vec::new(), FakeClock::new()).unwrap();
    let built = desk.trusting(vec![domain(), domain()]);
    assert!(matches!(built, Err(SetupError::Duplicate(name)) if name == "td"));
    assert_eq!(Desk::new().await.authenticator.key_fetches().len(), 2);
}
