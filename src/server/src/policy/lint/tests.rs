//! Bad rules with what is said of each, and the same rules mended.
//!
//! `tests/bad.txt` has the cases, below what surrounds them (`=== rules`, `=== config`,
//! `=== used`). Behind `//!` stands a finding that the rule of the last `@id` must have, and no
//! rule may have any other. What follows `+++` must have none.

use std::{collections::BTreeMap, fs, path::Path};

use super::*;
use crate::identity::{Kind, Platform};

const CASES: &str = include_str!("tests/bad.txt");

/// What is written short in the cases.
const SHORT: [(&str, &str); 4] = [
    (
        "MINT",
        r#"permit (principal is Dayfly::Workload in Dayfly::Issuer::"github", action == Dayfly::Action::"mint", resource)"#,
    ),
    ("ID", r#"principal.hasTag("repository_id") && principal.getTag("repository_id") == "1""#),
    ("MAIN", r#"principal.hasTag("ref") && principal.getTag("ref") == "refs/heads/main""#),
    ("PURPOSE", r#"(context.purpose == "a" || context.purpose == "b")"#),
];

const AUDIT: &str = r#"
    {"at":"2026-01-01T00:00:00Z","event":"lease.allowed","detail":{"rules":["busy"]}}
    {"at":"2026-01-31T00:00:00Z","event":"decision.denied","detail":{"rules":["refusing"]}}
"#;

fn role(name: &str, backend: &str, labels: &[(&str, &str)]) -> RoleFacts {
    let owned = |text: &str| text.to_owned();
    RoleFacts {
        name: owned(name),
        backend: owned(backend),
        owner: owned("a-team"),
        labels: labels.iter().map(|(name, value)| (owned(name), owned(value))).collect(),
    }
}

fn issuer(name: &str, source: Source) -> IssuerFacts {
    IssuerFacts {
        name: name.to_owned(),
        source,
        kind: if name == "corporate" { Kind::Human } else { Kind::Workload },
        url: format!("https://{name}.example"),
        audiences: vec!["https://dayfly.example.com".to_owned()],
        allow_traps: Vec::new(),
    }
}

fn facts() -> Facts {
    let mut open = issuer("open", Source::Preset(Platform::Github));
    open.allow_traps = vec!["pull-request-target".to_owned()];
    let production = [("environment", "production"), ("risk", "low")];
    Facts {
        file: "dayfly.toml".to_owned(),
        issuers: vec![
            issuer("github", Source::Preset(Platform::Github)),
            issuer("east", Source::Preset(Platform::Kubernetes)),
            issuer("corporate", Source::Other),
            open,
        ],
        roles: vec![role("reader", "orders", &production), role("writer", "orders", &[])],
    }
}

fn uses() -> Uses {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("audit.jsonl");
    fs::write(&path, AUDIT).unwrap();
    Uses::read(&[path]).unwrap().unwrap()
}

fn look(text: &str, facts: Option<&Facts>, uses: Option<&Uses>) -> Report {
    let files = [("rules.cedar".to_owned(), text.to_owned())];
    lint_texts(&files, facts, uses).unwrap_or_else(|faults| panic!("{faults:#?}\n{text}"))
}

/// `line: lint: about` of each finding in rules.
fn found(report: &Report) -> Vec<String> {
    let in_rules = report.findings.iter().filter_map(|finding| {
        Some(format!("{}: {}: {}", finding.line?, finding.code, finding.about))
    });
    in_rules.collect()
}

/// `lint: about` of each finding in the configuration.
fn found_in_config(report: &Report) -> Vec<String> {
    let in_config = report.findings.iter().filter(|finding| finding.rule.is_none());
    in_config.map(|finding| format!("{}: {}", finding.code, finding.about)).collect()
}

fn expected(text: &str) -> Vec<String> {
    let mut rule = 0;
    let mut expected = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with("@id") {
            rule = index + 1;
        }
        if let Some((_, finding)) = line.split_once("//! ") {
            expected.push(format!("{rule}: {finding}"));
        }
    }
    expected
}

/// The text in full; words of the cases are whole words.
fn long(text: &str) -> String {
    let mut long = String::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_uppercase()) {
        let (name, rest) =
            word.split_at(word.trim_end_matches(|c: char| !c.is_ascii_uppercase()).len());
        let full = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, full)| *full);
        long.push_str(full);
        long.push_str(rest);
    }
    long
}

