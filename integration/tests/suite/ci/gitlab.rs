//! The GitLab component: its scripts in the shells and with the environment of a runner.

use std::{
    fs,
    process::{Command, Stdio},
};

use dayfly_integration::{Issuer, Platform};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Desk, Finished, Running, machine, read_yaml};

/// A job that extends the component.
struct Job {
    machine: TempDir,
    shell: &'static str,
    definition: Value,
    environment: Vec<(String, String)>,
}

fn inputs(roles: &str) -> Value {
    json!({ "url": "https://dayfly.example.com", "audience": Issuer::AUDIENCE, "roles": roles })
}

impl Job {
    fn new(desk: &Desk, shell: &'static str, template: &str, inputs: &Value, name: &str) -> Self {
        let document = read_yaml(template, Some(inputs)).unwrap().remove(0);
        let definition = document[name].clone();
        let aud = &definition["id_tokens"]["DAYFLY_ID_TOKEN"]["aud"];
        let machine = machine();
        fs::create_dir(machine.path().join("app")).unwrap();
        let mut environment = vec![
            ("PATH".to_owned(), desk.path()),
            ("CI".to_owned(), "true".to_owned()),
            ("GITLAB_CI".to_owned(), "true".to_owned()),
            ("CI_SERVER_URL".to_owned(), Platform::GITLAB.to_owned()),
            ("CI_BUILDS_DIR".to_owned(), machine.path().display().to_string()),
            ("CI_PROJECT_PATH".to_owned(), "grp/app".to_owned()),
            ("CI_JOB_ID".to_owned(), "302".to_owned()),
            ("CI_JOB_NAME_SLUG".to_owned(), "migrate".to_owned()),
            ("DAYFLY_ID_TOKEN".to_owned(), desk.platform.gitlab(json!({ "aud": aud }))),
        ];
        for (name, value) in definition["variables"].as_object().unwrap() {
            environment.push((name.clone(), value.as_str().unwrap().to_owned()));
        }
        // The last one of a name is taken.
        environment.push(("DAYFLY_URL".to_owned(), desk.url()));
        Self { machine, shell, definition, environment }
    }

    fn lines(&self, section: &str) -> String {
        let lines = self.definition[section].as_array().unwrap().iter();
        lines.flat_map(|line| [line.as_str().unwrap(), "\n"]).collect()
    }

    /// One shell of the job: GitLab puts `before_script` and `script` into one, and `after_script`
    /// into another.
    fn shell(&self, program: &str) -> Command {
        let mut command = Command::new(self.shell);
        if self.shell == "busybox" {
            command.arg("sh");
        }
        command.arg("-c").arg(format!("set -e\n{program}")).env_clear();
        command.envs(self.environment.clone()).stdin(Stdio::null());
        command.current_dir(self.machine.path().join("app"));
        command
    }

    fn script(&self, script: &str) -> Command {
        self.shell(&format!("{}{script}", self.lines("before_script")))
    }

    fn after_script(&self, status: &str) -> Finished {
        let mut command = self.shell(&self.lines("after_script"));
        command.env("CI_JOB_STATUS", status).output().unwrap().into()
    }

    /// What is left beside the checkout.
    fn leftovers(&self) -> usize {
        fs::read_dir(self.machine.path()).unwrap().count() - 1
    }
}

