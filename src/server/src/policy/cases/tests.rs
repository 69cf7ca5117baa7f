//! The cases of the example set, and cases that must not pass.

use std::{fs, path::Path};

use super::*;

const RULES: &str = r#"@id("yes") permit(principal, action == Dayfly::Action::"mint", resource)
    unless { principal.hasTag("bad") };"#;

const PRELUDE: &str = r#"
[roles.reader]
backend = "orders"
owner = "a-team"

[principals.job]
kind = "workload"
issuer = "github"
subject = "repo:a/b"

[[case]]
name = "first"
"#;

fn run_one(rules: &str, case: &str) -> Result<Report, CasesError> {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(CASES)).unwrap();
    fs::write(dir.path().join("a.cedar"), rules).unwrap();
    fs::write(dir.path().join(CASES).join("a.toml"), format!("{PRELUDE}{case}")).unwrap();
    run(dir.path())
}

fn case(expect: &str, rule: &str) -> String {
    format!(
        "principal = \"job\"\naction = \"mint\"\nrole = \"reader\"\nexpect = \"{expect}\"\nrule = {rule}\n"
    )
}

#[test]
fn the_example_set_passes_its_cases_and_each_rule_is_decided_by_one() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/policies");
    let report = run(&dir).unwrap_or_else(|error| panic!("{error}: {:#?}", error.faults()));
    let failed: Vec<_> = report.failed().collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(report.passed());
    assert_eq!(report.untested, Vec::<String>::new());
}

#[test]
fn a_case_passes_only_in_the_name_of_its_rule() {
    assert!(run_one(RULES, &case("allow", "\"yes\"")).unwrap().passed());
    for wrong in [
        case("deny", "\"yes\""),
        case("deny", "\"default-deny\""),
        case("allow", "\"no\""),
        case("allow", "[\"yes\", \"no\"]"),
        case("allow", "[]"),
    ] {
        let report = run_one(RULES, &wrong).unwrap();
        assert!(!report.passed(), "{wrong}");
        let failed: Vec<_> = report.failed().collect();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].name, "first");
        assert!(failed[0].got.allowed);
        assert_eq!(failed[0].got.rules, BTreeSet::from(["yes".to_owned()]));
    }
}

#[test]
fn a_rule_that_no_case_reaches_is_named() {
    let rules =
        format!(r#"{RULES} @id("no") forbid(principal is Dayfly::Human, action, resource);"#);
    let report = run_one(&rules, &case("allow", "\"yes\"")).unwrap();
    assert!(report.passed());
    assert_eq!(report.untested, ["no"]);
}

#[test]
fn a_case_changes_claims_and_leaves_some_out() {
    let bad = format!("claims = {{ bad = \"1\" }}\n{}", case("deny", "\"default-deny\""));
    assert!(run_one(RULES, &bad).unwrap().passed());
    let absent = format!("without = [\"bad\"]\n{}", case("allow", "\"yes\""));
    assert!(matches!(run_one(RULES, &absent), Err(CasesError::Cases(_))));
}

const BEHALF: &str = r#"@id("programs") permit(principal is Dayfly::Workload,
        action == Dayfly::Action::"mint", resource)
    when { context has on_behalf_of };
    @id("people") permit(principal is Dayfly::Human, action == Dayfly::Action::"mint", resource)
    when { principal in Dayfly::Claim::"groups=on-call" && context has actor };"#;

fn on_behalf(person: &str, answer: &str) -> String {
    let people = "[principals.ada]\nkind = \"human\"\nissuer = \"corporate\"\nsubject = \"ada\"\n\
        claims = { groups = [\"on-call\"] }\n[principals.bob]\nkind = \"human\"\n\
        issuer = \"corporate\"\nsubject = \"bob\"\n";
    format!(
        "principal = \"job\"\naction = \"mint\"\nrole = \"reader\"\n\
         on_behalf_of = \"{person}\"\n{answer}\n{people}"
    )
}

#[test]
fn a_case_on_somebodys_behalf_says_who_of_the_two_is_denied() {
    let allowed = "expect = \"allow\"\nrule = [\"people\", \"programs\"]";
    let denied = "expect = \"deny\"\nrule = \"default-deny\"\ndenied = \"person\"";
    let passed = |rules: &str, case: &str| run_one(rules, case).unwrap().passed();
    assert!(passed(BEHALF, &on_behalf("ada", allowed)));
    assert!(passed(BEHALF, &on_behalf("bob", denied)));
    assert!(!passed(BEHALF, &on_behalf("bob", &denied.replace("person", "workload"))));
    let other = BEHALF.replace("Dayfly::Workload", "Dayfly::Human");
    assert!(passed(&other, &on_behalf("ada", &denied.replace("person", "workload"))));
    for (person, answer, message) in [
        ("job", allowed, "is no person"),
        ("eve", allowed, "no principal is named `eve`"),
        ("bob", denied.split("\ndenied").next().unwrap(), "say who is denied"),
        ("ada", &format!("{allowed}\ndenied = \"person\""), "has no use here"),
    ] {
        let error = run_one(BEHALF, &on_behalf(person, answer)).unwrap_err();
        let faults = error.faults();
        assert!(faults.iter().any(|it| it.message.contains(message)), "{message}: {faults:?}");
    }
    let alone = format!("{}denied = \"person\"\n", case("deny", "\"default-deny\""));
    assert!(matches!(run_one(RULES, &alone), Err(CasesError::Cases(_))));
}

#[test]
fn no_cases_are_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(run(dir.path()), Err(CasesError::Empty(_))));
    fs::create_dir(dir.path().join(CASES)).unwrap();
    assert!(matches!(run(dir.path()), Err(CasesError::Empty(_))));
    fs::write(dir.path().join(CASES).join("a.toml"), "").unwrap();
    assert!(matches!(run(dir.path()), Err(CasesError::Empty(_))));
}

#[test]
fn a_case_that_says_less_than_it_seems_to_is_refused() {
    let good = case("allow", "\"yes\"");
    for (case, message) in [
        (good.replace("rule = \"yes\"\n", ""), "missing field `rule`"),
        (good.replace("role = \"reader\"\n", ""), "`role` is missing"),
        (good.replace("\"reader\"", "\"writer\""), "no role is named `writer`"),
        (good.replace("\"job\"", "\"jab\""), "no principal is named `jab`"),
        (good.replace("\"mint\"", "\"mind\""), "unknown variant `mind`"),
        (format!("{good}purpos = \"x\"\n"), "unknown field `purpos`"),
        (format!("{good}owner = \"nobody\"\n"), "no principal is named `nobody`"),
        (format!("{good}now = \"today\"\n"), "is not an RFC 3339 time"),
    ] {
        let error = run_one(RULES, &case).unwrap_err();
        let faults = error.faults();
        assert!(faults.iter().any(|it| it.message.contains(message)), "{case}: {faults:?}");
        assert!(faults[0].file.ends_with("a.toml"));
    }
    let error = run_one(RULES, &format!("{good}purpos = \"x\"\n")).unwrap_err();
    assert!(error.faults()[0].line.is_some_and(|line| line > 10), "{:?}", error.faults());
}

#[test]
fn faults_of_the_rules_are_not_faults_of_the_cases() {
    let error = run_one("permit(principal, action, resource);", &case("allow", "\"yes\""));
    assert!(matches!(error, Err(CasesError::Policies(faults)) if faults[0].line == Some(1)));
}
