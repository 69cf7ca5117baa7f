//! The examples: each is read as its platform reads it, and its command is run with the real
//! `dayfly`. What the platform itself would do is a stand-in that only hands out the token.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use dayfly_integration::Issuer;
use serde_json::{Value, json};

use super::{Desk, Finished, ci, documents, machine, place, read_yaml, runner::TokenService};

const BROKER: &str = "https://dayfly.example.com";

/// What a user's own program does with its credential; and it looks for what it must not have.
const MIGRATE: &str = "#!/bin/sh\nenv >environment\npsql -X -tAc 'select text from app.notes'\n";

/// Runs `command` as a job and looks at what came of it. `token` is the identity.
async fn works(desk: &Desk, mut command: Command, directory: &Path, token: &str) {
    place(directory, "migrate.sh", MIGRATE);
    command.current_dir(directory).stdin(Stdio::null());
    let ran: Finished = command.output().unwrap().into();
    assert_eq!((ran.code, ran.out.as_str()), (Some(0), "hello\n"), "{ran:?}");
    assert!(ran.err.contains("role `pg-migrate`"), "{ran:?}");
    let environment = fs::read_to_string(directory.join("environment")).unwrap();
    assert!(environment.contains("PGPASSWORD="), "{environment}");
    assert!(!environment.contains(token), "the command could open tasks: {environment}");
    assert_eq!(desk.credentials(), Vec::<String>::new());
    assert_eq!(desk.tasks().await[0], "completed");
}

/// A shell of a job, with stand-ins for the platform's programs in `directory`.
fn shell(desk: &Desk, directory: &Path, script: &str, environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-eo", "pipefail", "-c", script]).env_clear();
    command.env("PATH", format!("{}:{}", directory.display(), desk.path()));
    command.env("DAYFLY_URL", desk.url()).envs(environment.iter().copied());
    command
}

fn text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn githubs_step_runs_and_its_inputs_are_the_actions() {
    let desk = Desk::new().await;
    let workflow = documents("examples/github/deploy.yml").remove(0);
    assert_eq!(text(&workflow, "/permissions/id-token"), "write");
    assert_eq!(text(&workflow, "/jobs/migrate/env/DAYFLY_URL"), BROKER);
    let script = text(&workflow, "/jobs/migrate/steps/1/run");
    let service = TokenService::start(&desk.platform).await;
    let place = machine();
    let mut command = shell(&desk, place.path(), script, &[("DAYFLY_AUDIENCE", Issuer::AUDIENCE)]);
    command.env("GITHUB_ACTIONS", "true").envs(service.environment());
    works(&desk, command, place.path(), "request-token-of-the-job").await;

    let manifest = documents("github-action/action.yml").remove(0);
    let step = workflow.pointer("/jobs/report/steps/1").unwrap();
    assert!(text(step, "/uses").contains("/config/ci/github-action@"));
    for name in step["with"].as_object().unwrap().keys() {
        assert!(manifest["inputs"].get(name).is_some(), "action.yml knows no input {name}");
    }
    let used = text(&workflow, "/jobs/report/steps/2/env/DATABASE_URL");
    assert_eq!(used, "${{ steps.dayfly.outputs.DATABASE_URL }}");
}

