//! What a configuration with a preset may say.

use std::collections::BTreeSet;

use super::{super::kit::AUDIENCE, rules};
use crate::identity::{Algorithm, IssuerConfig, Kind, Platform};

const ID: &str = "0184990a-4771-4d4a-9c48-000000000001";

fn faults(platform: Platform, issuer: &str) -> Vec<String> {
    IssuerConfig::of(platform, "ci", issuer, AUDIENCE).faults()
}

#[test]
fn each_platform_has_one_name_in_code_and_configuration() {
    for platform in Platform::ALL {
        let name = platform.preset().name;
        assert_eq!(Platform::named(name), Some(platform));
        let toml = format!("name = 'ci'\nissuer = 'x'\naudience = 'x'\npreset = '{name}'");
        let config: IssuerConfig = toml::from_str(&toml).unwrap();
        assert_eq!(config.preset, Some(platform));
    }
    assert_eq!(Platform::named("Github"), None);
}

#[test]
fn traps_and_claims_have_one_name_each() {
    for platform in Platform::ALL {
        let preset = platform.preset();
        let traps: BTreeSet<_> = preset.traps.iter().map(|trap| trap.name).collect();
        assert_eq!(traps.len(), preset.traps.len(), "{platform:?}");
        let claims: BTreeSet<_> = preset.claims.iter().map(|claim| claim.name).collect();
        assert_eq!(claims.len(), preset.claims.len(), "{platform:?}");
        for claim in preset.jobs.iter().flat_map(|job| job.claims) {
            assert!(claims.contains(claim), "{platform:?}: the form of {claim} is not said");
        }
        assert!(!preset.traps.is_empty() && !preset.algorithms.is_empty(), "{platform:?}");
    }
}

/// Each form of each platform's issuer.
#[test]
fn every_shape_of_issuer_is_accepted() {
    let eks = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF";
    let gke = "https://container.googleapis.com/v1/projects/p-1/locations/eu-a/clusters/c";
    let with_id = [
        (Platform::Azure, format!("https://login.microsoftonline.com/{ID}/v2.0")),
        (Platform::Azure, format!("https://login.microsoftonline.us/{ID}/v2.0")),
        (Platform::Azure, format!("https://login.partner.microsoftonline.cn/{ID}/v2.0")),
        (Platform::Azure, format!("https://sts.windows.net/{ID}/")),
        (Platform::AzureDevops, format!("https://vstoken.dev.azure.com/{ID}")),
        (Platform::Circleci, format!("https://oidc.circleci.com/org/{ID}")),
        (Platform::Kubernetes, format!("https://germany.oic.prod-aks.azure.com/{ID}/{ID}/")),
        (Platform::Kubernetes, eks.replace(".com/", ".com.cn/")),
    ];
    for (platform, issuer) in &with_id {
        assert_eq!(faults(*platform, issuer), Vec::<String>::new(), "{issuer}");
    }
    for (platform, issuer) in [
        (Platform::Aws, "https://abc123-def456.tokens.sts.global.api.aws"),
        (Platform::Github, "https://token.actions.githubusercontent.com"),
        (Platform::Github, "https://token.actions.githubusercontent.com/octo-ent"),
        (Platform::Github, "https://token.actions.octo-ent.ghe.com"),
        (Platform::Github, "https://github.example.com/_services/token"),
        (Platform::Github, "https://github.example.com:8443/_services/token"),
        (Platform::Gitlab, "https://gitlab.com"),
        (Platform::Gitlab, "https://gitlab.company.com"),
        (Platform::Gitlab, "https://example.com/gitlab"),
        (Platform::HcpTerraform, "https://app.terraform.io"),
        (Platform::HcpTerraform, "https://terraform.example.com"),
        (Platform::Jenkins, "https://jenkins.example.com/jenkins/oidc"),
        (Platform::Kubernetes, eks),
        (Platform::Kubernetes, gke),
        (Platform::Kubernetes, "https://kubernetes.default.svc.cluster.local"),
        (Platform::Kubernetes, "https://10.0.0.1:6443"),
    ] {
        assert_eq!(faults(platform, issuer), Vec::<String>::new(), "{issuer}");
    }
}