#[test]
fn each_lint_finds_what_is_bad_and_leaves_what_is_mended() {
    let (facts, uses) = (facts(), uses());
    let mut fired: BTreeMap<&str, usize> = BTreeMap::new();
    for group in CASES.split("=== ").filter(|group| !group.is_empty()) {
        let (name, cases) = group.split_once('\n').unwrap();
        let facts = (name == "config").then_some(&facts);
        let uses = (name == "used").then_some(&uses);
        for case in cases.split("---\n") {
            let (bad, mended) = case.split_once("+++\n").unwrap_or_else(|| panic!("{case}"));
            let wanted = expected(bad);
            assert!(!wanted.is_empty(), "nothing is expected of {bad}");
            let report = look(&long(bad), facts, uses);
            assert_eq!(found(&report), wanted, "{bad}");
            for finding in &report.findings {
                assert!(!finding.why.is_empty() && !finding.mend.is_empty(), "{finding}");
                *fired.entry(finding.code.as_str()).or_default() += 1;
            }
            assert_eq!(found(&look(&long(mended), facts, uses)), Vec::<String>::new(), "{mended}");
        }
    }
    // What is about the configuration alone is shown below.
    let elsewhere = ["missing-audience", "unreachable-role"];
    for code in Code::ALL.iter().map(|code| code.as_str()) {
        assert!(fired.contains_key(code) || elsewhere.contains(&code), "{code} is in no case");
    }
}

#[test]
fn the_document_has_the_lints_and_what_they_know() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policies.md");
    let document = fs::read_to_string(path).unwrap();
    for part in table().split("\n\n") {
        let part = part.trim_end();
        assert!(document.contains(part), "docs/policies.md must have this table:\n{part}");
    }
}

#[test]
fn the_example_set_is_clean() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/policies");
    let report = lint(&dir, None, None).unwrap_or_else(|faults| panic!("{faults:#?}"));
    assert!(report.findings.is_empty(), "{}", report.text());
    assert!(report.rules > 10, "{}", report.rules);
}

const READERS: &str = r#"
@id("a")
permit (
    principal is Dayfly::Workload in Dayfly::Issuer::"github",
    action == Dayfly::Action::"mint",
    resource
)
when { CONDITION && ID && MAIN };
"#;

fn unreachable_with(condition: &str, more: &str) -> Vec<String> {
    let text = READERS.replace("CONDITION", condition);
    found_in_config(&look(&format!("{}{more}", long(&text)), Some(&facts()), None))
}

