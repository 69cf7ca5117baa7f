//! What `dayfly` does for people: real shells complete it, a real formatter reads its manual, a real
//! broker is asked.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use dayfly_integration::{Broker, BrokerConfig, Store, program, root};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `dayfly` without any configuration.
fn dayfly(words: &[&str]) -> Command {
    let mut command = Command::new(program("dayfly"));
    command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.stdin(Stdio::null());
    command
}

fn out(output: Output) -> String {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    // What a shell or a formatter complains of is a fault too.
    assert_eq!(err, "", "{out}");
    out
}

fn printed(words: &[&str]) -> String {
    out(dayfly(words).output().unwrap())
}

/// A place with the script of `shell`.
fn place(shell: &str, name: &str) -> TempDir {
    let home = tempfile::Builder::new().prefix("dfp").tempdir().unwrap();
    fs::write(home.path().join(name), printed(&["completion", shell])).unwrap();
    home
}

/// Types `keys` at an interactive `shell` that runs in `home`, until it says `expected`. There
/// `dayfly` says what it was called with.
fn typed(shell: &[&str], home: &Path, keys: &str, expected: &str) {
    let steps = json!([
        { "expect": "$ " },
        { "send": keys },
        // A tab among keys that wait already may be taken for pasted text.
        { "pause": 1 },
        { "send": "\n" },
        { "expect": expected },
        { "expect": "$ " },
        { "send": "exit\n" },
    ]);
    let mut command = Command::new("python3");
    command.arg(root().join("integration/peers/terminal.py")).arg(steps.to_string()).args(shell);
    command.current_dir(home).env("HOME", home).env("ZDOTDIR", home).env("TERM", "dumb");
    let output = command.stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{keys:?}: {}\n{shown}", output.status);
}

const LINES: [(&str, &str); 5] = [
    ("dayfly lea\tli\t", "got:lease list"),
    ("dayfly lease ren\t", "got:lease renew"),
    ("dayfly lease list --state aban\t", "got:lease list --state abandoned"),
    ("dayfly --color nev\twho\t--qui\t", "got:--color never whoami --quiet"),
    ("dayfly credential pgp\t", "got:credential pgpass"),
];

#[test]
fn bash_completes_commands_flags_and_values() {
    let home = place("bash", "dayfly.bash");
    let rc = "PS1='$ '\ndayfly() { echo \"got:$*\"; }\n. ./dayfly.bash\n";
    fs::write(home.path().join("rc"), rc).unwrap();
    for (keys, expected) in LINES {
        typed(&["bash", "--noprofile", "--rcfile", "rc", "-i"], home.path(), keys, expected);
    }
}

/// As packages install it: a function that is loaded when it is first needed.
#[test]
fn zsh_completes_commands_flags_and_values() {
    let home = place("zsh", "_dayfly");
    let rc = "PS1='$ '\nfpath=($PWD $fpath)\nautoload -U compinit\ncompinit -u -D\n\
              dayfly() { print -r -- \"got:$*\" }\n";
    fs::write(home.path().join(".zshrc"), rc).unwrap();
    for (keys, expected) in LINES {
        typed(&["zsh", "-d", "-i"], home.path(), keys, expected);
    }
}

#[test]
fn fish_completes_commands_flags_and_values() {
    let home = place("fish", "dayfly.fish");
    for (line, expected) in [
        ("dayfly lease ren", "renew\tLet a lease live longer"),
        ("dayfly lease list --state aban", "abandoned"),
        // Its parser of options knows no value in a word of its own before the command.
        ("dayfly --color=nev", "never\tNot at all"),
        ("dayfly lease list --sta", "--state\t"),
    ] {
        let script = format!("source dayfly.fish; complete -C '{line}'");
        let mut command = Command::new("fish");
        command.args(["--no-config", "-c", &script]).current_dir(home.path());
        let offered = out(command.env("HOME", home.path()).stdin(Stdio::null()).output().unwrap());
        assert!(offered.contains(expected), "{line}: {offered}");
    }
}

/// No package of Debian's has PowerShell, so that nothing here runs its script.
#[test]
fn powershells_script_names_every_command() {
    let script = printed(&["completion", "powershell"]);
    let page = printed(&["man"]);
    let commands = page.lines().filter_map(|line| {
        line.strip_prefix("dayfly\\-")?.strip_suffix("(1)").map(|name| name.replace('\\', ""))
    });
    let commands: Vec<String> = commands.collect();
    assert!(commands.len() >= 12, "{commands:?}");
    for command in commands {
        assert!(script.contains(&format!("'dayfly;{command}'")), "{command}");
    }
}

/// What `groff` warns of would be missing from a page, or would stand where it should not.
#[test]
fn each_page_of_the_manual_is_read_without_a_warning() {
    let home = tempfile::tempdir().unwrap();
    printed(&["man", "--directory", home.path().to_str().unwrap()]);
    let pages: Vec<_> = fs::read_dir(home.path()).unwrap().map(Result::unwrap).collect();
    assert!(pages.len() > 30, "{pages:?}");
    for page in &pages {
        let mut groff = Command::new("groff");
        let groff =
            groff.args(["-k", "-man", "-Tutf8", "-ww", "-P-c", "-P-b", "-P-u"]).arg(page.path());
        let text = out(groff.stdin(Stdio::null()).output().unwrap());
        // Lines are filled with spaces to one width.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let name = page.file_name().into_string().unwrap();
        let name = name.strip_suffix(".1").unwrap();
        assert!(text.contains(&format!("{name} - ")), "{text}");
        assert!(text.contains("--quiet") && text.contains("SYNOPSIS"), "{text}");
        // Each page that it refers to is there.
        for word in text.split_whitespace().filter_map(|word| word.strip_suffix("(1)")) {
            assert!(home.path().join(format!("{word}.1")).exists(), "{name}: {word}");
        }
    }
    let first = fs::read_to_string(home.path().join("dayfly.1")).unwrap();
    assert_eq!(first, printed(&["man"]));
}

