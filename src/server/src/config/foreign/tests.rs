use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use serde::Deserialize;

use super::*;
use crate::config::{fault::Report, tree};

/// Everything that a backend's settings may be made of.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    host: String,
    port: NonZeroU16,
    address: SocketAddr,
    limit: Option<u8>,
    #[serde(default)]
    tls: Tls,
    mode: Mode,
    pool: Pool,
    #[serde(default)]
    set: BTreeMap<String, String>,
    ca_file: Option<PathBuf>,
    #[serde(default)]
    ratio: f64,
    #[serde(default)]
    statements: Vec<String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tls {
    Disable,
    #[default]
    VerifyFull,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    Plain,
    Limited { rate: u32 },
    Named(String),
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pool {
    size: u32,
    wait: u32,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[expect(dead_code, reason = "only its faults are looked at")]
enum Tagged {
    One { size: u32 },
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, Vec<String>> {
    let report = Report::default();
    let table = tree::parse(text, "a.toml", &report);
    assert!(report.into_faults().is_empty(), "{text}");
    let at = At { line: 1, column: 1, ..At::file("a.toml") };
    let faults = deserialize(&at, "backend.b", &table);
    faults.map_err(|refused| {
        let mut faults = [refused.absent, refused.wrong].concat();
        faults.sort();
        faults.iter().map(ToString::to_string).collect()
    })
}

const GOOD: &str = r#"host = "db"
port = 5432
address = "127.0.0.1:1"
mode = { limited = { rate = 3 } }
pool = { size = 1, wait = 2 }
tls = "disable"
ratio = 1
set = { a = "b" }
statements = ["x"]
"#;

#[test]
fn what_is_right_is_read() {
    let settings: Settings = read(GOOD).unwrap();
    assert_eq!(settings.mode, Mode::Limited { rate: 3 });
    assert_eq!(settings.tls, Tls::Disable);
    assert_eq!(settings.pool, Pool { size: 1, wait: 2 });
    assert_eq!((settings.limit, settings.statements.len()), (None, 1));
    assert_eq!(settings.set.get("a").map(String::as_str), Some("b"));
    let named: Settings =
        read(&GOOD.replace("{ limited = { rate = 3 } }", "{ named = \"x\" }")).unwrap();
    assert_eq!(named.mode, Mode::Named("x".to_owned()));
    let plain: Settings = read(&GOOD.replace("{ limited = { rate = 3 } }", "\"plain\"")).unwrap();
    assert_eq!(plain.mode, Mode::Plain);
}

#[test]
fn every_key_that_is_missing_is_named_at_once() {
    let faults = read::<Settings>("ratio = 0.5\n").unwrap_err();
    let missing = ["address", "host", "mode", "pool", "port"];
    let missing =
        missing.map(|key| format!("a.toml:1:1: backend.b.{key}: the key `{key}` is missing"));
    assert_eq!(faults, missing);
}

#[test]
fn every_fault_is_reported_at_once_and_in_place() {
    let text = r#"hots = "db"
port = 0
address = "nowhere"
limit = 256
tls = "verify-ful"
mode = { limited = { rate = "fast" } }
set = { a = "b", c = 1, d = "" }
statements = ["x", 2, "y", 3]
ratio = 1979-05-27
[pool]
siez = 1
wait = -1
"#;
    let faults = read::<Settings>(text).unwrap_err();
    assert_eq!(
        faults,
        [
            "a.toml:1:1: backend.b.host: the key `host` is missing",
            "a.toml:1:1: backend.b.hots: unknown key (did you mean `host`?)",
            "a.toml:2:8: backend.b.port: expected a whole number, 1 or more",
            "a.toml:3:11: backend.b.address: invalid socket address syntax",
            "a.toml:4:9: backend.b.limit: expected a whole number from 0 to 255",
            "a.toml:5:7: backend.b.tls: expected \"disable\" or \"verify-full\" (did you mean `verify-full`?)",
            "a.toml:6:29: backend.b.mode.limited.rate: expected a whole number, 0 or more, found text",
            "a.toml:7:22: backend.b.set.c: expected text, found a whole number",
            "a.toml:7:29: backend.b.set.d: must not be empty",
            "a.toml:8:20: backend.b.statements[1]: expected text, found a whole number",
            "a.toml:8:28: backend.b.statements[3]: expected text, found a whole number",
            "a.toml:9:9: backend.b.ratio: expected f64, found a date or time",
            "a.toml:10:1: backend.b.pool.size: the key `size` is missing",
            "a.toml:11:1: backend.b.pool.siez: unknown key (did you mean `size`?)",
            "a.toml:12:8: backend.b.pool.wait: expected a whole number, 0 or more",
        ]
    );
}

#[test]
fn an_enum_is_one_word_or_one_key() {
    for (mode, fault) in [
        ("\"limited\"", "expected"),
        ("{ limited = { rate = 1 }, named = \"a\" }", "exactly one key"),
        ("{}", "exactly one key"),
        ("{ limted = { rate = 1 } }", "did you mean `limited`?"),
        ("7", "expected"),
    ] {
        let text = GOOD.replace("{ limited = { rate = 3 } }", mode);
        let faults = read::<Settings>(&text).unwrap_err();
        assert!(matches!(faults.as_slice(), [one] if one.contains(fault)), "{mode}: {faults:?}");
    }
}

#[test]
fn a_tagged_section_has_its_faults_in_place() {
    assert!(read::<Tagged>("kind = \"one\"\nsize = 1\n").is_ok());
    for (text, fault) in [
        ("kind = \"one\"\nsize = 1\nsiez = 2\n", "a.toml:3:1: backend.b.siez: unknown key"),
        ("kind = \"one\"\n", "a.toml:1:1: backend.b.size: the key `size` is missing"),
        ("kind = \"oen\"\nsize = 1\n", "(did you mean `one`?)"),
    ] {
        let faults = read::<Tagged>(text).unwrap_err();
        assert!(matches!(faults.as_slice(), [one] if one.contains(fault)), "{text}: {faults:?}");
    }
}

#[test]
fn a_type_that_takes_no_stand_in_still_has_its_fault() {
    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only its faults are looked at")]
    struct Strange {
        never: Never,
        size: u32,
    }
    #[derive(Debug, Deserialize)]
    #[serde(try_from = "String")]
    struct Never;
    impl TryFrom<String> for Never {
        type Error = String;
        fn try_from(_: String) -> Result<Self, String> {
            Err("never right".to_owned())
        }
    }
    let faults = read::<Strange>("never = \"x\"\nsize = \"y\"\n").unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults.iter().any(|fault| fault.contains("never right")), "{faults:?}");
}
