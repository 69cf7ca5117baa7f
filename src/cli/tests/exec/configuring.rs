//! Configuration files: whose word counts, and what a checkout can't say.

use std::{
    fs,
    io::ErrorKind,
    net::TcpListener,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::PathBuf,
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    broker::{Broker, PASSWORD, postgres},
    program::{ID_TOKEN, dayfly, run},
};

/// A home with a repository in it, in which commands are run.
struct Place {
    root: TempDir,
}

impl Place {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("repository/.git")).unwrap();
        Self { root }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn project(&self, text: &str) {
        self.write("repository/.dayfly.toml", text);
    }

    fn user(&self, text: &str) {
        self.write(".config/dayfly/config.toml", text);
    }

    /// `dayfly` in the repository.
    fn dayfly(&self, url: &str, words: &[&str]) -> Command {
        let mut command = dayfly(url, words);
        command.current_dir(self.path("repository")).env("HOME", self.root.path());
        command
    }
}

const EXEC: [&str; 5] = ["exec", "--profile", "p", "--", "true"];
const PROFILE: &str = "[profile.p]\nroles = [\"r\"]\n";

fn url(broker: &Broker) -> String {
    format!("url = \"{}\"\n", broker.url)
}

#[test]
fn a_hostile_checkout_gets_no_connection() {
    // The system takes connections for it, so that none goes unseen.
    let evil = TcpListener::bind("127.0.0.1:0").unwrap();
    let evil_url = format!("http://{}", evil.local_addr().unwrap());
    let broker = Broker::granting(vec![postgres("r")]);
    let place = Place::new();
    place.project(&format!("url = \"{evil_url}\"\n{PROFILE}"));
    // Without a broker of one's own, with one of the environment, of a flag, of the user's file.
    for known in ["", broker.url.as_str()] {
        for words in [EXEC.as_slice(), &["exec", "--role", "r", "--", "true"]] {
            let finished = run(place.dayfly(known, words));
            assert_eq!(finished.code, Some(125), "{finished:?}");
            assert!(finished.err.contains("allowed_urls = ["), "{}", finished.err);
            assert!(finished.err.contains(".config/dayfly/config.toml"), "{}", finished.err);
            assert!(!finished.err.contains(ID_TOKEN), "{}", finished.err);
        }
        assert_eq!(run(place.dayfly(known, &["whoami"])).code, Some(2));
    }
    let typed = [["--url", broker.url.as_str()].as_slice(), &EXEC].concat();
    assert_eq!(run(place.dayfly("", &typed)).code, Some(125));
    place.user(&format!("{}allowed_urls = [\"{evil_url}/path\"]\n", url(&broker)));
    assert_eq!(run(place.dayfly("", &EXEC)).code, Some(125));
    assert_eq!(broker.requests().len(), 0);
    evil.set_nonblocking(true).unwrap();
    assert_eq!(evil.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_checkout_can_name_the_broker_that_the_user_allows() {
    let broker = Broker::granting(vec![postgres("r")]);
    let place = Place::new();
    place.project(&format!("{}{PROFILE}", url(&broker)));
    place.user(&format!("allowed_urls = [\"{}\"]\n", broker.url));
    let finished = run(place.dayfly("", &EXEC));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = run(place.dayfly(&broker.url, &EXEC));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(broker.requests().len(), 4);
}

#[test]
fn a_profile_says_what_flags_would() {
    let broker = Broker::granting(vec![postgres("r"), postgres("s")]);
    let place = Place::new();
    place.project(
        "[profile.p]\nroles = [\"A=r\"]\nttl = \"30m\"\npurpose = \"nightly\"\n\
         heartbeat = \"2m\"\nrevoke_timeout = \"3s\"\n",
    );
    let nested = place.path("repository/src/deep");
    fs::create_dir_all(&nested).unwrap();
    let words = ["exec", "--role", "B=s", "--ttl", "10m", "sh", "-c", "echo $A_PGUSER $B_PGUSER"];
    let mut command = place.dayfly(&broker.url, &words);
    command.current_dir(nested).env("DAYFLY_PROFILE", "p");
    let finished = run(command);
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "df_x df_x\n"), "{finished:?}");
    assert!(finished.err.contains("profile `p` of "), "{}", finished.err);
    let body = serde_json::json!({
        "purpose": "nightly", "ttl_seconds": 600, "heartbeat_seconds": 120, "roles": ["r", "s"]
    });
    let requests = broker.requests();
    assert_eq!(requests[0].body, body);
    assert_eq!(requests[1].target, "/api/v1/tasks/tsk_1/complete?wait=3s");
}

#[test]
fn a_profile_delivers_by_variables_and_files() {
    let broker = Broker::granting(vec![postgres("r")]);
    let place = Place::new();
    place.project(
        "[profile.p.env]\nWHO = \"r/username\"\n\
         [profile.p.file]\npgpass = { from = \"r\", env = \"PASSES\" }\n\
         [profile.p.rotate]\naction = \"signal:HUP\"\n",
    );
    let words = ["exec", "--profile", "p", "sh", "-c", "echo $WHO; cat \"$PASSES\""];
    // The only file is libpq's, which a running program does not go by alone.
    let refused = run(place.dayfly(&broker.url, &words));
    assert_eq!(refused.code, Some(125), "{refused:?}");
    assert!(refused.err.contains("pgpass has no user's name"), "{}", refused.err);
    assert_eq!(broker.requests().len(), 0);

    let typed = [&words[..3], &["--on-rotate", "none"], &words[3..]].concat();
    let finished = run(place.dayfly(&broker.url, &typed));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let lines: Vec<&str> = finished.out.lines().collect();
    assert_eq!(lines[0], "df_x");
    assert!(lines[1].contains(":df_x:") && lines[1].ends_with(PASSWORD), "{}", lines[1].len());
}

