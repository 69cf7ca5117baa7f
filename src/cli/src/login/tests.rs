use std::{fs, os::unix::fs::PermissionsExt as _};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::*;
use crate::client::BrokerUrl;

const NOW: i64 = 1_800_000_000;

fn offer(token: &str) -> Offer {
    Offer {
        issuer: "https://login.example".to_owned(),
        client_id: "dayfly".to_owned(),
        scopes: vec!["openid".to_owned()],
        token: token.to_owned(),
    }
}

fn jwt(claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}.c2ln", part(&json!({ "alg": "ES256" })), part(claims))
}

/// What is made of an ID token with `changes` to what a good one says.
fn taken(changes: &Value) -> Result<(String, i64), Error> {
    let mut claims = json!({
        "iss": "https://login.example", "aud": "dayfly", "sub": "ada", "nonce": "n",
        "exp": NOW + 600,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let mut tokens = Tokens::default();
    tokens.id_token = Some(jwt(&claims));
    chosen(&offer("id_token"), &tokens, Some("n"), NOW)
}

#[test]
fn an_id_token_must_be_the_one_that_was_asked_for() {
    assert_eq!(taken(&json!({})).unwrap().1, NOW + 600);
    assert!(taken(&json!({ "aud": ["dayfly", "x"], "azp": "dayfly" })).is_ok());
    for changes in [
        json!({ "iss": "https://login.example/" }),
        json!({ "aud": "other" }),
        json!({ "aud": ["dayfly", "x"] }),
        json!({ "aud": ["dayfly", "x"], "azp": "x" }),
        json!({ "nonce": "m" }),
        json!({ "nonce": null }),
        json!({ "exp": NOW }),
        json!({ "exp": null }),
    ] {
        assert!(matches!(taken(&changes), Err(Error::Provider { .. })), "{changes}");
    }
}

#[test]
fn an_access_token_that_is_not_to_be_read_lasts_as_long_as_the_provider_says() {
    let tokens = |expires_in| {
        let mut tokens = Tokens::default();
        (tokens.access_token, tokens.expires_in) = (Some("opaque".to_owned()), expires_in);
        tokens
    };
    let offer = offer("access_token");
    assert_eq!(chosen(&offer, &tokens(Some(60)), None, NOW).unwrap(), ("opaque".into(), NOW + 60));
    assert!(chosen(&offer, &tokens(None), None, NOW).is_err());
    assert!(chosen(&offer, &tokens(Some(u64::MAX)), None, NOW).is_err());
    assert!(chosen(&offer, &Tokens::default(), None, NOW).is_err());
}

fn at(url: &str, home: &std::path::Path) -> Place {
    let broker = BrokerUrl::parse(Some(url)).unwrap();
    let home = home.to_str().unwrap();
    Place::made(&broker, &Ambient::from([("HOME", home), ("XDG_STATE_HOME", "relative")])).unwrap()
}

/// A login as it is kept.
fn kept(broker: &str) -> Login {
    serde_json::from_value(json!({
        "broker": broker, "offer": offer("id_token"), "endpoints": { "token_endpoint": "https://t" },
        "token": "secret", "expires_at": NOW, "refresh_token": null,
    }))
    .unwrap()
}

#[test]
fn a_login_is_this_users_alone_and_of_one_broker() {
    let home = tempfile::tempdir().unwrap();
    let [ours, other] = ["https://a.example", "https://b.example"].map(|url| at(url, home.path()));
    assert!(ours.read().unwrap().is_none());
    ours.keep(&kept("https://a.example")).unwrap();
    assert!(ours.read().unwrap().is_some());
    assert!(other.read().unwrap().is_none());
    // Somebody moved it to where another broker's would be.
    other.keep(&kept("https://a.example")).unwrap();
    assert!(other.read().unwrap().is_none());

    let directory = home.path().join(".local/state/dayfly/login");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    for file in fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    }
    assert!(matches!(ours.read(), Err(Error::Shared { .. })));
    ours.forget().unwrap();
    ours.forget().unwrap();
    assert!(ours.read().unwrap().is_none());
}

#[test]
fn without_a_home_there_is_no_place() {
    let broker = BrokerUrl::parse(Some("https://a.example")).unwrap();
    assert!(matches!(Place::of(&broker, &Ambient::default()), Err(Error::NoPlace)));
}

#[test]
fn a_browser_is_opened_where_somebody_sits_before_it() {
    let has = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        has_browser(&Ambient::new(pairs))
    };
    assert!(has(&[("DISPLAY", ":0")]));
    assert!(has(&[("BROWSER", "firefox"), ("SSH_CONNECTION", "x")]));
    assert!(!has(&[("DISPLAY", "localhost:10"), ("SSH_CONNECTION", "x")]));
}
