//! `dayfly-server policy lint`: with what a broker really decided, and how it ends.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Output},
};

use dayfly_integration::{Broker, BrokerConfig, Client, Store, program, root};
use serde_json::Value;

const CLEAN: &str = r#"
@id("one")
permit (
    principal is Dayfly::Workload in Dayfly::Issuer::"ci",
    action == Dayfly::Action::"mint",
    resource
);
"#;

fn lint(arguments: &[&str]) -> Output {
    let mut command = Command::new(program("dayfly-server"));
    command.args(["policy", "lint"]).args(arguments).output().unwrap()
}

/// The rules, or what is configured, that a lint found something in.
fn found(said: &Value, code: &str) -> BTreeSet<String> {
    let findings = said["findings"].as_array().unwrap();
    let of_code = findings.iter().filter(|finding| finding["code"] == code);
    let named = |finding: &Value| {
        let name = finding["rule"].as_str().or(finding["about"].as_str());
        name.unwrap().to_owned()
    };
    of_code.map(named).collect()
}

/// What is said of the rules of a broker, by what its audit log has so far.
async fn said_of(broker: &Broker, admin: &Client) -> Value {
    let page = admin.get("/api/v1/audit?limit=500").await.unwrap().expect(200).body;
    let path = broker.path().join("audit.json");
    fs::write(&path, page.to_string()).unwrap();
    let used = path.display().to_string();
    let output = broker.command(&["policy", "lint", "--output", "json", "--used", &used]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_decided_says_which_rules_are_used() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let admin = broker.client().with(&broker.admin());
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>();

    let said = said_of(&broker, &admin).await;
    assert_eq!(found(&said, "unused-rule"), set(&["test/mint", "test/no-production"]));
    assert!(said["used"]["records"].as_u64().unwrap() >= 2, "{said}");
    // What is wrong with the rules themselves is said all the same.
    assert_eq!(found(&said, "any-issuer"), set(&["test/mint", "test/open"]));
    assert_eq!(found(&said, "unreachable-role"), set(&["role `forbidden`"]));

    owner.mint("greeter").await.expect(201);
    let said = said_of(&broker, &admin).await;
    assert_eq!(found(&said, "unused-rule"), set(&["test/no-production"]));
    owner.mint("forbidden").await.expect(403);
    let said = said_of(&broker, &admin).await;
    assert_eq!(found(&said, "unused-rule"), set(&[]));
    owner.complete(&task, "10s").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_advises_on_the_rules_and_passes() {
    let broker = Broker::configure(BrokerConfig::new(Store::Sqlite, None));
    let output = broker.command(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains(": no fault\n"), "{said}");
    let advice = said.lines().find(|line| line.contains("any-issuer"));
    assert!(advice.is_some_and(|line| line.starts_with("advice: ")), "{said}");
}

#[test]
fn the_exit_code_says_how_it_went() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let file = directory.path().join("a.cedar");
    fs::write(&file, CLEAN).unwrap();
    assert_eq!(lint(&[&path, "--deny", "warnings"]).status.code(), Some(0));

    fs::write(&file, CLEAN.replace(" is Dayfly::Workload", "")).unwrap();
    let output = lint(&[&path]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("a.cedar:2: warning[humans-mint] one: principal\n  why: "), "{said}");
    assert!(said.ends_with("1 rule(s): 0 error(s), 1 warning(s), 0 note(s)\n"), "{said}");
    assert_eq!(lint(&[&path, "--deny", "warnings"]).status.code(), Some(1));

    fs::write(&file, CLEAN.replace(r#" in Dayfly::Issuer::"ci""#, "")).unwrap();
    assert_eq!(lint(&[&path]).status.code(), Some(1));

    let none = directory.path().join("none").display().to_string();
    for cannot in [
        vec![],
        vec![none.as_str()],
        vec!["--config", none.as_str()],
        vec![path.as_str(), "--used", none.as_str()],
        vec![path.as_str(), "--used", file.to_str().unwrap()],
        vec![path.as_str(), "--deny", "notes"],
    ] {
        let output = lint(&cannot);
        assert_eq!(output.status.code(), Some(2), "{cannot:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
    }
}

#[test]
fn the_example_set_passes_with_warnings_denied() {
    let policies = root().join("config/policies").display().to_string();
    let output = lint(&[&policies, "--deny", "warnings"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