#[test]
fn what_a_file_says_wrong_starts_nothing_and_names_its_line() {
    let broker = Broker::granting(vec![postgres("r")]);
    let place = Place::new();
    for (text, expected) in [
        ("[profile.p]\nrols = [\"r\"]\n", ".dayfly.toml:2: profile.p.rols: unknown key"),
        (
            "[profile.p]\nroles = [\"r\"]\nttl = \"5\"\n",
            ".dayfly.toml:3: profile.p.ttl: expected a",
        ),
        ("[profile.p]\nttl = \"5m\"\n", "name a role"),
        ("[profile.q]\nroles = [\"r\"]\n", "there is no profile `p`"),
        ("token_file = \"/dev/null\"\n", ".dayfly.toml:1: token_file: is not for a project file"),
        ("url = \"x\n", ".dayfly.toml:1: this is not TOML"),
    ] {
        place.project(text);
        let finished = run(place.dayfly(&broker.url, &EXEC));
        assert_eq!(finished.code, Some(125), "{text}: {finished:?}");
        assert!(finished.err.contains(expected), "{text}: {}", finished.err);
    }
    assert_eq!(broker.requests().len(), 0);
}

#[test]
fn a_link_is_not_followed() {
    let broker = Broker::granting(vec![postgres("r")]);
    let place = Place::new();
    place.write("elsewhere.toml", PROFILE);
    symlink(place.path("elsewhere.toml"), place.path("repository/.dayfly.toml")).unwrap();
    let finished = run(place.dayfly(&broker.url, &EXEC));
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err.contains("symbolic link"), "{}", finished.err);
    let mut named = place.dayfly(&broker.url, &EXEC);
    named.env("DAYFLY_PROJECT_FILE", place.path("elsewhere.toml"));
    assert_eq!(run(named).code, Some(0));
}

#[test]
fn another_users_checkout_is_read_only_by_its_name() {
    let broker = Broker::granting(vec![postgres("r")]);
    let place = Place::new();
    place.project(PROFILE);
    let file = place.path("repository/.dayfly.toml");
    if chown(&file, Some(12_345), None).is_err() {
        // Only root can give a file away; what follows from that is in the unit tests.
        return;
    }
    let finished = run(place.dayfly(&broker.url, &EXEC));
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.err.contains("DAYFLY_PROJECT_FILE="), "{}", finished.err);
    assert_eq!(broker.requests().len(), 0);
    let mut named = place.dayfly(&broker.url, &EXEC);
    named.env("DAYFLY_PROJECT_FILE", &file);
    let finished = run(named);
    assert_eq!(finished.code, Some(0), "{finished:?}");
}

#[test]
fn what_is_in_force_is_shown_with_its_origin() {
    let place = Place::new();
    place.project(&format!("url = \"https://evil.example\"\n{PROFILE}"));
    place.user("audience = \"https://broker.example.com\"\nidentity = \"aws\"\n");
    let shown = |known: &str| {
        let words = ["config", "show", "--output", "json"];
        let finished = run(place.dayfly(known, &words));
        let value: Value = serde_json::from_str(&finished.out).unwrap();
        (finished.code, value)
    };
    let (code, refused) = shown("");
    assert_eq!(code, Some(2));
    assert!(refused["problems"][0].as_str().unwrap().contains("evil.example"), "{refused}");
    let setting = |value: &Value, name: &str| {
        let settings = value["settings"].as_array().unwrap();
        let found = settings.iter().find(|setting| setting["name"] == name)?;
        Some((found["value"].as_str()?.to_owned(), found["from"].as_str()?.to_owned()))
    };
    assert_eq!(setting(&refused, "url"), None);
    let (code, allowed) = shown("https://evil.example/");
    assert_eq!(code, Some(0), "{allowed}");
    let url = ("https://evil.example/".to_owned(), "DAYFLY_URL".to_owned());
    assert_eq!(setting(&allowed, "url"), Some(url));
    let (value, from) = setting(&allowed, "audience").unwrap();
    assert_eq!(value, "https://broker.example.com");
    assert!(from.ends_with(".config/dayfly/config.toml:1"), "{from}");
    // The environment has a token.
    assert_eq!(setting(&allowed, "identity"), None);
    assert_eq!(allowed["profiles"][0]["flags"], serde_json::json!(["--role=r"]));
    let table = run(place.dayfly("https://evil.example", &["config", "show"]));
    assert!(table.out.contains("profile p") && !table.out.contains(ID_TOKEN), "{}", table.out);
}

#[test]
fn a_file_to_begin_with_is_written_once() {
    let place = Place::new();
    assert_eq!(run(place.dayfly("", &["config", "init"])).code, Some(0));
    assert_eq!(run(place.dayfly("", &["config", "show"])).code, Some(0));
    let path = place.path("repository/.dayfly.toml");
    fs::write(&path, PROFILE).unwrap();
    let again = run(place.dayfly("", &["config", "init"]));
    assert_eq!(again.code, Some(2));
    assert_eq!(fs::read_to_string(path).unwrap(), PROFILE);
}
