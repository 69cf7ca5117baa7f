//! What a configuration may say.

use super::*;
use crate::identity::{
    Authenticator, IssuerConfig,
    tests::kit::{AUDIENCE, FakeClock, ISSUER, Signer, fixed},
};

fn parse(toml: &str) -> Result<AwsIdentityConfig, toml::de::Error> {
    toml::from_str(toml)
}

#[test]
fn a_source_needs_three_lines_and_has_safe_defaults() {
    let three = "name = 'aws'\naccounts = ['123456789012']\nregions = ['eu-central-1']";
    let mut config = parse(three).unwrap();
    assert_eq!(config.faults(), ["server_id is needed where `server.public_url` is not set"]);
    config.server_id = Some(SERVER_ID.to_owned());
    assert_eq!(config, AwsIdentityConfig::new("aws", SERVER_ID, &[ACCOUNT], &["eu-central-1"]));
    assert_eq!(config.faults(), Vec::<String>::new());
    assert_eq!(config.kinds, [AwsCallerKind::AssumedRole, AwsCallerKind::User]);
    for bad in ["account = 'x'", "kinds = ['Root']", "kinds = ['role']", "server_id = 7"] {
        assert!(parse(&format!("{three}\n{bad}")).is_err(), "{bad}");
    }
    let more = format!("{three}\nkinds = ['root', 'federated-user']");
    let kinds = parse(&more).unwrap().kinds;
    assert_eq!(kinds, [AwsCallerKind::Root, AwsCallerKind::FederatedUser]);
}

#[test]
fn every_fault_is_named_at_once() {
    let config = AwsIdentityConfig {
        kinds: Vec::new(),
        endpoint_url: Some("https://sts.example.com".to_owned()),
        ..AwsIdentityConfig::new("AWS|x", "a b", &["12345678901", "*"], &["everywhere"])
    };
    let faults = config.faults();
    assert_eq!(faults.len(), 7, "{faults:#?}");
    let built = AwsIdentities::new(vec![config], BTreeSet::new());
    assert!(matches!(built, Err(SetupError::Faults { faults, .. }) if faults.len() == 7));
    let config = AwsIdentityConfig::new("aws", "x", &[], &[]);
    assert_eq!(config.faults().len(), 2, "{:#?}", config.faults());
}

#[test]
fn another_address_is_on_this_machine() {
    let faults = |url: &str| {
        let mut config = AwsIdentityConfig::new("aws", SERVER_ID, &[ACCOUNT], &["eu-central-1"]);
        config.endpoint_url = Some(url.to_owned());
        config.faults().len()
    };
    for good in ["http://127.0.0.1:5000", "http://[::1]:5000/", "https://localhost:5000"] {
        assert_eq!(faults(good), 0, "{good}");
    }
    for bad in [
        "http://10.0.0.1",
        "https://sts.evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1/x",
        "http://127.0.0.1/?x",
        "http://u@127.0.0.1",
        "http://169.254.169.254",
        "ftp://127.0.0.1",
        "nonsense",
    ] {
        assert_eq!(faults(bad), 1, "{bad}");
    }
}

#[tokio::test]
async fn names_and_server_ids_are_given_once() {
    let source = || fixed(&[Signer::es256().jwk("k1")]);
    let issuers = || {
        let issuer = IssuerConfig::new("ci", ISSUER, AUDIENCE);
        Authenticator::with_sources(vec![(issuer, source())], FakeClock::new()).unwrap()
    };
    let aws =
        |name: &str, id: &str| AwsIdentityConfig::new(name, id, &[ACCOUNT], &["eu-central-1"]);
    assert!(issuers().with_aws(vec![aws("a", "x"), aws("b", "y")]).is_ok());
    for (words, clash) in [
        ("an issuer's name", vec![aws("ci", "x")]),
        ("a name twice", vec![aws("a", "x"), aws("a", "y")]),
        ("a server id twice", vec![aws("a", "x"), aws("b", "x")]),
    ] {
        let built = issuers().with_aws(clash);
        assert!(matches!(built, Err(SetupError::Duplicate(_))), "{words}");
    }
    // Where none is configured, nobody is asked.
    let bearer = bearer(&request().to_string());
    assert_eq!(issuers().authenticate(&bearer).await, Err(Rejection::UnknownIssuer));
    let with = issuers().with_aws(vec![aws("a", "https://other.example")]).unwrap();
    assert_eq!(with.authenticate(&bearer).await, Err(Rejection::WrongAudience));
}
