//! `dayfly exec` at a terminal: what a shell, a person and a program with a screen of its own expect
//! of it. The shell is a real one, with job control.

mod ends;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    time::Duration,
};

use dayfly_integration::{Broker, BrokerConfig, Store, eventually, program, root};
use serde_json::{Value, json};
use tempfile::TempDir;

const END: &str = "\u{4}";
const INTERRUPT: &str = "\u{3}";
const SUSPEND: &str = "\u{1a}";

struct Desk {
    broker: Broker,
    /// Where the scripts are that are run.
    home: TempDir,
}

impl Desk {
    async fn new() -> Self {
        Self::with("").await
    }

    /// With `more` in the broker's configuration.
    async fn with(more: &str) -> Self {
        let mut config = BrokerConfig::new(Store::Sqlite, None);
        config.more.push_str(more);
        let broker = Broker::start(config).await;
        Self { broker, home: tempfile::Builder::new().prefix("dft").tempdir().unwrap() }
    }

    /// What is typed at the shell to run `script` with a credential.
    fn line(&self, name: &str, script: &str) -> String {
        let path = self.home.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let token = self.home.path().join("token");
        fs::write(&token, self.broker.issuer.token("terminal")).unwrap();
        format!("dayfly exec -q --token-file token --role greeter -- ./{name}\n")
    }

    /// Everything that the terminal showed while `steps` were played at a shell.
    fn play(&self, steps: &[Value]) -> String {
        let output = self.play_until(steps);
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}: {}\n{shown}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        shown
    }

    /// The same, however the shell ended.
    fn play_until(&self, steps: &[Value]) -> Output {
        let prompt = json!({ "expect": "$ " });
        let steps = [&[prompt], steps].concat();
        let mut command = Command::new("python3");
        command.arg(root().join("integration/peers/terminal.py")).arg(json!(steps).to_string());
        fs::write(self.home.path().join("rc"), "PS1='$ '\n").unwrap();
        command.args(["bash", "--rcfile", "rc", "-i"]).current_dir(self.home.path());
        let own = program("dayfly").parent().unwrap().display().to_string();
        // The one that this test was started with finds python3.
        command.env("PATH", format!("{own}:{}", path())).env("TERM", "dumb");
        command.env("DAYFLY_URL", self.broker.client().url()).stdin(Stdio::null());
        for name in ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "TF_BUILD", "JENKINS_URL"] {
            command.env_remove(name);
        }
        let output = command.output().unwrap();
        assert_ne!(output.status.code(), Some(99), "{output:?}");
        output
    }

    /// What is typed at the shell to have `dayfly` do `words` as the administrator, at a terminal
    /// that can do more than a typewriter.
    fn ask(&self, words: &str) -> String {
        fs::write(self.home.path().join("admin"), self.broker.admin()).unwrap();
        format!("TERM=xterm dayfly {words} --token-file admin")
    }

    /// What freezes the broker for a while.
    fn freeze(&self) -> String {
        let pid = self.broker.pid();
        format!("kill -STOP {pid}; (sleep 2.7; kill -CONT {pid}) &")
    }

    async fn outcome(&self) -> String {
        let admin = self.broker.client().with(&self.broker.admin());
        let tasks = admin.get("/api/v1/tasks").await.unwrap().expect(200);
        tasks.text("/data/0/state")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own environment, not the broker's")]
fn path() -> String {
    std::env::var("PATH").unwrap()
}

fn send(keys: &str) -> Value {
    json!({ "send": keys })
}

fn expect(text: &str) -> Value {
    json!({ "expect": text })
}

/// A program that asks at ^C whether that was meant would be ended by a second one.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_reaches_the_command_once() {
    let desk = Desk::new().await;
    let script = "n=0; trap 'n=$((n+1))' INT; echo re''ady\n\
                  i=0; while [ $i -lt 30 ]; do sleep 0.05; i=$((i+1)); done; echo interrupts:$n";
    let line = desk.line("count", script);
    let shown = desk.play(&[
        send(&line),
        expect("ready"),
        send(INTERRUPT),
        expect("interrupts:1"),
        expect("$ "),
        send(END),
    ]);
    assert!(!shown.contains("interrupts:2"), "{shown}");
    assert_eq!(desk.outcome().await, "completed");
}