#[test]
fn a_role_that_no_permit_can_reach_is_named() {
    let (reader, writer) = ("unreachable-role: role `reader`", "unreachable-role: role `writer`");
    for (condition, unreached) in [
        ("true", vec![]),
        (r#"resource == Dayfly::Role::"reader""#, vec![writer]),
        (r#"resource in Dayfly::Backend::"orders""#, vec![]),
        (r#"resource.name == "writer""#, vec![reader]),
        (r#"["reader", "writer"].contains(resource.name)"#, vec![]),
        (r#"resource.name like "r*""#, vec![writer]),
        (r#"resource.owner == "another-team""#, vec![reader, writer]),
        (r#"resource has environment && resource.environment == "production""#, vec![writer]),
        (r#"!(resource has risk && resource.risk == "low")"#, vec![reader]),
        (r#"resource.hasTag("risk") && resource.getTag("risk") == "low""#, vec![writer]),
        (r#"principal.issuer == "gitlab""#, vec![reader, writer]),
        // What depends on the caller may hold.
        (r#"context.purpose == "never""#, vec![]),
        ("principal.hasTag(resource.name)", vec![]),
    ] {
        assert_eq!(unreachable_with(condition, ""), unreached, "{condition}");
    }
    let none = look("", Some(&facts()), None);
    assert_eq!(found_in_config(&none), [reader, writer]);
    assert!(look("", None, None).findings.is_empty(), "without a configuration there are no roles");
}

#[test]
fn a_role_that_is_always_forbidden_is_named_with_the_rule() {
    let unrated = r#"@id("rated")
        forbid (principal, action == Dayfly::Action::"mint", resource)
        unless { resource has risk && ["low", "high"].contains(resource.risk) };"#;
    assert_eq!(unreachable_with("true", unrated), ["unreachable-role: role `writer`"]);
    let sometimes = r#"@id("long")
        forbid (principal, action == Dayfly::Action::"mint", resource)
        when { context.ttl_seconds > 60 };
        @id("people")
        forbid (principal is Dayfly::Human, action == Dayfly::Action::"mint", resource);"#;
    assert_eq!(unreachable_with("true", sometimes), Vec::<String>::new());
}

#[test]
fn an_audience_that_others_have_is_named() {
    let github = Source::Preset(Platform::Github);
    let devops = Source::Preset(Platform::AzureDevops);
    for (source, audience, shared) in [
        (github, "https://dayfly.example.com", false),
        (github, "https://github.com/acme", true),
        (github, "https://github.com/acme/app", false),
        (github, "sts.amazonaws.com", true),
        (github, "https://issuer.example", true),
        (github, "https://issuer.example/", true),
        (github, "", true),
        (Source::Preset(Platform::Kubernetes), "https://kubernetes.default.svc", true),
        (Source::Preset(Platform::Circleci), "0184990a-4771-4d4a-9c48-000000000001", true),
        (Source::Preset(Platform::Buildkite), "https://buildkite.com/acme", true),
        (github, "api://AzureADTokenExchange", true),
        // It can have no other.
        (devops, "api://AzureADTokenExchange", false),
        (Source::Other, "dayfly", false),
        (Source::Other, "https://issuer.example", true),
    ] {
        let mut one = issuer("issuer", source);
        one.audiences = vec!["https://dayfly.example.com".to_owned(), audience.to_owned()];
        let facts = Facts { issuers: vec![one], roles: Vec::new(), ..facts() };
        let found = found_in_config(&look("", Some(&facts), None));
        let wanted = format!("missing-audience: issuer `issuer`: audience `{audience}`");
        assert_eq!(found, if shared { vec![wanted] } else { Vec::new() }, "{source:?}");
    }
}

#[test]
fn a_report_passes_as_it_is_asked() {
    let (noted, warned, wrong) = (
        r#"MINT when { ID && principal.hasTag("ref") && principal.getTag("ref") like "refs/heads/*" };"#,
        "MINT when { ID };",
        r#"MINT when { principal.subject == "repo:a/b:ref:refs/heads/main" };"#,
    );
    for (text, counts, passed) in [
        ("MINT when { ID && MAIN };", [0, 0, 0], [true, true]),
        (noted, [0, 0, 1], [true, true]),
        (warned, [0, 1, 0], [true, false]),
        (wrong, [1, 0, 0], [false, false]),
    ] {
        let report = look(&format!("@id(\"a\")\n{}", long(text)), None, None);
        let severities = [Severity::Error, Severity::Warning, Severity::Note];
        assert_eq!(severities.map(|severity| report.count(severity)), counts, "{text}");
        assert_eq!([false, true].map(|deny| report.passed(deny)), passed, "{text}");
    }
}

#[test]
fn a_report_says_where_what_why_and_how_to_mend_it() {
    let report = look(&long("@id(\"a\")\nMINT when { ID };"), None, Some(&uses()));
    let text = report.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "rules.cedar:1: warning[missing-environment] a: principal");
    assert!(lines[1].starts_with("  why: it fixes nothing of GitHub that says"), "{text}");
    assert!(lines[2].starts_with("  mend: ask for one of `sub`, `environment`"), "{text}");
    assert_eq!(lines[3], "rules.cedar:1: warning[unused-rule] a: the whole rule");
    assert!(lines[4].contains("2 record(s) of 30 day(s), 2026-01-01T"), "{text}");
    let last = "1 rule(s): 0 error(s), 2 warning(s), 0 note(s); 2 record(s) of 30 day(s), ";
    assert!(lines[6].starts_with(last), "{text}");
    assert_eq!(lines.len(), 7);
    let json = report.json();
    assert_eq!(json["findings"][0]["code"], "missing-environment");
    assert_eq!(json["findings"][0]["severity"], "warning");
    assert_eq!(json["findings"][1]["line"], 1);
    assert_eq!(json["errors"], 0);
    assert_eq!(json["warnings"], 2);
    assert_eq!(json["used"]["first"], "2026-01-01T00:00:00.000000Z");
    assert_eq!(json["policy"], report.policy_hash.as_str());
}

#[test]
fn what_would_not_be_loaded_is_not_looked_at() {
    let try_rules = |text: &str, facts: Option<&Facts>| {
        let files = [("rules.cedar".to_owned(), text.to_owned())];
        lint_texts(&files, facts, None).map(|_| ())
    };
    let no_role = r#"@id("a") forbid (principal, action, resource == Dayfly::Role::"raeder");"#;
    assert!(try_rules(no_role, None).is_ok(), "nobody said which roles there are");
    let faults = try_rules(no_role, Some(&facts())).unwrap_err();
    assert!(faults[0].message.contains("did you mean `reader`?"), "{faults:?}");
    let unguarded =
        r#"@id("a") permit (principal, action, resource) when { principal.getTag("x") == "1" };"#;
    assert!(try_rules(unguarded, None).is_err());
}

#[test]
fn a_rule_of_any_length_is_looked_at_or_named() {
    // Goal: a tree as deep as the file is long takes no more stack than there is.
    let ids: Vec<String> = (0..5_000).map(|id| format!("\"{id}\"")).collect();
    let wide = format!(
        "@id(\"a\") MINT when {{ principal.hasTag(\"repository_id\") && \
         [{}].contains(principal.getTag(\"repository_id\")) && MAIN }};",
        ids.join(", ")
    );
    assert!(look(&long(&wide), None, None).findings.is_empty());
    let condition = vec!["context.purpose != \"x\""; 260].join(" && ");
    let deep = format!("@id(\"a\") MINT when {{ {condition} }};");
    assert_eq!(found(&look(&long(&deep), None, None)), ["1: too-complex: the whole rule"]);
}
