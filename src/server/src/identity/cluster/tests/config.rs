//! What a cluster may be.

use super::*;

fn good() -> ClusterConfig {
    reviewed("eu", "https://cluster.example:6443", &token_file(), AUDIENCE)
}

fn faults(change: impl FnOnce(&mut ClusterConfig)) -> Vec<String> {
    let mut config = good();
    change(&mut config);
    config.faults()
}

fn tokens(issuer: &str, audiences: &[&str]) -> ClusterTokens {
    ClusterTokens::Reviewed {
        issuer: issuer.to_owned(),
        audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
        age_max: Duration::from_hours(1),
    }
}

#[test]
fn a_good_cluster_has_no_fault() {
    assert_eq!(good().faults(), Vec::<String>::new());
    for url in ["http://127.0.0.1:8001", "https://10.0.0.1", "https://x.example/k8s/clusters/c-1"] {
        assert!(faults(|config| config.api_url = url.to_owned()).is_empty(), "{url}");
    }
    assert!(faults(|config| config.namespaces = vec!["ci".to_owned()]).is_empty());
}

#[test]
fn a_cluster_that_is_asked_is_known_as_an_issuer_and_for_how_long_its_tokens_live() {
    let authenticator = |config| Desk::over(&FakeClock::new(), vec![config]).unwrap();
    let known = authenticator(good());
    assert!(known.knows("eu") && !known.knows("us"));
    assert_eq!(known.token_age_max(), Duration::from_hours(24) + LEEWAY);
    // Of one whose tokens are known by keys, the issuer is.
    let tokens = ClusterTokens::Verified { issuer: "pods".to_owned() };
    let verified = ClusterConfig { tokens, watch: PodWatch::Poll, ..good() };
    assert!(!authenticator(verified).knows("eu"));
}

#[test]
fn each_fault_names_its_key() {
    let one = |faults: Vec<String>| {
        let [fault] = faults.as_slice() else { panic!("not one: {faults:?}") };
        fault.split(' ').next().unwrap().to_owned()
    };
    for url in [
        "http://cluster.example",
        "https://user:password@cluster.example",
        "https://cluster.example?x",
        "https://169.254.169.254",
        "cluster.example",
        "",
    ] {
        assert_eq!(one(faults(|config| config.api_url = url.to_owned())), "api_url", "{url}");
    }
    assert_eq!(one(faults(|config| config.name = "EU".to_owned())), "name");
    for issuer in ["kubernetes/serviceaccount", "", "two words"] {
        let fault = one(faults(|config| config.tokens = tokens(issuer, &[AUDIENCE])));
        assert_eq!(fault, "token_issuer", "{issuer}");
    }
    let bad: [&[&str]; 4] = [&[], &[""], &["*"], &["a"; 17]];
    for audiences in bad {
        let fault = one(faults(|config| config.tokens = tokens(ISSUER, audiences)));
        assert_eq!(fault, "audiences", "{audiences:?}");
    }
    for namespace in ["", "CI", "-ci", "ci-", "a/b", "..", "kube_system"] {
        let fault = one(faults(|config| config.namespaces = vec![namespace.to_owned()]));
        assert_eq!(fault, "namespaces", "{namespace}");
    }
    let verified = ClusterTokens::Verified { issuer: "ci".to_owned() };
    assert_eq!(one(faults(|config| config.tokens = verified)), "watch");
}

#[test]
fn no_two_of_a_name_or_of_a_token_are_set_up() {
    let (clock, file) = (FakeClock::new(), token_file());
    let cluster =
        |name: &str, audience: &str| reviewed(name, "https://cluster.example", &file, audience);
    let duplicate = |result: Result<Authenticator, SetupError>| match result {
        Err(SetupError::Duplicate(what)) => what,
        other => panic!("{other:?}"),
    };
    let same = Desk::over(&clock, vec![cluster("a", "x"), cluster("a", "y")]);
    assert_eq!(duplicate(same), "a");
    let same = Desk::over(&clock, vec![cluster("a", "x"), cluster("b", "x")]);
    assert_eq!(duplicate(same), ISSUER);
    let rules = IssuerConfig::of(Platform::Kubernetes, "ci", ISSUER, "z");
    let source = fixed(&[Signer::es256().jwk("k1")]);
    let keys = Authenticator::with_sources(vec![(rules, source)], clock.clone()).unwrap();
    assert_eq!(duplicate(keys.with_clusters(vec![cluster("a", "x")])), ISSUER);
    assert!(Desk::over(&clock, vec![cluster("a", "x"), cluster("b", "y")]).is_ok());
}
