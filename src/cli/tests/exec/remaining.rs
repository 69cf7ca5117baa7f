//! What the command leaves behind, and what is left of us.

use std::{
    fs,
    time::{Duration, Instant},
};

use dayfly_api::Renewed;

use crate::{
    broker::{Answer, Broker, grant, postgres},
    program::{detached, program, run},
};

/// A process that goes its own way, as daemons do, and says so in a file.
const DAEMON: &str = "(setsid sh -c 'sleep 2; echo done >$MARK' >/dev/null 2>&1 &)";

fn exec(broker: &Broker, options: &[&str], script: &str) -> (Duration, bool, String) {
    let home = tempfile::tempdir().unwrap();
    let mark = home.path().join("mark");
    let words = [&["exec", "--role", "r"], options, &["--", "sh", "-c", script]].concat();
    let mut command = detached(&broker.url, &words);
    command.env("MARK", &mark);
    let start = now();
    let finished = run(command);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    (start.elapsed(), mark.exists(), finished.err)
}

#[test]
fn the_command_alone_is_waited_for_and_what_it_left_is_told() {
    let broker = Broker::granting(vec![postgres("r")]);
    let (time, is_done, err) = exec(&broker, &[], DAEMON);
    assert!(time < Duration::from_millis(1900) && !is_done, "{time:?}");
    assert!(err.contains("left a process running, without credentials"), "{err}");
    assert_eq!(broker.outcome(), "completed");
}

#[test]
fn everything_is_waited_for_where_that_is_asked_for() {
    let broker = Broker::granting(vec![postgres("r")]);
    let (time, is_done, err) = exec(&broker, &["--wait-all"], DAEMON);
    assert!(time >= Duration::from_secs(2) && is_done, "{time:?}");
    assert!(!err.contains("left"), "{err}");

    // But not longer than the task lasts.
    let (time, is_done, err) = exec(&broker, &["--wait-all", "--ttl", "1s"], DAEMON);
    assert!(time < Duration::from_millis(1900) && !is_done, "{time:?}");
    assert!(err.contains("the task's time is up"), "{err}");
}

/// Not as the first process of a container, and yet what nobody else waits for is reaped.
#[test]
fn orphans_are_reaped_while_the_command_runs() {
    let broker = Broker::granting(vec![postgres("r")]);
    let script = "for i in 1 2 3; do (sleep 0.1 & exec true); done; sleep 3; \
        for stat in /proc/[0-9]*/stat; do \
            read -r id name state parent rest <$stat 2>/dev/null || continue; \
            [ \"$state $parent\" = \"Z $PPID\" ] && echo zombie >$MARK; \
        done; true";
    let (_, has_zombies, _) = exec(&broker, &[], script);
    assert!(!has_zombies);
}

#[test]
fn we_can_become_the_command() {
    let broker = Broker::start(|request, _| {
        if request.line() == "POST /api/v1/leases/lse_r/renew" {
            let renewed = Renewed {
                id: "lse_r".into(),
                ttl_seconds: 3600,
                expires_at: "2026-01-01T01:00:00Z".into(),
                max_expires_at: "2026-01-01T01:00:00Z".into(),
                truncated: false,
            };
            return Answer::json(200, &renewed);
        }
        grant(request, &[postgres("r")])
    });
    let script = format!("echo $$ $PGUSER; {TRACES}");
    let words = ["exec", "--role", "r", "--replace", "--ttl", "2h", "--", "sh", "-c", &script];
    let mut command = detached(&broker.url, &words);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), output.stderr);
    let err = String::from_utf8(err).unwrap();
    assert!(output.status.success(), "{err}");
    // The same process, with nothing of ours left in it.
    let expected = format!("{id} df_x\n{}", plain(TRACES));
    assert_eq!(without_libcs_own(&out), without_libcs_own(&expected), "{err}");
    assert!(err.contains("lse_r ends at 2026-01-01T01:00:00Z"), "{err}");
    let opened = broker.asked("POST /api/v1/tasks");
    assert_eq!(opened[0].body["ttl_seconds"], 3600, "an hour at most");
    assert!(opened[0].body["heartbeat_seconds"].is_null());
    assert_eq!(broker.asked("POST /api/v1/leases/lse_r/renew").len(), 1);
    // Nobody is left who could.
    assert_eq!(broker.asked("POST /api/v1/tasks/tsk_1/complete").len(), 0);
}

#[test]
fn a_command_that_we_cannot_become_ends_its_task() {
    use std::os::unix::fs::PermissionsExt as _;
    let broker = Broker::granting(vec![postgres("r")]);
    let home = tempfile::tempdir().unwrap();
    let script = home.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let words = ["exec", "--role", "r", "--replace", "--", script.to_str().unwrap()];
    let finished = run(detached(&broker.url, &words));
    assert_eq!(finished.code, Some(127), "{finished:?}");
    assert_eq!(broker.outcome(), "cancelled");
}

/// Our memory holds the credentials; the command's is its own affair.
#[test]
fn we_leave_no_core_and_the_command_may() {
    let broker = Broker::granting(vec![postgres("r")]);
    let inner = "ulimit -Sc; grep 'Max core' /proc/$PPID/limits";
    let line = format!(
        "ulimit -Sc \"$(ulimit -Hc)\"; ulimit -Sc; exec {} exec -q --role r -- sh -c \"$INNER\"",
        program()
    );
    let mut shell = std::process::Command::new("setsid");
    shell.args(["sh", "-c", &line]).env("INNER", inner).stdin(std::process::Stdio::null());
    shell.env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt");
    let finished = run(shell);
    let lines: Vec<&str> = finished.out.lines().collect();
    assert_eq!(lines.len(), 3, "{finished:?}");
    assert_eq!(lines[0], lines[1], "{finished:?}");
    let ours: Vec<&str> = lines[2].split_whitespace().collect();
    assert_eq!(ours[4], "0", "{finished:?}");
}

/// What a process inherits besides its environment.
const TRACES: &str = "ulimit -c; grep -E 'Sig(Ign|Blk)' /proc/self/status";

/// Without signals 32 and 33, which the C library keeps for its threads: whether they are ignored
/// depends on whether a program before has had any.
fn without_libcs_own(traces: &str) -> Vec<String> {
    let lines = traces.lines().map(|line| match line.split_once(":\t") {
        Some((name, mask)) => {
            format!("{name} {:x}", u64::from_str_radix(mask, 16).unwrap() & !0x1_8000_0000)
        }
        None => line.to_owned(),
    });
    lines.collect()
}

/// What a shell says that this test starts itself.
fn plain(script: &str) -> String {
    let output = std::process::Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[expect(clippy::disallowed_methods, reason = "the program is watched from outside its clock")]
fn now() -> Instant {
    Instant::now()
}
