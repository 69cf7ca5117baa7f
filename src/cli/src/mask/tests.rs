use dayfly_api::Credential;

use super::*;

fn auto(ci: Option<Ci>, out: Sink, err: Sink) -> Way {
    decide(Mask::Auto, ci, false, out, err).unwrap()
}

#[test]
fn outside_of_ci_and_at_a_terminal_nothing_is_touched() {
    for sink in [Sink::Other, Sink::Terminal] {
        assert_eq!(auto(None, sink, sink), Way::Off);
        assert_eq!(decide(Mask::Never, Some(Ci::Other), true, sink, sink).unwrap(), Way::Off);
    }
    assert_eq!(auto(Some(Ci::Other), Sink::Terminal, Sink::Terminal), Way::Off);
}

#[test]
fn each_platform_is_told_in_its_own_way() {
    let pipe = Sink::Other;
    let read = Sink::Platform;
    assert_eq!(auto(Some(Ci::GitHub), pipe, read), Way::Platform(Ci::GitHub));
    assert_eq!(auto(Some(Ci::Azure), pipe, read), Way::Platform(Ci::Azure));
    assert_eq!(auto(Some(Ci::Other), pipe, pipe), Way::Filter { out: true, err: true });
    let partly = auto(Some(Ci::Other), pipe, Sink::Terminal);
    assert_eq!(partly, Way::Filter { out: true, err: false });
    let agent = |has_agent| decide(Mask::Auto, Some(Ci::Buildkite), has_agent, pipe, pipe).unwrap();
    assert_eq!(agent(true), Way::Agent);
    assert_eq!(agent(false), Way::Filter { out: true, err: true });
}

/// Somebody may publish the file that it goes to.
#[test]
fn whoever_is_not_the_platform_is_never_told_the_secrets() {
    for ci in [Ci::GitHub, Ci::Azure] {
        let way = auto(Some(ci), Sink::Other, Sink::Other);
        assert_eq!(way, Way::Filter { out: true, err: true });
    }
}

#[test]
fn a_terminal_is_not_taken_away() {
    let always = |out, err| decide(Mask::Always, None, false, out, err);
    for err in [Sink::Other, Sink::Platform] {
        assert_eq!(always(Sink::Other, err).unwrap(), Way::Filter { out: true, err: true });
    }
    for (out, err) in [(Sink::Terminal, Sink::Other), (Sink::Other, Sink::Terminal)] {
        let error = always(out, err).unwrap_err().to_string();
        assert!(error.contains("terminal"), "{error}");
    }
}

#[test]
fn what_identifies_is_no_secret_and_what_is_unknown_is_one() {
    let fields = [("username", "df_x"), ("Host", "db"), ("password", "p"), ("bearer", "b")];
    let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let credential = Credential { fields: fields.into(), environment: [].into() };
    let lease = Lease {
        on_behalf_of: None,
        id: "lse_1".into(),
        task: "tsk_1".into(),
        principal: "issuer:subject".into(),
        role: "r".into(),
        backend: "main".into(),
        handle: "df_1".into(),
        state: "active".into(),
        cause: None,
        credential: Some(credential),
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
    };
    let leases = [lease];
    let labels: Vec<String> = secrets(&leases).map(|secret| secret.label).collect();
    assert_eq!(labels, ["r/bearer", "r/password"]);
}
