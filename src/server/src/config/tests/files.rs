//! Files and directories: encodings, halves, merges, bounds.

use std::{io::Write, os::unix::fs::OpenOptionsExt};

use super::*;

/// Writes a file with its directories and its mode.
pub(super) fn write(path: &Path, bytes: &[u8], mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true).mode(mode).open(path).unwrap().write_all(bytes).unwrap();
}

fn load_bytes(bytes: &[u8]) -> Result<Config, Faults> {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("dayfly.toml");
    write(&file, bytes, 0o600);
    load(&file, &no_env)
}

fn places(faults: &Faults) -> Vec<(usize, &str)> {
    faults.0.iter().map(|fault| (fault.line, fault.key.as_str())).collect()
}

#[test]
fn a_byte_order_mark_and_crlf_move_no_line() {
    let text = format!("\u{feff}{}tll = 1\r\n", GOOD.trim_start().replace('\n', "\r\n"));
    let faults = load_bytes(text.as_bytes()).unwrap_err();
    assert_eq!(places(&faults), [(7, "policies.tll")]);
    assert_eq!(faults.0.first().unwrap().column, 1);
    let text = text.replace("tll = 1\r\n", "");
    assert!(load_bytes(text.as_bytes()).is_ok());
}

#[test]
fn columns_count_characters() {
    let faults = faults_of(&format!("{GOOD}[server]\ntls = {{ \"ключ\" = \"é\", b = 1 }}\n"));
    let unknown: Vec<_> = faults.iter().filter(|fault| fault.message == "unknown key").collect();
    let columns: Vec<_> = unknown.iter().map(|fault| fault.column).collect();
    assert_eq!(columns, [9, 23]);
}

#[test]
fn what_is_not_utf_8_has_a_line() {
    let faults = load_bytes(b"[store]\nkind = \"sqlite\"\npath = \"\xff\"\n").unwrap_err();
    assert_eq!(places(&faults), [(3, "")]);
    assert!(faults.to_string().contains("not UTF-8"));
}

/// A file that is cut anywhere is refused, or is whole as far as it goes.
#[test]
fn a_half_written_file_never_panics_and_never_loads_a_cut_value() {
    let text = format!("{GOOD}{ISSUER}{BACKEND}{ROLE}labels = {{ risk = \"low\" }}\n");
    let dir = TempDir::new().unwrap();
    for (cut, _) in text.char_indices() {
        let half = text.get(..cut).unwrap();
        match parse_in(dir.path(), half) {
            Err(Faults(faults)) => assert!(!faults.is_empty(), "{half}"),
            Ok(config) => {
                assert!(config.roles.iter().all(|role| role.owner == "orders-team"), "{half}");
            }
        }
    }
    let half = text.get(..text.find("eader").unwrap()).unwrap();
    let faults = faults_of(half);
    assert_eq!(faults.len(), 1, "{}", Faults(faults));
    assert!(faults.first().unwrap().message.starts_with("this is not TOML"));
}

#[test]
fn broken_syntax_hides_no_other_fault_and_invents_none() {
    let text = format!("{GOOD}{BACKEND}{}tll = 1\n", ROLE.replace("\"15m\"", "15m"));
    let faults = faults_of(&text);
    let found: Vec<_> = faults.iter().map(|fault| (fault.line, fault.key.as_str())).collect();
    assert_eq!(found, [(18, ""), (20, "role.reader.tll")]);
    // With a broken header nobody knows where the keys below it belong.
    let faults = faults_of(&GOOD.replace("[policies]", "[policies"));
    assert_eq!(faults.len(), 1, "{}", Faults(faults));
}

#[test]
fn a_section_twice_is_a_fault() {
    let faults = Faults(faults_of(&format!("{GOOD}[tasks]\n[server]\n[tasks]\n")));
    assert_eq!(places(&faults), [(10, "tasks")]);
    assert!(faults.to_string().contains("there already"), "{faults}");
}

#[test]
fn a_directory_is_one_configuration() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("a.toml"), format!("{GOOD}{BACKEND}").as_bytes(), 0o600);
    write(&dir.path().join("b.toml"), ROLE.as_bytes(), 0o600);
    write(&dir.path().join("c.toml"), ROLE.replace("reader", "writer").as_bytes(), 0o600);
    write(&dir.path().join(".b.toml"), b"not toml", 0o600);
    write(&dir.path().join("README"), b"not toml", 0o600);
    let config = load(dir.path(), &no_env).unwrap();
    let roles: Vec<_> = config.roles.iter().map(|role| role.name.as_str()).collect();
    assert_eq!(roles, ["reader", "writer"]);
    assert_eq!(config.policies.dir, dir.path().join("."));

    write(&dir.path().join("d.toml"), format!("[tasks]\n[store]\n{ROLE}").as_bytes(), 0o600);
    let faults = load(dir.path(), &no_env).unwrap_err();
    assert_eq!(places(&faults), [(2, "store"), (5, "role.reader.name")]);
    let text = faults.to_string();
    assert!(text.contains("d.toml:2:2: store") && text.contains("a.toml:2"), "{text}");
    assert!(text.contains("b.toml:3"), "{text}");
}

#[test]
fn bounds() {
    let dir = TempDir::new().unwrap();
    let faults = load(dir.path(), &no_env).unwrap_err();
    assert!(faults.to_string().contains("no *.toml file"), "{faults}");
    let faults = load(&dir.path().join("none.toml"), &no_env).unwrap_err();
    assert_eq!(faults.0.first().unwrap().line, 0);
    assert!(faults.to_string().contains("none.toml: "), "{faults}");

    let mut text = GOOD.to_owned();
    text.push_str(&"#".repeat(1024 * 1024 - text.len()));
    assert!(load_bytes(text.as_bytes()).is_ok());
    text.push('#');
    assert!(load_bytes(text.as_bytes()).unwrap_err().to_string().contains("larger than 1 MiB"));

    for number in 0..65 {
        write(&dir.path().join(format!("{number}.toml")), b"", 0o600);
    }
    let faults = load(dir.path(), &no_env).unwrap_err();
    assert!(faults.to_string().contains("more than 64"), "{faults}");
}

#[test]
fn noise_makes_a_report_with_an_end() {
    let faults = faults_of(&"a\n".repeat(500_000));
    assert!(faults.len() <= 500, "{}", faults.len());
    let deep = format!("{GOOD}{BACKEND}x = {}", "[".repeat(200_000));
    assert!(!faults_of(&deep).is_empty());
}

#[test]
fn a_private_key_of_tls_is_private() {
    let dir = TempDir::new().unwrap();
    write(&dir.path().join("chain.pem"), b"chain", 0o644);
    write(&dir.path().join("key.pem"), b"key", 0o644);
    let tls = "[server]\nlisten = \"0.0.0.0:8420\"\n\
               tls = { cert_file = \"chain.pem\", key_file = \"key.pem\" }\n";
    let faults = parse_in(dir.path(), &format!("{GOOD}{tls}")).unwrap_err();
    assert_eq!(places(&faults), [(10, "server.tls.key_file")]);
    fs::remove_file(dir.path().join("key.pem")).unwrap();
    write(&dir.path().join("key.pem"), b"key", 0o600);
    assert!(parse_in(dir.path(), &format!("{GOOD}{tls}")).is_ok());
    let both = format!("{GOOD}{tls}behind_tls_proxy = true\n");
    let faults = parse_in(dir.path(), &both).unwrap_err();
    assert_eq!(places(&faults), [(11, "server.behind_tls_proxy")]);
}
