//! Secrets in what the command prints.

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{
    broker::{Broker, PASSWORD, postgres},
    program::{Finished, dayfly, program, run},
};

const SHOW: &str = "echo $PGPASSWORD; echo $DATABASE_URL >&2; printf %s $PGPASSWORD | base64";

fn exec(options: &[&str], script: &str, ci: &[(&str, &str)]) -> (Finished, Broker) {
    let broker = Broker::granting(vec![postgres("pg")]);
    let words = [&["exec", "--role", "pg"], options, &["--", "sh", "-c", script]].concat();
    let mut command = dayfly(&broker.url, &words);
    command.envs(ci.iter().copied());
    (run(command), broker)
}

#[test]
fn outside_of_ci_the_output_is_the_commands_own() {
    let (finished, _) = exec(&[], SHOW, &[]);
    assert!(finished.out.starts_with(PASSWORD) && finished.err.contains(PASSWORD), "{finished:?}");
}

#[test]
fn a_filter_hides_what_the_log_would_keep() {
    for (options, ci) in [
        (["--mask", "always"], [("CI", "")]),
        (["--mask", "auto"], [("GITLAB_CI", "true")]),
        (["--mask", "auto"], [("JENKINS_URL", "https://j")]),
        (["--mask", "auto"], [("BUILDKITE", "true")]),
    ] {
        let (finished, broker) = exec(&options, &format!("{SHOW}; exit 3"), &ci);
        assert_eq!(finished.code, Some(3), "{finished:?}");
        assert!(
            finished.out.starts_with("[masked:pg/password]\n[masked:pg/password]"),
            "{finished:?}"
        );
        assert!(finished.err.contains("[masked:pg/url]\n"), "{finished:?}");
        assert!(!finished.out.contains(PASSWORD) && !finished.err.contains(PASSWORD));
        // A user's name is none.
        assert!(
            exec(&options, "echo $PGUSER@$PGHOST:$PGPORT", &ci).0.out == "df_x@db.example:5432\n"
        );
        assert_eq!(broker.outcome(), "failed");
    }
    let (shown, _) = exec(&["--mask", "never"], SHOW, &[("GITLAB_CI", "true")]);
    assert!(shown.out.contains(PASSWORD));
}

/// Runs `step` by a program of this name that reads its output, as a platform's runner does, and
/// prints what it reads.
fn step(runner: &str, sign: &str, step: &str) -> (Finished, String, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(runner);
    let script = "#!/bin/sh\n\
        cd \"$(dirname \"$0\")\" && mkfifo out err || exit 1\n\
        sh -c \"$STEP\" >out 2>err &\n\
        exec 3<out 4<err\n\
        cat <&3 & cat <&4 >&2\n\
        wait\n";
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let broker = Broker::granting(vec![postgres("pg")]);
    let mut command = Command::new(&path);
    command.env("STEP", step.replace("EXEC", &format!("{} exec -q --role pg", program())));
    command.env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt").env(sign, "true");
    let finished = run(command);
    let log = fs::read_to_string(home.path().join("log")).unwrap_or_default();
    (finished, log, home)
}

/// stdout may go to `gzip`.
#[test]
fn github_and_azure_are_told_on_stderr_before_the_command_starts() {
    for (runner, sign, command) in [
        ("Runner.Worker", "GITHUB_ACTIONS", "::add-mask::"),
        ("Agent.Worker", "TF_BUILD", "##vso[task.setsecret]"),
    ] {
        let (finished, _, _) =
            step(runner, sign, "EXEC -- sh -c 'echo started >&2; echo data' | cat");
        assert_eq!(finished.out, "data\n");
        let url = format!("{command}postgresql://df_x:{PASSWORD}@db.example:5432/shop");
        let expected = [format!("{command}{PASSWORD}"), url, "started".to_owned()];
        assert_eq!(finished.err.lines().collect::<Vec<_>>(), expected);
    }
}

/// Only the runner takes the commands out of what it prints: whoever else reads them keeps them.
#[test]
fn whoever_reads_instead_of_the_runner_is_told_nothing() {
    for (runner, line) in [
        // A pipeline in the step, in a script of the step's, and what keeps it all.
        ("Runner.Worker", "EXEC -- sh -c 'echo $DATABASE_URL >&2' 2>&1 | tee log"),
        ("Runner.Worker", "sh -c 'EXEC -- sh -c \"echo \\$DATABASE_URL\" >&2' 2>&1 | tee log"),
        ("Runner.Worker", "said=$(EXEC -- sh -c 'echo $DATABASE_URL >&2' 2>&1); echo $said >log"),
        // The runner of another platform.
        ("Agent.Worker", "EXEC -- sh -c 'echo $DATABASE_URL >&2' 2>&1 | tee log"),
        ("Agent.Worker", "EXEC -- sh -c 'echo $DATABASE_URL' | tee log"),
    ] {
        let (finished, log, _) = step(runner, "GITHUB_ACTIONS", line);
        assert!(log.contains("[masked:pg/url]"), "{line}: {finished:?}");
        for text in [&log, &finished.out, &finished.err] {
            assert!(!text.contains(PASSWORD) && !text.contains("add-mask"), "{line}: {text}");
        }
    }
}