/// Suffixes, prefixes, other paths, and hosts of one's own that hold the platform's name.
#[test]
fn an_issuer_of_the_wrong_shape_is_a_fault() {
    let wrong = [
        (Platform::Aws, "https://tokens.sts.global.api.aws"),
        (Platform::Aws, "https://a.b.tokens.sts.global.api.aws"),
        (Platform::Aws, "https://abc.tokens.sts.global.api.aws.evil.example"),
        (Platform::Azure, "https://login.microsoftonline.com/common/v2.0"),
        (Platform::Azure, "https://login.microsoftonline.com/organizations/v2.0"),
        (Platform::Azure, "https://login.microsoftonline.us/common/v2.0"),
        (
            Platform::Azure,
            "https://sts.microsoftonline.cn/0184990a-4771-4d4a-9c48-000000000001/v2.0",
        ),
        (Platform::Azure, "https://sts.windows.net/0184990a-4771-4d4a-9c48-000000000001"),
        (Platform::AzureDevops, "https://vstoken.dev.azure.com/acme"),
        (Platform::Bitbucket, "https://api.bitbucket.org/2.0/workspaces/acme"),
        (Platform::Buildkite, "https://agent.buildkite.com/"),
        (Platform::Buildkite, "https://agent.buildkite.com.evil.example"),
        (Platform::Circleci, "https://oidc.circleci.com/org/acme"),
        (Platform::Circleci, "https://oidc.circleci.com"),
        (Platform::Github, "https://token.actions.githubusercontent.com/"),
        (Platform::Github, "https://token.actions.githubusercontent.com/a/b"),
        (Platform::Github, "https://token.actions.githubusercontent.com.evil.example"),
        (Platform::Github, "https://token.actions.githubusercontent.com.evil.example/octo"),
        (
            Platform::Github,
            "https://token.actions.githubusercontent.com.evil.example/_services/token",
        ),
        (Platform::Github, "https://x.token.actions.githubusercontent.com/_services/token"),
        (Platform::Github, "https://token.actions.ghe.com"),
        (Platform::Github, "https://token.actions.a.ghe.com.evil.example/_services/token"),
        (Platform::Github, "https://token.actions.a.b.ghe.com"),
        (Platform::Github, "https://evil.example/token.actions.githubusercontent.com"),
        (Platform::Github, "https://github.example.com/_services/token/"),
        (Platform::Github, "https://github.example.com/_services/tokens"),
        (Platform::Gitlab, "https://gitlab.com.evil.example"),
        (Platform::Gitlab, "https://gitlab.com/group"),
        (Platform::Gitlab, "https://my.gitlab.com"),
        (Platform::Google, "https://accounts.google.com.evil.example"),
        (Platform::Google, "https://accounts.google.com/"),
        (Platform::HcpTerraform, "https://app.terraform.io/"),
        (Platform::HcpTerraform, "https://app.terraform.io.evil.example"),
        (Platform::Kubernetes, "https://oidc.eks.eu-west-1.amazonaws.com.evil.example/id/A1"),
        (Platform::Kubernetes, "https://oidc.eks.eu-west-1.amazonaws.com"),
        (Platform::Kubernetes, "https://container.googleapis.com/v1/projects/p"),
    ];
    for (platform, issuer) in wrong {
        let faults = faults(platform, issuer);
        let [fault] = faults.as_slice() else { panic!("{issuer}: {faults:?}") };
        let begin = format!("issuer `{issuer}` is none of preset `{}`", platform.preset().name);
        assert!(fault.starts_with(&begin), "{fault}");
    }
}

/// Whatever the platform cannot have is a fault, and what is merely stricter is none.
type Change = fn(&mut IssuerConfig);

#[test]
fn what_contradicts_a_preset_is_a_fault_and_what_is_stricter_is_none() {
    let spoil = |change: Change| {
        let mut config = rules(Platform::Github);
        change(&mut config);
        config.faults()
    };
    let cases: [(Change, &str); 6] = [
        (|it| it.kind = Kind::Human, "kind "),
        (|it| it.single_use = false, "single_use "),
        (|it| it.ignore_x5t = false, "ignore_x5t "),
        (|it| it.algorithms.push(Algorithm::Es256), "algorithms has ES256"),
        (|it| it.allow_traps.push("fork-merge-request".to_owned()), "allow_traps "),
        // A trap that no token shows cannot be allowed either.
        (|it| it.allow_traps.push("recycled-names".to_owned()), "allow_traps "),
    ];
    for (change, begin) in cases {
        let faults = spoil(change);
        let [fault] = faults.as_slice() else { panic!("{begin}: {faults:?}") };
        assert!(fault.starts_with(begin), "{fault}");
    }
    let stricter: [fn(&mut IssuerConfig); 3] = [
        |it| it.token_age_max_seconds = 300,
        |it| it.leeway_seconds = 0,
        |it| it.jwks_url = Some("https://mirror.example/jwks".to_owned()),
    ];
    for change in stricter {
        assert_eq!(spoil(change), Vec::<String>::new());
    }
    let mut gitlab = rules(Platform::Gitlab);
    gitlab.single_use = true;
    assert_eq!(gitlab.faults(), ["first_key_binds has no use where single_use is true"]);
    gitlab.first_key_binds = false;
    assert_eq!(gitlab.faults(), Vec::<String>::new());
    // Two of its tokens may be the same one, so whoever needs both may say so.
    let mut buildkite = rules(Platform::Buildkite);
    assert!(buildkite.single_use);
    buildkite.single_use = false;
    assert_eq!(buildkite.faults(), Vec::<String>::new());
    let mut plain = IssuerConfig::new("ci", "https://ci.example", AUDIENCE);
    plain.allow_traps = vec!["workflow-run".to_owned()];
    assert_eq!(plain.faults(), ["allow_traps has no use without a preset"]);
}

/// Their discovery names another origin, which is believed for no issuer.
#[test]
fn keys_on_another_origin_are_named_by_the_preset() {
    let keys = |platform, issuer: &str| IssuerConfig::of(platform, "ci", issuer, "a").jwks_url;
    let google = keys(Platform::Google, "https://accounts.google.com");
    assert_eq!(google.as_deref(), Some("https://www.googleapis.com/oauth2/v3/certs"));
    let old = keys(Platform::Azure, &format!("https://sts.windows.net/{ID}/"));
    assert_eq!(old.as_deref(), Some("https://login.microsoftonline.com/common/discovery/keys"));
    let new = keys(Platform::Azure, &format!("https://login.microsoftonline.com/{ID}/v2.0"));
    assert_eq!(new, None);
    assert_eq!(keys(Platform::Github, "https://token.actions.githubusercontent.com"), None);
}
