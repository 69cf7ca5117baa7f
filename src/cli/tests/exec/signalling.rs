//! Signals on their way to the command.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    broker::{Answer, Broker, grant, heard, postgres},
    program::{Finished, Running, dayfly, detached, program, run},
};

/// Says that it is ready, then waits for what `traps` deal with.
fn waiting(traps: &str) -> String {
    format!("{traps}; echo ready; while :; do sleep 0.05; done")
}

fn start(broker: &Broker, options: &[&str], script: &str) -> Running {
    let words = [&["exec", "--role", "r"], options, &["--", "sh", "-c", script]].concat();
    let mut running = Running::start(detached(&broker.url, &words));
    assert_eq!(running.line(), "ready");
    running
}

#[test]
fn a_signal_reaches_the_command_and_its_answer_is_kept() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let broker = Broker::granting(vec![postgres("r")]);
        let running = start(&broker, &[], &waiting("trap 'exit 9' TERM INT HUP"));
        running.signal(signal);
        assert_eq!(running.finish().code, Some(9), "{signal:?}");
        assert_eq!(broker.outcome(), "cancelled", "{signal:?}");
    }
}

#[test]
fn we_die_of_the_signal_that_the_command_dies_of() {
    let broker = Broker::granting(vec![postgres("r")]);
    let running = start(&broker, &[], &waiting(":"));
    running.signal(Signal::TERM);
    assert_eq!(running.finish().signal, Some(Signal::TERM.as_raw()));
    assert_eq!(broker.outcome(), "cancelled");
}

#[test]
fn other_signals_pass_without_ending_anything() {
    let broker = Broker::granting(vec![postgres("r")]);
    let script = waiting("trap 'echo one' USR1; trap 'echo two; exit 0' USR2");
    let mut running = start(&broker, &[], &script);
    running.signal(Signal::USR1);
    assert_eq!(running.line(), "one");
    running.signal(Signal::USR2);
    let finished = running.finish();
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "two\n"));
    assert_eq!(broker.outcome(), "completed");
}

#[test]
fn the_commands_own_children_get_the_signal_too() {
    let broker = Broker::granting(vec![postgres("r")]);
    let home = tempfile::tempdir().unwrap();
    let mark = home.path().join("mark");
    let inner = waiting(&format!("trap 'touch {}; exit 0' TERM", mark.display()));
    let script = format!("trap : TERM; sh -c \"{inner}\"; exit 5");
    let running = start(&broker, &[], &script);
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(5));
    assert!(mark.exists());
}

#[test]
fn a_command_that_does_not_stop_in_time_is_killed() {
    let broker = Broker::granting(vec![postgres("r")]);
    let running = start(&broker, &["--stop-timeout", "1s"], &waiting("trap '' TERM"));
    running.signal(Signal::TERM);
    let finished = running.finish();
    assert_eq!(finished.signal, Some(Signal::KILL.as_raw()), "{finished:?}");
    assert!(finished.err.contains("and was killed"), "{}", finished.err);
    assert_eq!(broker.outcome(), "cancelled");
}

#[test]
fn the_second_request_to_stop_kills() {
    let broker = Broker::granting(vec![postgres("r")]);
    let running = start(&broker, &[], &waiting("trap '' TERM INT"));
    running.signal(Signal::INT);
    thread::sleep(Duration::from_millis(1300));
    running.signal(Signal::TERM);
    assert_eq!(running.finish().signal, Some(Signal::KILL.as_raw()));
    assert_eq!(broker.outcome(), "cancelled");
}

/// A broker that grants after `pause`.
fn slow(pause: Duration) -> Broker {
    Broker::start(move |request, _| {
        if request.line() == "POST /api/v1/tasks" {
            thread::sleep(pause);
        }
        grant(request, &[postgres("r")])
    })
}

/// Runs the program until it asks for a task, and tells it to stop.
fn stopped_while_asking(broker: &Broker, words: &[&str]) -> Finished {
    let running = Running::start(dayfly(&broker.url, words));
    while broker.requests().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
    running.signal(Signal::TERM);
    running.finish()
}

/// What was minted by then is nobody's, and its end is not left to its heartbeat.
#[test]
fn a_signal_before_the_command_starts_nothing_and_leaves_no_task() {
    let home = tempfile::tempdir().unwrap();
    let directory = home.path().join("state").display().to_string();
    for (words, code) in [
        (&["exec", "--role", "r", "--", "echo", "started"][..], 143),
        (&["agent", "--role", "r", "--", "echo", "started"], 143),
        (&["credential", "mysql", "--role", "r"], 143),
        (&["task", "open", "--role", "r", "--purpose", "p", "--directory", &directory], 143),
    ] {
        let broker = slow(Duration::from_millis(700));
        let finished = stopped_while_asking(&broker, words);
        let seen = (finished.code, finished.out.as_str());
        assert_eq!(seen, (Some(code), ""), "{words:?}: {finished:?}");
        assert_eq!(broker.outcome(), "cancelled", "{words:?}");
        assert!(!Path::new(&directory).exists());
    }
}