#[test]
fn a_file_that_somebody_may_publish_is_told_nothing() {
    let broker = Broker::granting(vec![postgres("pg")]);
    let words = ["exec", "--role", "pg", "--", "sh", "-c", SHOW];
    let mut command = dayfly(&broker.url, &words);
    let file = tempfile::NamedTempFile::new().unwrap();
    command.env("GITHUB_ACTIONS", "true").stdout(Stdio::piped()).stderr(file.reopen().unwrap());
    let finished = Finished::from(command.output().unwrap());
    let written = fs::read_to_string(file.path()).unwrap();
    assert!(!finished.out.contains(PASSWORD) && !written.contains(PASSWORD), "{written}");
    assert!(written.contains("[masked:pg/url]"), "{written}");
}

#[test]
fn buildkites_agent_is_told_by_its_stdin() {
    let home = tempfile::tempdir().unwrap();
    let (agent, seen) = (home.path().join("buildkite-agent"), home.path().join("seen"));
    fs::write(&agent, "#!/bin/sh\n{ echo \"$*\"; cat; echo; } >>\"$SEEN\"\n").unwrap();
    fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", home.path().display());
    let ci = [("BUILDKITE", "true"), ("PATH", path.as_str()), ("SEEN", seen.to_str().unwrap())];
    let (finished, _) = exec(&[], "cat $SEEN", &ci);
    let told = fs::read_to_string(&seen).unwrap();
    let url = format!("postgresql://df_x:{PASSWORD}@db.example:5432/shop");
    assert_eq!(told, format!("redactor add\n{PASSWORD}\nredactor add\n{url}\n"));
    // It was told before the command began.
    assert_eq!(finished.out, told);

    // One that can't is not the end of it.
    fs::write(&agent, "#!/bin/sh\ncat >/dev/null; exit 1\n").unwrap();
    let (finished, _) = exec(&[], SHOW, &ci);
    assert!(finished.err.contains("warning: buildkite-agent does not mask pg/password"));
    assert!(!finished.out.contains(PASSWORD), "{finished:?}");
}

#[test]
fn a_process_that_holds_the_pipe_holds_nobody_up() {
    let start = now();
    let (finished, broker) = exec(&["--mask", "always"], "sleep 5 & echo done", &[]);
    // The test's own pipe ends with ours: the process that was left has only the filter's.
    assert!(start.elapsed() < Duration::from_secs(4), "{finished:?}");
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "done\n"));
    assert!(finished.err.contains("left a process running"), "{}", finished.err);
    assert_eq!(broker.outcome(), "completed");
}

/// Both ways a pipeline is the same as without us, to the byte.
#[test]
fn binary_output_passes_byte_for_byte() {
    let home = tempfile::tempdir().unwrap();
    for mask in ["auto", "always"] {
        let broker = Broker::granting(vec![postgres("pg")]);
        let file = home.path().join(mask);
        let line = format!(
            "{} exec -q --role pg --mask {mask} -- sh -c \
             'head -c 5000000 /dev/urandom | tee {file}' | sha256sum; sha256sum <{file}",
            program(),
            file = file.display()
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt");
        for name in ["CI", "GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "TF_BUILD", "JENKINS_URL"] {
            shell.env_remove(name);
        }
        let finished = run(shell);
        let sums: Vec<&str> = finished.out.lines().collect();
        assert_eq!((sums.len(), sums[0]), (2, sums[1]), "{mask}: {finished:?}");
        assert_eq!(fs::metadata(&file).unwrap().len(), 5_000_000);
    }
}

#[test]
fn a_reader_that_has_enough_ends_the_command() {
    let broker = Broker::granting(vec![postgres("pg")]);
    let line = format!("{} exec -q --role pg --mask always -- yes | head -n 1", program());
    let mut shell = Command::new("timeout");
    shell.args(["20", "sh", "-c", &line]);
    let finished = run({
        shell.env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt");
        shell
    });
    assert_eq!((finished.code, finished.out.as_str()), (Some(0), "y\n"), "{finished:?}");
}

#[test]
fn a_terminal_is_not_taken_away() {
    let broker = Broker::granting(vec![postgres("pg")]);
    let line = format!("exec {} exec --role pg --mask always -- echo x", program());
    let mut command = Command::new("script");
    command.args(["-q", "-e", "-c", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    command.env("DAYFLY_URL", &broker.url).env("DAYFLY_ID_TOKEN", "jwt").stdin(Stdio::null());
    let finished = run(command);
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.out.contains("would take the terminal away"), "{finished:?}");
    assert_eq!(broker.requests().len(), 0);
}

#[expect(clippy::disallowed_methods, reason = "the program is watched from outside its clock")]
fn now() -> Instant {
    Instant::now()
}

/// As when an upload at the other end of the pipe takes a while.
#[test]
fn whoever_reads_slowly_gets_all_of_it() {
    let broker = Broker::granting(vec![postgres("pg")]);
    let script = "head -c 300000 /dev/zero | tr '\\0' x";
    let words = ["exec", "--role", "pg", "--mask", "always", "--", "sh", "-c", script];
    let mut command = dayfly(&broker.url, &words);
    let mut running = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = running.stdout.take().unwrap();
    // Longer than what a process that was left behind may hold the pipe.
    thread::sleep(Duration::from_millis(2500));
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    assert_eq!(text.len(), 300_000);
    assert!(running.wait().unwrap().success());
}