/// A broker, and `dayfly` with a token for it.
struct Desk {
    broker: Broker,
}

impl Desk {
    async fn new() -> Self {
        Self { broker: Broker::start(BrokerConfig::new(Store::Sqlite, None)).await }
    }

    fn ask(&self, token: &str, words: &[&str]) -> Output {
        let mut command = dayfly(words);
        command.env("DAYFLY_URL", self.broker.client().url()).env("DAYFLY_TOKEN", token);
        command.output().unwrap()
    }

    /// Opens a task for `ttl_seconds`; its id and token.
    async fn open(&self, subject: &str, ttl_seconds: u32) -> (String, String) {
        let client = self.broker.client().with(&self.broker.issuer.token(subject));
        let body = json!({ "purpose": format!("by {subject}"), "ttl_seconds": ttl_seconds });
        let opened = client.post("/api/v1/tasks", body).await.expect(201);
        (opened.text("/id"), opened.text("/token"))
    }
}

fn ids(listed: &str) -> Vec<String> {
    let page: Value = serde_json::from_str(listed).unwrap();
    let tasks = page["data"].as_array().unwrap().iter();
    tasks.map(|task| task["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_listed_by_state_and_by_whose_they_are() {
    let desk = Desk::new().await;
    let admin = desk.broker.admin();
    let (first, token) = desk.open("one", 600).await;
    let (second, _) = desk.open("two", 600).await;
    out(desk.ask(&token, &["task", "complete", &first]));
    let list = |words: &[&str]| {
        let words = [&["task", "list", "--output", "json"], words].concat();
        ids(&out(desk.ask(&admin, &words)))
    };
    // Newest first.
    assert_eq!(list(&[]), [&*second, &*first]);
    assert_eq!(list(&["--state", "open"]), [&*second]);
    assert_eq!(list(&["--state", "completed"]), [&*first]);
    assert_eq!(list(&["--principal", "ci|one"]), [first]);
    assert_eq!(list(&["--issuer", "ci", "--state", "lost"]), Vec::<String>::new());
    let table = out(desk.ask(&admin, &["task", "list"]));
    assert!(table.starts_with("ID ") && table.contains("by two"), "{table}");
    let one = desk.ask(&admin, &["task", "list", "--limit", "1"]);
    assert!(String::from_utf8(one.stderr).unwrap().contains("more than 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_renewed_within_what_its_role_and_its_task_allow() {
    let desk = Desk::new().await;
    let (_, token) = desk.open("long", 1800).await;
    let lease = desk.broker.client().with(&token).mint("greeter").await.expect(201).text("/id");
    let whole = desk.ask(&token, &["lease", "renew", &lease, "--ttl", "10m"]);
    let shown = out(whole);
    assert!(shown.contains(&lease) && shown.contains("10m"), "{shown}");
    let less = desk.ask(&token, &["lease", "renew", &lease, "--ttl", "2h", "--output", "json"]);
    assert_eq!(less.status.code(), Some(0), "{less:?}");
    let granted: Value = serde_json::from_slice(&less.stdout).unwrap();
    assert_eq!(granted["truncated"], true, "{granted}");
    let told = String::from_utf8(less.stderr).unwrap();
    assert!(told.starts_with(&format!("dayfly: warning: lease {lease} was given ")), "{told}");
    let expires = granted["expires_at"].as_str().unwrap();
    assert!(told.contains("of the 2h that were asked for") && told.contains(expires), "{told}");
    let none = desk.ask(&token, &["lease", "renew", "lse_none", "--ttl", "10m"]);
    assert_eq!(none.status.code(), Some(3), "{none:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistyped_role_is_answered_with_one_that_the_caller_may_have() {
    let desk = Desk::new().await;
    let exec = |role: &str| {
        let file = desk.broker.path().join("identity-token");
        fs::write(&file, desk.broker.issuer.token("typist")).unwrap();
        let words = ["exec", "--token-file", file.to_str().unwrap(), "--role", role, "--", "true"];
        let ran = desk.ask("", &words);
        assert_eq!(ran.status.code(), Some(125), "{ran:?}");
        String::from_utf8(ran.stderr).unwrap()
    };
    let meant = exec("greter");
    assert!(meant.ends_with("; did you mean `greeter`?\n"), "{meant}");
    // This one is there, and not for the caller: nobody learns that.
    let hidden = exec("forbiden");
    assert!(!hidden.contains("did you mean") && !hidden.contains("forbidden"), "{hidden}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_brokers_version_is_shown_beside_our_own() {
    let desk = Desk::new().await;
    let both = out(desk.ask("", &["version", "--broker", "--output", "json"]));
    let both: Value = serde_json::from_str(&both).unwrap();
    assert_eq!(both["broker"]["version"], both["version"], "{both}");
}