#[tokio::test(flavor = "multi_thread")]
async fn gitlabs_jobs_extend_what_the_components_make() {
    let desk = Desk::new().await;
    let pipeline = documents("examples/gitlab/.gitlab-ci.yml").remove(0);
    let mut made = Vec::new();
    for include in pipeline["include"].as_array().unwrap() {
        let component = text(include, "/component").rsplit_once('/').unwrap().1;
        let template = component.split_once('@').unwrap().0;
        let path = format!("gitlab/templates/{template}.yml");
        let document = read_yaml(&path, Some(&include["inputs"])).unwrap().remove(0);
        made.extend(document.as_object().unwrap().keys().cloned());
    }
    for job in ["migrate", "report"] {
        let extended = text(&pipeline[job], "/extends").to_owned();
        assert!(made.contains(&extended), "{extended}: {made:?}");
    }
    let token = desk.platform.gitlab(json!({}));
    let place = machine();
    let script = text(&pipeline, "/migrate/script/0");
    let command = shell(&desk, place.path(), script, &[("DAYFLY_ID_TOKEN", token.as_str())]);
    works(&desk, command, place.path(), &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buildkites_wrapper_asks_for_the_ids() {
    let desk = Desk::new().await;
    let pipeline = documents("examples/buildkite/pipeline.yml").remove(0);
    assert_eq!(text(&pipeline, "/steps/0/env/DAYFLY_URL"), BROKER);
    let token = desk.broker.issuer.token("buildkite");
    let place = machine();
    super::place(
        place.path(),
        "buildkite-agent",
        &format!(
            "#!/bin/sh\ntest \"$*\" = \"oidc request-token --audience $DAYFLY_URL \
             --claim organization_id --claim pipeline_id\" && echo '{token}'\n"
        ),
    );
    fs::create_dir(place.path().join(".buildkite")).unwrap();
    let wrapper = place.path().join(".buildkite/with-dayfly");
    fs::copy(ci("examples/buildkite/with-dayfly"), wrapper).unwrap();
    let script = text(&pipeline, "/steps/0/command");
    let command = shell(&desk, place.path(), script, &[]);
    works(&desk, command, place.path(), &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jenkins_step_runs_with_its_credential() {
    let desk = Desk::new().await;
    let file = fs::read_to_string(ci("examples/jenkins/Jenkinsfile")).unwrap();
    assert!(file.contains("variable: 'DAYFLY_ID_TOKEN'") && file.contains(BROKER), "{file}");
    let scripts: Vec<&str> = file
        .lines()
        .filter_map(|line| line.trim().strip_prefix("sh '")?.strip_suffix('\''))
        .collect();
    let [script] = scripts.as_slice() else { panic!("not one: {scripts:?}") };
    let token = desk.broker.issuer.token("jenkins");
    let place = machine();
    let environment = [("DAYFLY_ID_TOKEN", token.as_str()), ("BUILD_TAG", "jenkins-shop-17")];
    let command = shell(&desk, place.path(), script, &environment);
    works(&desk, command, place.path(), &token).await;
    let task = desk.admin.get("/api/v1/tasks").await.unwrap();
    assert_eq!(task.body["data"][0]["purpose"], "jenkins-shop-17");
}

#[tokio::test(flavor = "multi_thread")]
async fn circlecis_step_asks_for_a_token_of_its_own() {
    let desk = Desk::new().await;
    let config = documents("examples/circleci/config.yml").remove(0);
    assert_eq!(text(&config, "/jobs/migrate/environment/DAYFLY_URL"), BROKER);
    let token = desk.broker.issuer.token("circleci");
    let place = machine();
    super::place(
        place.path(),
        "circleci",
        &format!(
            "#!/bin/sh\ntest \"$1 $2 $3 $4\" = 'run oidc get --claims' || exit 1\n\
             test \"$5\" = \"{{\\\"aud\\\":\\\"$DAYFLY_URL\\\"}}\" && echo '{token}'\n"
        ),
    );
    let script = text(&config, "/jobs/migrate/steps/1/run/command");
    let static_token =
        [("CIRCLE_OIDC_TOKEN_V2", "static-token"), ("CIRCLE_OIDC_TOKEN", "static-token")];
    let command = shell(&desk, place.path(), script, &static_token);
    works(&desk, command, place.path(), &token).await;
    let environment = fs::read_to_string(place.path().join("environment")).unwrap();
    assert!(!environment.contains("static-token"), "{environment}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_container_runs_its_command_with_the_projected_token() {
    let desk = Desk::new().await;
    let job = documents("examples/kubernetes/job.yml").remove(0);
    let pod = job.pointer("/spec/template/spec").unwrap();
    let container = &pod["containers"][0];
    assert_eq!(text(container, "/env/0/value"), BROKER);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let volumes = pod["volumes"].as_array().unwrap();
    for mount in mounts {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{mount}");
    }
    let projected = volumes[1].pointer("/projected/sources/0/serviceAccountToken").unwrap();
    assert_eq!(text(projected, "/audience"), BROKER);
    assert!(projected["expirationSeconds"].as_u64().unwrap() >= 600, "the least that there is");

    let token = desk.broker.issuer.token("pod");
    let place = machine();
    fs::write(place.path().join("token"), &token).unwrap();
    let mount = format!("{}/{}", text(&mounts[1], "/mountPath"), text(projected, "/path"));
    let own = place.path().join("token").display().to_string();
    let words = container["command"].as_array().unwrap().iter();
    let words: Vec<String> =
        words.map(|word| word.as_str().unwrap().replace(&mount, &own)).collect();
    assert!(words.iter().any(|word| word.contains(&own)), "{words:?}");
    assert_eq!(words[0], "/opt/dayfly/dayfly");
    let mut command = Command::new(dayfly_integration::program("dayfly"));
    command.args(&words[1..]).env_clear().env("PATH", desk.path()).env("DAYFLY_URL", desk.url());
    works(&desk, command, place.path(), &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bitbuckets_step_uses_the_steps_token() {
    let desk = Desk::new().await;
    let file = documents("examples/bitbucket/bitbucket-pipelines.yml").remove(0);
    let step = file.pointer("/pipelines/branches/main/0/step").unwrap();
    assert_eq!(step["oidc"], true);
    let lines = step["script"].as_array().unwrap().iter();
    let script: String = lines.flat_map(|line| [line.as_str().unwrap(), "\n"]).collect();
    let script = script.replace(BROKER, &desk.url());
    let token = desk.broker.issuer.token("bitbucket");
    let place = machine();
    let environment = [("BITBUCKET_STEP_OIDC_TOKEN", token.as_str())];
    let command = shell(&desk, place.path(), &script, &environment);
    works(&desk, command, place.path(), &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azures_task_uses_the_service_connections_token() {
    let desk = Desk::new().await;
    let file = documents("examples/azure-devops/azure-pipelines.yml").remove(0);
    let step = &file["steps"][1];
    assert_eq!(text(step, "/env/DAYFLY_URL"), BROKER);
    assert_eq!(step["inputs"]["addSpnToEnvironment"], true);
    let token = desk.broker.issuer.token("azure");
    let place = machine();
    let script = text(step, "/inputs/inlineScript");
    let command = shell(&desk, place.path(), script, &[("idToken", token.as_str())]);
    works(&desk, command, place.path(), &token).await;
}
