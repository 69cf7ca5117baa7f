//! Configurations: a bad one starts nothing, and a good one can prove itself.

use std::{net::TcpStream, process::Output, time::Duration};

use dayfly_integration::{Broker, BrokerConfig, Postgres, Store, eventually};

/// What is added to a good configuration; each line behind `# fault` has one.
const FAULTS: &str = r#"
[server.limits]
body_bytes_max = 5 # fault
[tasks]
ttl_maxx = "1h" # fault
[[backend]]
name = "keys" # fault
kind = "api-key"
prefix = "other_"
[[role]]
name = "lost"
backend = "nowhere" # fault
owner = "test"
ttl = "5 minutes" # fault
ttl_max = "1h"
template = {}
"#;

fn bad() -> (Broker, Vec<String>) {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str(FAULTS);
    let broker = Broker::configure(config);
    let text = std::fs::read_to_string(broker.config_file()).unwrap();
    let lines = text.lines().enumerate().filter(|(_, line)| line.ends_with("# fault"));
    let places = lines.map(|(index, _)| format!("dayfly.toml:{}:", index + 1)).collect();
    (broker, places)
}

/// Every fault is named with its line, and there is none without.
fn names_each(said: &str, places: &[String]) {
    let faults: Vec<&str> = said.lines().filter(|line| line.contains("dayfly.toml:")).collect();
    assert_eq!(faults.len(), places.len(), "{said}");
    for (fault, place) in faults.iter().zip(places) {
        assert!(fault.contains(place.as_str()), "{place} not in {fault}");
    }
}

fn has_database(broker: &Broker) -> bool {
    let names = std::fs::read_dir(broker.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let made: Vec<_> = names.filter(|name| name.starts_with("dayfly.db")).collect();
    !made.is_empty()
}

fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    streams.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_names_every_fault_and_starts_nothing() {
    let (mut broker, places) = bad();
    assert_eq!(places.len(), 5);
    let checked = broker.command(&["check"]);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    assert!(checked.stdout.is_empty(), "{checked:?}");
    names_each(&said(&checked), &places);

    broker.spawn();
    let status = eventually("the broker gives up", Duration::from_secs(10), async || {
        assert!(TcpStream::connect(("127.0.0.1", broker.port)).is_err(), "it listens");
        broker.exited()
    })
    .await;
    assert_eq!(status.code(), Some(2));
    names_each(&broker.log(), &places);
    assert!(!has_database(&broker));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_rule_starts_nothing() {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.policies.push_str(
        "@id(\"test/typo\")\n@reason(\"a typo\")\npermit (principal, action, resource)\n\
         when { resource.colour == 1 };\n",
    );
    let broker = Broker::configure(config);
    for command in ["check", "serve"] {
        let output = broker.command(&[command]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = said(&output);
        assert!(said.contains("test.cedar:") && said.contains("`colour`"), "{said}");
    }
    assert!(!has_database(&broker));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_is_checked_without_touching_anything() {
    let postgres = Postgres::start();
    let broker = Broker::configure(BrokerConfig::new(Store::Sqlite, Some(&postgres)));
    let output = broker.command(&["check"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(said(&output).contains("2 issuer(s), 2 backend(s), 3 role(s): no fault"), "{output:?}");
    assert!(!has_database(&broker));
    assert!(!postgres.log().contains("CREATE ROLE \"df_"), "a check mints nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_mints_uses_revokes_and_verifies_each_role() {
    let postgres = Postgres::start();
    let broker = Broker::configure(BrokerConfig::new(Store::Sqlite, Some(&postgres)));
    let output = broker.command(&["check", "--canary"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = said(&output);
    for role in ["reader", "greeter"] {
        for step in ["mint", "use", "revoke", "verify"] {
            assert!(said.contains(&format!("{role}: {step} ok")), "{said}");
        }
    }
    assert!(!said.contains("failed"), "{said}");
    let log = postgres.log();
    assert!(log.contains("CREATE ROLE") && log.contains("df_"), "it was really minted");
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
    assert!(!has_database(&broker));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_says_what_it_could_not_do() {
    let postgres = Postgres::start();
    let broker = Broker::configure(BrokerConfig::new(Store::Sqlite, Some(&postgres)));
    std::fs::write(broker.path().join("pg-password"), "not-the-password").unwrap();
    let output = broker.command(&["check", "--canary"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = said(&output);
    let line = said.lines().find(|line| line.starts_with("reader: mint failed"));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("password authentication failed"), "{line}");
    assert!(said.contains("greeter: mint ok"), "the others are tried all the same: {said}");
    assert!(!said.contains("not-the-password"), "{said}");
    assert_eq!(postgres.roles("df_"), Vec::<String>::new());
}