/// And the shell sees that it was interrupted, so that a loop around it ends too.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_dies_of_an_interrupt_ends_the_loop_around_it() {
    let desk = Desk::new().await;
    let line = desk.line("wait", "echo re''ady; exec sleep 30");
    let run = line.trim();
    desk.play(&[
        send(&format!("while :; do {run}; echo ag''ain; done; echo en''ded\n")),
        expect("ready"),
        send(INTERRUPT),
        expect("$ "),
        send("echo code:$?\n"),
        expect("code:130"),
        expect("$ "),
        send(END),
    ]);
    assert_eq!(desk.outcome().await, "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_stops_and_goes_on_and_reads_from_the_terminal() {
    let desk = Desk::new().await;
    let line = desk.line("ask", "echo re''ady; read answer; echo got:$answer");
    desk.play(&[
        send(&line),
        expect("ready"),
        send(SUSPEND),
        expect("Stopped"),
        // What is typed before the shell reads again may lose its first key.
        expect("$ "),
        // Longer than a beat of the heart, which is then due at once.
        send("echo me''anwhile\n"),
        expect("meanwhile"),
        expect("$ "),
        send("fg\n"),
        expect("./ask"),
        send("hello\n"),
        expect("got:hello"),
        expect("$ "),
        send(END),
    ]);
    assert_eq!(desk.outcome().await, "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_windows_size_reaches_the_command_once() {
    let desk = Desk::new().await;
    let script = "n=0; trap 'n=$((n+1)); stty size' WINCH; echo re''ady\n\
                  i=0; while [ $i -lt 30 ]; do sleep 0.05; i=$((i+1)); done; echo changes:$n";
    let line = desk.line("resize", script);
    desk.play(&[
        send(&line),
        expect("ready"),
        json!({ "size": [41, 103] }),
        expect("41 103"),
        expect("changes:1"),
        expect("$ "),
        send(END),
    ]);
}

/// As an editor does it: ^C is a key like any other there, and the terminal is as it was after.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_with_a_raw_terminal_gets_every_key_and_leaves_the_terminal_as_it_was() {
    let desk = Desk::new().await;
    let script = "old=$(stty -g); stty raw -echo; echo re''ady\n\
                  key=$(dd bs=1 count=1 2>/dev/null | od -An -tu1); stty \"$old\"\n\
                  echo key:$((key))";
    let line = desk.line("edit", script);
    let run = line.trim();
    let line =
        format!("stty -g >before; {run}; stty -g >after; cmp before after && echo same''-mode\n");
    desk.play(&[
        send(&line),
        expect("ready"),
        send(INTERRUPT),
        expect("key:3"),
        expect("same-mode"),
        expect("$ "),
        send(END),
    ]);
    assert_eq!(desk.outcome().await, "completed");
}

/// Nothing takes the terminal away, and the command is told so by no output of ours.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_looks_finds_a_terminal() {
    let desk = Desk::new().await;
    let line = desk.line("look", "test -t 0 && test -t 1 && test -t 2 && echo all''-three");
    desk.play(&[send(&line), expect("all-three"), expect("$ "), send(END)]);
}

