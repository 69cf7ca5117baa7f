//! Signals on their way to the command.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::Stdio,
    thread,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    broker::{Broker, grant, postgres},
    program::{Running, dayfly, detached, run},
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
fn a_command_that_dies_of_the_signal_is_128_and_its_number() {
    let broker = Broker::granting(vec![postgres("r")]);
    let running = start(&broker, &[], &waiting(":"));
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(143));
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
    assert_eq!(finished.code, Some(137), "{finished:?}");
    assert!(finished.err.contains("killing it"), "{}", finished.err);
    assert_eq!(broker.outcome(), "cancelled");
}

#[test]
fn the_second_request_to_stop_kills() {
    let broker = Broker::granting(vec![postgres("r")]);
    let running = start(&broker, &[], &waiting("trap '' TERM INT"));
    running.signal(Signal::INT);
    thread::sleep(Duration::from_millis(1300));
    running.signal(Signal::TERM);
    assert_eq!(running.finish().code, Some(137));
    assert_eq!(broker.outcome(), "cancelled");
}

#[test]
fn a_signal_before_the_command_starts_nothing() {
    let broker = Broker::start(|request, _| {
        if request.line() == "POST /api/v1/tasks" {
            thread::sleep(Duration::from_secs(2));
        }
        grant(request, &[postgres("r")])
    });
    let words = ["exec", "--role", "r", "--", "echo", "started"];
    let running = Running::start(dayfly(&broker.url, &words));
    while broker.requests().is_empty() {
        thread::sleep(Duration::from_millis(10));
    }
    running.signal(Signal::TERM);
    let finished = running.finish();
    assert_eq!((finished.code, finished.out.as_str()), (Some(143), ""));
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
    let line =
        format!("exec {} exec -q --role r -- sh -c \"$INNER\"", env!("CARGO_BIN_EXE_dayfly"));
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