fn job(desk: &Desk, shell: &'static str, roles: &str) -> Job {
    Job::new(desk, shell, "gitlab/templates/job.yml", &inputs(roles), ".dayfly")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jobs_credentials_last_as_long_as_its_script() {
    let desk = Desk::new().await;
    for shell in ["dash", "bash", "busybox"] {
        let job = job(&desk, shell, "pg-migrate REPORT=pg-report");
        let script = r#"
            test -z "${DAYFLY_ID_TOKEN-}" || exit 90
            test "$PGUSER" != "$REPORT_PGUSER" || exit 91
            psql -X -tAc 'select text from app.notes' "$REPORT_DATABASE_URL"
            stat -c '%a' ../.dayfly-302 ../.dayfly-302/*
            echo "$DATABASE_URL"
        "#;
        let ran: Finished = job.script(script).output().unwrap().into();
        assert_eq!(ran.code, Some(0), "{shell}: {ran:?}");
        let lines: Vec<&str> = ran.out.lines().collect();
        assert_eq!(lines[..5], ["hello", "700", "600", "600", "600"], "{shell}");
        let url = lines[5];
        assert!(desk.postgres.lets_in(url), "{shell}");

        let ended = job.after_script("success");
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!desk.postgres.lets_in(url), "{shell}");
        assert_eq!(job.leftovers(), 0, "{shell}");
        assert_eq!(desk.credentials(), Vec::<String>::new());
        assert_eq!(desk.tasks().await[0], "completed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_of_commands_shows_no_secret() {
    let desk = Desk::new().await;
    for shell in ["dash", "bash", "busybox"] {
        let job = job(&desk, shell, "pg-migrate");
        let lines = job.lines("before_script");
        let script =
            format!("set -x\n{lines}echo traced; sed -n 's/.*PGPASSWORD=//p' ../.dayfly-302/env");
        let ran: Finished = job.shell(&script).output().unwrap().into();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(ran.err.contains("+ echo traced"), "the trace goes on: {}", ran.err);
        let password = ran.out.lines().last().unwrap().trim_matches('\'');
        assert!(password.len() > 8 && !ran.err.contains(password), "{shell}: {}", ran.err);
        assert!(!ran.err.contains("dft_"), "{shell}: {}", ran.err);
        let mut traced = job.shell(&format!("set -x\n{}", job.lines("after_script")));
        let ended: Finished = traced.env("CI_JOB_STATUS", "failed").output().unwrap().into();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.err.contains("dft_"), "{shell}: {}", ended.err);
        assert_eq!(desk.tasks().await[0], "failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_ended_by_its_after_script() {
    let desk = Desk::new().await;
    let job = job(&desk, "dash", "pg-migrate");
    let mut command = job.script("echo \"$DATABASE_URL\" >url; mv url ready; sleep 600");
    let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let ready = job.machine.path().join("app/ready");
    dayfly_integration::eventually("the script runs", super::DEAD_WITHIN, async || {
        ready.exists().then_some(())
    })
    .await;
    let url = fs::read_to_string(&ready).unwrap();
    assert!(desk.postgres.lets_in(url.trim()));
    // As the runner does: to the whole group.
    running.signal("TERM", true);
    assert_eq!(running.ended().await, None, "killed by the signal");
    let ended = job.after_script("canceled");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!desk.postgres.lets_in(url.trim()));
    assert_eq!(desk.tasks().await, ["cancelled"]);
    assert_eq!(job.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_job_does_not_begin_and_a_broker_that_is_away_does_not_hold_up_its_end() {
    let mut desk = Desk::new().await;
    let denied = job(&desk, "dash", "pg-migrate forbidden");
    let ran: Finished = denied.script("echo began").output().unwrap().into();
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.err.contains("test/no-production"), "{}", ran.err);
    assert_eq!(denied.leftovers(), 0);
    assert_eq!(denied.after_script("failed").code, Some(0));
    assert_eq!(desk.tasks().await, Vec::<String>::new());

    let job = job(&desk, "dash", "pg-migrate");
    let began: Finished = job.script("echo began").output().unwrap().into();
    assert_eq!(began.out, "began\n", "{began:?}");
    desk.broker.kill();
    let ended = job.after_script("success");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("end by themselves, within 50m"), "{}", ended.err);
    assert_eq!(job.leftovers(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_needs_it_for_one_command_only_runs_it_by_exec() {
    let desk = Desk::new().await;
    let mut inputs = inputs("");
    inputs.as_object_mut().unwrap().remove("roles");
    let job = Job::new(&desk, "dash", "gitlab/templates/exec.yml", &inputs, ".dayfly-exec");
    let script = "dayfly exec --role pg-migrate -- psql -X -tAc 'select text from app.notes'\n\
                  test -z \"${PGPASSWORD-}\"";
    let ran: Finished = job.shell(script).output().unwrap().into();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "hello\n"), "{ran:?}");
    assert_eq!(desk.credentials(), Vec::<String>::new());
    assert_eq!(desk.tasks().await, ["completed"]);
}

#[test]
fn inputs_that_could_be_code_or_show_a_token_are_refused() {
    for (name, value) in [
        ("roles", "a; id"),
        ("roles", "a $(id)"),
        ("roles", ""),
        ("url", "http://dayfly.example.com"),
        ("url", "https://user@dayfly.example.com"),
        ("audience", "$CI_JOB_TOKEN"),
        ("job-name", "deploy"),
        ("ttl", "50m --role other"),
        ("token", "x"),
    ] {
        let mut inputs = inputs("pg-migrate");
        inputs.as_object_mut().unwrap().insert(name.to_owned(), json!(value));
        let refused = read_yaml("gitlab/templates/job.yml", Some(&inputs)).unwrap_err();
        assert!(refused.contains(name), "{name}={value}: {refused}");
    }
    assert!(read_yaml("gitlab/templates/job.yml", Some(&inputs("a B=c"))).is_ok());
}