#[test]
fn a_signal_is_not_held_up_by_a_broker_that_does_not_answer() {
    let broker = slow(Duration::from_secs(30));
    let start = now();
    let words = ["exec", "--role", "r", "--", "echo", "started"];
    let finished = stopped_while_asking(&broker, &words);
    assert_eq!((finished.code, finished.out.as_str()), (Some(143), ""), "{finished:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
}

/// The log of a step that stands still, say: nothing that we have to tell may wait for it.
#[test]
fn a_log_that_nobody_reads_stops_neither_heartbeats_nor_the_end() {
    let broker = Broker::start(|request, _| match request.line().as_str() {
        "POST /api/v1/tasks/tsk_1/heartbeat" => Answer::json(200, &heard()),
        _ => grant(request, &[postgres("r")]),
    });
    let (mut log, full) = std::io::pipe().unwrap();
    let mut filled = 0;
    let flags = rustix::fs::fcntl_getfl(&full).unwrap();
    rustix::fs::fcntl_setfl(&full, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    while let Ok(written) = (&full).write(&[b'.'; 4096]) {
        filled += written;
    }
    rustix::fs::fcntl_setfl(&full, flags).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mark = home.path().join("mark");
    let script = format!("sleep 1.5; touch {}", mark.display());
    let words = ["exec", "--role", "r", "--heartbeat", "1s", "--", "sh", "-c", &script];
    let mut child = detached(&broker.url, &words).stderr(full).spawn().unwrap();
    while broker.asked("POST /api/v1/tasks/tsk_1/complete").is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it has something to say");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(mark.exists());
    assert!(broker.asked("POST /api/v1/tasks/tsk_1/heartbeat").len() > 2);
    let mut said = String::new();
    log.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    let lines: Vec<&str> = said.get(filled..).unwrap().lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].contains("lease lse_r") && lines[1].contains("verified dead"), "{lines:?}");
}

#[test]
fn the_command_alone_is_told_where_that_is_asked_for() {
    let broker = Broker::granting(vec![postgres("r")]);
    let home = tempfile::tempdir().unwrap();
    let mark = home.path().join("mark");
    // A subshell of the same group, which writes if it is told.
    let script = format!(
        "(trap 'touch {0}' TERM; sleep 1) & trap 'wait; exit 5' TERM; echo ready; \
         while :; do sleep 0.05; done",
        mark.display()
    );
    let running = start(&broker, &["--signal-target", "child"], &script);
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(5));
    assert!(!mark.exists());
}

/// As GitHub's runner ends a step: it signals the shell alone, which passes nothing on.
#[test]
fn the_end_of_who_started_us_stops_the_command() {
    let broker = Broker::granting(vec![postgres("r")]);
    let home = tempfile::tempdir().unwrap();
    let place = |name: &str| home.path().join(name).display().to_string();
    for (option, ci, is_told) in [
        ("--die-with-parent", "", true),
        ("--quiet", "true", true),
        ("--quiet", "", false),
        ("--no-die-with-parent", "true", false),
    ] {
        let mark = place(&format!("{option}-{ci}"));
        let inner = format!("trap 'echo told >{mark}; exit 0' TERM; echo ready; sleep 2 & wait");
        let line = format!("{} exec {option} --role r -- sh -c \"$INNER\"; :", program());
        let mut shell = std::process::Command::new("setsid");
        shell.args(["bash", "-c", &line]).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
        shell.env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt").env("INNER", inner);
        shell.env("CI", ci).stdin(Stdio::null());
        let mut running = Running::start(shell);
        assert_eq!(running.line(), "ready");
        running.signal(Signal::KILL);
        // Its pipes are closed when the command and we have ended.
        running.finish();
        assert_eq!(Path::new(&mark).exists(), is_told, "{option} {ci}");
    }
    let outcomes: Vec<_> = broker
        .asked("POST /api/v1/tasks/tsk_1/complete")
        .into_iter()
        .map(|request| request.body["outcome"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes, ["cancelled", "cancelled", "completed", "completed"]);
}

#[test]
fn the_command_is_told_when_we_are_killed() {
    let broker = Broker::granting(vec![postgres("r")]);
    let mut running = start(&broker, &[], &waiting("trap 'echo told; exit 0' TERM"));
    running.signal(Signal::KILL);
    assert_eq!(running.line(), "told");
    assert_eq!(running.finish().code, None);
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let broker = Broker::granting(vec![postgres("r")]);
    let mut command = dayfly(&broker.url, &[]);
    let program = command.get_program().to_owned();
    command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" exec --role r -- grep SigIgn /proc/self/status"]);
    command.arg(program).env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt");
    let finished = run(command);
    let mask = finished.out.trim().rsplit('\t').next().unwrap().to_owned();
    let mask = u64::from_str_radix(&mask, 16).unwrap();
    let bit = |signal: Signal| 1_u64 << (signal.as_raw() - 1);
    // Not so PIPE, which this program ignores for itself.
    assert_eq!(mask & (bit(Signal::HUP) | bit(Signal::PIPE)), bit(Signal::HUP), "{finished:?}");
}

/// At a terminal ^C goes to the whole foreground group, so it must not come a second time.
#[test]
fn the_terminals_interrupt_comes_once() {
    assert!(Path::new("/usr/bin/script").exists(), "`script` is needed to make a terminal");
    let broker = Broker::granting(vec![postgres("r")]);
    let inner = "n=0; trap 'n=$((n+1))' INT; echo ready; \
                 i=0; while [ $i -lt 20 ]; do sleep 0.05; i=$((i+1)); done; echo interrupts:$n";
    let line = format!("exec {} exec -q --role r -- sh -c \"$INNER\"", program());
    let mut child = std::process::Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("INNER", inner)
        .env("DAYFLY_URL", &broker.url)
        .env("DAYFLY_ID_TOKEN", "jwt")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut keyboard = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.by_ref().any(|line| line.contains("ready")));
    keyboard.write_all(b"\x03").unwrap();
    let last = lines.find(|line| line.contains("interrupts:")).unwrap();
    assert!(last.trim().ends_with("interrupts:1"), "{last}");
    let status = child.wait().unwrap();
    drop(keyboard);
    assert!(status.success(), "{status}");
    assert_eq!(broker.outcome(), "completed");
}

#[expect(clippy::disallowed_methods, reason = "the program is watched from outside its clock")]
fn now() -> Instant {
    Instant::now()
}
