use dayfly_api::Credential;

use super::*;

fn request(text: &str) -> RoleRequest {
    text.parse().unwrap()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

fn lease(role: &str, environment: &[(&str, &str)], fields: &[(&str, &str)]) -> Lease {
    Lease {
        id: format!("lse_{role}"),
        task: "tsk_1".into(),
        principal: "issuer:subject".into(),
        on_behalf_of: None,
        role: role.into(),
        backend: "main".into(),
        handle: "df_1".into(),
        state: "active".into(),
        cause: None,
        credential: Some(Credential { fields: map(fields), environment: map(environment) }),
        issued_at: "2026-01-01T00:00:00Z".into(),
        expires_at: "2026-01-01T00:15:00Z".into(),
        max_expires_at: "2026-01-01T01:00:00Z".into(),
        revoked_at: None,
        renewable: true,
        belts: Vec::new(),
        exposure_seconds: None,
        residual_until: None,
        attempts: 0,
        last_error: None,
        abandonment: None,
    }
}

fn postgres(role: &str) -> Lease {
    lease(
        role,
        &[("PGUSER", "username"), ("PGHOST", "host")],
        &[("username", role), ("host", "db"), ("password", "hunter2")],
    )
}

/// The names that `injected` gives, or the error.
fn outcome(requests: &[&str], leases: &[Lease]) -> Result<Vec<String>, String> {
    let requests: Vec<_> = requests.iter().map(|text| request(text)).collect();
    injected(&requests, leases)
        .map(|variables| variables.into_keys().collect())
        .map_err(|error| error.to_string())
}

#[test]
fn variables_follow_the_mapping_and_the_prefix() {
    let leases = [postgres("a"), postgres("b")];
    let variables = injected(&[request("a"), request("NEW=b")], &leases).unwrap();
    let expected =
        map(&[("PGUSER", "a"), ("PGHOST", "db"), ("NEW_PGUSER", "b"), ("NEW_PGHOST", "db")]);
    assert_eq!(variables, expected);
}

#[test]
fn one_role_under_two_names_is_minted_once() {
    let requests = [request("OLD=a"), request("NEW=a")];
    assert!(check(&requests).is_ok());
    assert_eq!(roles(&requests), ["a"]);
    assert_eq!(injected(&requests, &[postgres("a")]).unwrap().len(), 4);
}

#[test]
fn two_credentials_never_share_a_variable() {
    let error = outcome(&["a", "b"], &[postgres("a"), postgres("b")]).unwrap_err();
    assert_eq!(error, "roles `a` and `b` both set PGHOST; give one of them a name: --role NAME=b");
    let error = check(&[request("a"), request("a")]).unwrap_err().to_string();
    assert!(error.contains("--role NAME=a"), "{error}");
}

#[test]
fn names_that_run_code_are_refused_with_their_prefix_too() {
    for name in [
        "PATH",
        "LD_PRELOAD",
        "DYLD_INSERT_LIBRARIES",
        "BASH_ENV",
        "NODE_OPTIONS",
        "https_proxy",
        "ALL_PROXY",
        "GIT_SSH_COMMAND",
        "SSL_CERT_FILE",
        "DAYFLY_URL",
        "DAYFLY_API_KEYS",
        "GITHUB_ENV",
    ] {
        let error = outcome(&["r"], &[lease("r", &[(name, "key")], &[("key", "k")])]).unwrap_err();
        assert!(error.contains(name) && error.contains("reserved"), "{error}");
    }
    let error =
        outcome(&["LD=r"], &[lease("r", &[("PRELOAD", "key")], &[("key", "k")])]).unwrap_err();
    assert!(error.contains("LD_PRELOAD"), "{error}");
}

#[test]
fn an_api_key_has_the_one_name_of_ours_that_is_not_reserved() {
    let leases = [lease("r", &[("DAYFLY_API_KEY", "key")], &[("key", "k")])];
    assert_eq!(outcome(&["r"], &leases).unwrap(), ["DAYFLY_API_KEY"]);
    assert_eq!(outcome(&["API=r"], &leases).unwrap(), ["API_DAYFLY_API_KEY"]);
}

#[test]
fn what_no_environment_can_hold_is_refused_without_showing_it() {
    let long = "x".repeat(VARIABLE_BYTES_MAX);
    for (name, value) in [("A=B", "v"), ("", "v"), ("1A", "v"), ("KEY", "hun\0ter"), ("KEY", &long)]
    {
        let error = outcome(&["r"], &[lease("r", &[(name, "key")], &[("key", value)])]);
        let error = error.unwrap_err();
        assert!(!error.contains("hun") && error.len() < 200, "{error}");
    }
    let fits = "x".repeat(VARIABLE_BYTES_MAX - "KEY=".len() - 1);
    assert!(outcome(&["r"], &[lease("r", &[("KEY", "key")], &[("key", &fits)])]).is_ok());
}

#[test]
fn a_credential_that_is_not_there_is_an_error() {
    assert!(outcome(&["a"], &[postgres("b")]).is_err());
    assert!(outcome(&["r"], &[lease("r", &[], &[("key", "k")])]).is_err());
    assert!(outcome(&["r"], &[lease("r", &[("KEY", "missing")], &[("key", "k")])]).is_err());
}

#[test]
fn an_endpoint_takes_the_place_of_keys_and_leaves_a_region() {
    let endpoint = map(&[(ADDRESS, "http://127.0.0.1:1/r"), ("AWS_REGION", "eu-central-1")]);
    let region = map(&[("AWS_REGION", "us-east-1"), ("PGHOST", "db")]);
    let both = with_endpoint(region, endpoint.clone()).unwrap();
    assert_eq!(both["AWS_REGION"], "us-east-1");
    let withheld = competing(&both);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"] {
        assert!(withheld.contains(&name), "{name}");
    }
    let keys = map(&[("AWS_ACCESS_KEY_ID", "AKIA")]);
    assert!(matches!(with_endpoint(keys.clone(), endpoint), Err(Error::Shadowed)));
    assert_eq!(with_endpoint(keys.clone(), BTreeMap::new()).unwrap(), keys);
}