/// Without control sequences, wide characters counted as what they take.
fn columns(line: &str) -> usize {
    let mut rest = line.replace("\x1b[0m", "");
    for code in ["1;31", "32", "33"] {
        rest = rest.replace(&format!("\x1b[{code}m"), "");
    }
    assert!(!rest.contains('\x1b'), "{line:?}");
    rest.chars().map(|c| if c < '\u{2e80}' { 1 } else { 2 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_fit_the_terminal_and_show_states_in_colour() {
    let desk = Desk::new().await;
    let client = desk.broker.client().with(&desk.broker.issuer.token("nightly"));
    let purpose = "夜間バッチ、".repeat(12);
    let body = json!({ "purpose": purpose, "ttl_seconds": 600 });
    client.post("/api/v1/tasks", body).await.expect(201);
    let list = desk.ask("task list");
    let shown = desk.play(&[
        json!({ "size": [30, 90] }),
        send(&format!("{list}; echo en''ded\n")),
        expect("ended"),
        expect("$ "),
        send(&format!("NO_COLOR=1 {list}; echo en''ded\n")),
        expect("ended"),
        expect("$ "),
        send(&format!("{list} | cat; echo en''ded\n")),
        expect("ended"),
        expect("$ "),
        send(END),
    ]);
    let rows: Vec<&str> = shown.lines().map(|line| line.trim_end_matches('\r')).collect();
    let rows: Vec<&str> = rows.into_iter().filter(|row| row.starts_with("tsk_")).collect();
    let [coloured, plain, piped] = rows[..] else { panic!("{shown}") };
    assert!(coloured.contains("\x1b[32mopen\x1b[0m"), "{coloured:?}");
    assert!(plain.contains("  open  ") && !plain.contains('\x1b'), "{plain:?}");
    for row in [coloured, plain] {
        assert!(row.contains('…') && columns(row) <= 90, "{} {row:?}", columns(row));
    }
    assert!(piped.contains(&purpose) && !piped.contains('\x1b'), "{piped:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_and_help_are_coloured_at_a_terminal_that_can() {
    let desk = Desk::new().await;
    let mistyped = "dayfly lease lsit";
    let shown = desk.play(&[
        send(&format!("{}; echo en''ded\n", desk.ask("lease show lse_none"))),
        expect("dayfly: \x1b[1;31merror[not_found]:\x1b[0m "),
        expect("ended"),
        expect("$ "),
        send(&format!("TERM=xterm {mistyped}; echo en''ded\n")),
        expect("\x1b["),
        expect("ended"),
        expect("$ "),
        send(&format!("echo fr''om; {mistyped} 2>&1; echo en''ded\n")),
        expect("from"),
        expect("ended"),
        expect("$ "),
        send(END),
    ]);
    let (_, dumb) = shown.rsplit_once("from").unwrap();
    let (dumb, _) = dumb.split_once("ended").unwrap();
    assert!(dumb.contains("'list'") && !dumb.contains("\x1b["), "{dumb:?}");
}

/// What is waited for is told after a second, and nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_takes_its_time_is_waited_for_in_a_line_that_goes_away() {
    let desk = Desk::new().await;
    let (freeze, ask) = (desk.freeze(), desk.ask("whoami"));
    let shown = desk.play(&[
        send(&format!("{freeze} {ask}; echo en''ded\n")),
        expect("waiting for the broker (1 s)"),
        expect("waiting for the broker (2 s)"),
        expect("\r\x1b[Kprincipal"),
        expect("ended"),
        expect("$ "),
        send(&format!("echo fr''om; {freeze} {ask} --quiet; echo en''ded\n")),
        expect("from"),
        expect("ended"),
        expect("$ "),
        send(&format!("echo fr''om; {freeze} {ask} 2>err; echo en''ded\n")),
        expect("from"),
        expect("ended"),
        expect("$ "),
        send(END),
    ]);
    let (_, silent) = shown.split_once("from").unwrap();
    assert!(!silent.contains("waiting for"), "{silent}");
    assert_eq!(fs::read_to_string(desk.home.path().join("err")).unwrap(), "");
}

/// The terminal is the command's while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_waited_for_at_its_end_and_never_while_its_command_runs() {
    let desk = Desk::new().await;
    let script = format!("echo re''ady; sleep 2.5; {} echo fro''zen", desk.freeze());
    let line = desk.line("freeze", &script).replace("exec -q", "exec");
    let shown = desk.play(&[
        send(&format!("TERM=xterm {line}")),
        expect("ready"),
        expect("frozen"),
        expect("waiting until the credentials are verified dead (1 s)"),
        expect("\r\x1b[Kdayfly: task tsk_"),
        expect("completed: 1 credential verified dead"),
        expect("$ "),
        send(END),
    ]);
    let (_, running) = shown.split_once("ready").unwrap();
    let (running, _) = running.split_once("frozen").unwrap();
    assert!(!running.contains("waiting"), "{running}");
    assert_eq!(desk.outcome().await, "completed");
}
