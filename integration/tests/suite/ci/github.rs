//! The GitHub Action.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, StatusCode, header::LOCATION},
    routing::{any, get, post},
};
use dayfly_integration::{Wire, eventually, free_port, node24};
use serde_json::{Value, json};

use super::{
    Desk, Finished, Running, ci, documents, mode, password,
    runner::{Runner, Stage},
};

/// What a stage that was not waited for leaves.
fn unseen() -> Finished {
    Finished { code: None, out: String::new(), err: String::new() }
}

fn succeeded(stage: &Stage) {
    assert_eq!(stage.finished.code, Some(0), "{stage:?}");
    assert_eq!(stage.finished.err, "", "{stage:?}");
}

#[test]
fn the_manifest_names_what_is_there_and_node_reads_it() {
    let manifest = documents("github-action/action.yml").remove(0);
    let runs = &manifest["runs"];
    assert_eq!((&runs["using"], &runs["post-if"]), (&json!("node24"), &json!("always()")));
    for stage in ["main", "post"] {
        assert!(ci("github-action").join(runs[stage].as_str().unwrap()).is_file());
    }
    for entry in fs::read_dir(ci("github-action")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "mjs") {
            let checked = Command::new(node24()).arg("--check").arg(&path).output().unwrap();
            assert!(checked.status.success(), "{checked:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_a_credential_that_works_until_the_post_step() {
    let desk = Desk::new().await;
    let with = [("roles", "pg-migrate\nREPORT=pg-report"), ("export", "outputs"), ("ttl", "20m")];
    let mut runner = Runner::new(&desk, &with).await;
    // It stumbles, and is asked again.
    *runner.service.stumbles.lock().unwrap() = 2;
    let main = runner.main();
    succeeded(&main);
    let (url, other) = (&main.outputs["DATABASE_URL"], &main.outputs["REPORT_DATABASE_URL"]);
    assert!(desk.postgres.lets_in(url) && desk.postgres.lets_in(other));
    assert_ne!(main.outputs["PGUSER"], main.outputs["REPORT_PGUSER"]);
    let leases: Vec<String> = serde_json::from_str(&main.outputs["lease-ids"]).unwrap();
    assert_eq!(leases.len(), 2);
    assert!(main.outputs["expires-at"].ends_with('Z') && !main.outputs.contains_key("env-file"));
    assert_eq!(main.variables, BTreeMap::new(), "nothing is exported unasked");

    for secret in [url, &main.outputs["PGPASSWORD"], &main.outputs["REPORT_PGPASSWORD"], other] {
        main.hides(secret);
    }
    main.hides(&main.state["token"]);
    let given = runner.service.given.lock().unwrap().clone();
    assert_eq!(given.len(), 1);
    main.hides(&given[0]);
    for shown in ["127.0.0.1", "app", main.outputs["PGUSER"].as_str()] {
        assert!(!main.masks().iter().any(|mask| mask == shown), "{shown} would blacken the log");
    }

    let post = runner.post(&main, "success");
    succeeded(&post);
    assert!(post.log().contains("2 credential(s) verified dead"), "{}", post.log());
    assert!(!desk.postgres.lets_in(url) && !desk.postgres.lets_in(other));
    assert_eq!(desk.tasks().await, ["completed"]);
    let task = desk.admin.get("/api/v1/tasks").await.unwrap();
    let purpose = &task.body["data"][0]["purpose"];
    assert_eq!(purpose, "octo-org/octo-repo: deploy/migrate, run 17000000001/1");
    // Whoever runs it again hears the same.
    succeeded(&runner.post(&main, "failure"));
    assert_eq!(desk.tasks().await, ["completed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_nowhere_is_not_minted() {
    let desk = Desk::new().await;
    let mut runner = Runner::new(&desk, &[("roles", "pg-migrate")]).await;
    let main = runner.main();
    succeeded(&main);
    assert!(main.log().contains("no credential was made, since `export` is none"), "{main:?}");
    assert_eq!(main.outputs.keys().collect::<Vec<_>>(), ["task-id"]);
    assert_eq!(main.variables, BTreeMap::new());
    assert_eq!(desk.leases().await, 0);
    succeeded(&runner.post(&main, "success"));
    assert_eq!(desk.tasks().await, ["completed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_this_users_alone_and_gone_after_the_job() {
    let desk = Desk::new().await;
    let with = [("roles", "pg-migrate"), ("export", "file")];
    let mut runner = Runner::new(&desk, &with).await;
    let main = runner.main();
    succeeded(&main);
    assert_eq!(main.variables, BTreeMap::new());
    let names: Vec<_> = main.outputs.keys().map(String::as_str).collect();
    assert_eq!(names, ["env-file", "expires-at", "lease-ids", "task-id"]);
    let file = std::path::PathBuf::from(&main.outputs["env-file"]);
    assert!(file.starts_with(runner.temp()));
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    let script = ". \"$0\" && psql -X -tAc 'select text from app.notes' && echo \"$PGPASSWORD\"";
    let mut step = Command::new("sh");
    step.args(["-c", script]).arg(&file).env_clear().env("PATH", desk.path());
    let step: Finished = step.output().unwrap().into();
    let (row, secret) = step.out.trim().split_once('\n').unwrap();
    assert_eq!(row, "hello", "{step:?}");
    main.hides(secret);

    succeeded(&runner.post(&main, "failure"));
    assert_eq!(fs::read_dir(runner.temp()).unwrap().count(), 0, "what was written is gone");
    assert_eq!(desk.credentials(), Vec::<String>::new());
    assert_eq!(desk.tasks().await, ["failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_reach_later_steps_only_where_they_were_asked_for() {
    let desk = Desk::new().await;
    let fields = "REPORT_URL=pg-report/url\nREPORT_HOST=pg-report/host";
    let with = [("roles", "pg-report"), ("export", "env"), ("fields", fields)];
    let mut runner = Runner::new(&desk, &with).await;
    let main = runner.main();
    succeeded(&main);
    assert_eq!(main.variables.keys().collect::<Vec<_>>(), ["REPORT_HOST", "REPORT_URL"]);
    assert!(!main.outputs.contains_key("REPORT_URL"));
    let url = &main.variables["REPORT_URL"];
    assert!(desk.postgres.lets_in(url));
    main.hides(url);
    // A password that no variable carries is hidden as well.
    assert!(main.masks().iter().any(|mask| mask == password(url)), "{:?}", main.masks());
    succeeded(&runner.post(&main, "cancelled"));
    assert!(!desk.postgres.lets_in(url));
    assert_eq!(desk.tasks().await, ["cancelled"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_gets_no_token_is_told_why() {
    let desk = Desk::new().await;
    let mut runner = Runner::new(&desk, &[("roles", "pg-migrate"), ("export", "env")]).await;
    for (name, _) in runner.service.environment() {
        runner.environment.remove(&name);
    }
    let unpermitted = runner.main();
    assert_eq!(unpermitted.finished.code, Some(1));
    let log = unpermitted.log();
    assert!(log.starts_with("::error::dayfly: ") && log.lines().count() == 1, "{log}");
    assert!(log.contains("`permissions: { id-token: write, contents: read }`"), "{log}");

    let event = runner.temp().join("event.json");
    let (head, base) =
        (json!({ "full_name": "a/fork" }), json!({ "full_name": "octo-org/octo-repo" }));
    let request = json!({ "pull_request": { "head": { "repo": head }, "base": { "repo": base } } });
    fs::write(&event, request.to_string()).unwrap();
    runner.environment.insert("GITHUB_EVENT_PATH".to_owned(), event.display().to_string());
    let forked = runner.main();
    assert_eq!(forked.finished.code, Some(1));
    assert!(forked.log().contains("no identity token to a pull request from a fork"), "{forked:?}");

    let post = runner.post(&forked, "failure");
    succeeded(&post);
    assert!(post.log().contains("no task was opened"), "{post:?}");
    assert_eq!(desk.tasks().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_role_names_its_rule_and_leaves_nothing() {
    let desk = Desk::new().await;
    let with = [("roles", "pg-migrate, forbidden"), ("export", "outputs file env")];
    let mut runner = Runner::new(&desk, &with).await;
    let main = runner.main();
    assert_eq!(main.finished.code, Some(1), "{main:?}");
    let log = main.log();
    let denied = "::error::dayfly: role `forbidden` was denied: tests get no production credential \
                  (rule `test/no-production`) (request req_";
    assert!(log.contains(denied), "{log}");
    assert!(log.contains("dayfly:   repository_id: 456789\n"), "{log}");
    assert_eq!(main.outputs.keys().collect::<Vec<_>>(), ["task-id"]);
    assert_eq!(main.variables, BTreeMap::new());
    assert_eq!(desk.tasks().await, ["cancelled"]);
    desk.no_credentials().await;
    succeeded(&runner.post(&main, "failure"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_accepted_is_explained_and_never_shown() {
    let desk = Desk::new().await;
    let with = [("roles", "pg-migrate"), ("export", "env"), ("audience", "")];
    let runner = Runner::new(&desk, &with).await;
    let main = runner.main();
    assert_eq!(main.finished.code, Some(1), "{main:?}");
    let log = main.log();
    assert!(log.contains("the bearer token was not accepted"), "{log}");
    assert!(log.contains(&format!("dayfly:   aud: {}\n", desk.url())), "{log}");
    let given = runner.service.given.lock().unwrap().clone();
    assert_eq!(given.len(), 1, "a refusal is not tried again");
    main.hides(&given[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_that_cannot_be_meant_ask_for_nothing() {
    let desk = Desk::new().await;
    for (name, value, fault) in [
        ("url", "http://broker.example.com", "would send tokens in clear"),
        ("url", "https://user:secret@broker.example.com", "must not hold a user or password"),
        ("url", "broker", "is not a URL"),
        ("roles", "", "`roles` is empty"),
        ("roles", "1A=pg-migrate", "is not ROLE or NAME=ROLE"),
        ("roles", "pg-migrate pg-migrate", "names a role twice"),
        ("export", "everything", "`everything` is not known"),
        ("fields", "X=other/url", "role `other` is not one of `roles`"),
        ("ttl", "15", "is not a time such as"),
        ("ttl", "0s", "is not a time such as"),
    ] {
        let with = [("roles", "pg-migrate"), ("export", "env"), (name, value)];
        let runner = Runner::new(&desk, &with).await;
        let main = runner.main();
        assert_eq!(main.finished.code, Some(1), "{name}={value}: {main:?}");
        assert!(main.log().contains(fault), "{name}={value}: {main:?}");
        assert!(!main.log().contains("secret"), "{main:?}");
        assert_eq!(runner.service.given.lock().unwrap().len(), 0, "{name}={value}");
    }
    assert_eq!(desk.tasks().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_fails_the_step_and_never_the_post_step() {
    let mut desk = Desk::new().await;
    let with = [("roles", "pg-migrate"), ("export", "outputs")];
    let mut runner = Runner::new(&desk, &with).await;
    let main = runner.main();
    succeeded(&main);
    desk.broker.kill();

    let post = runner.post(&main, "success");
    assert_eq!(post.finished.code, Some(0), "{post:?}");
    let log = post.log();
    assert!(log.starts_with("::warning::dayfly: could not complete task tsk_"), "{log}");
    assert!(log.contains("(ECONNREFUSED)") && log.contains(&main.state["ends"]), "{log}");

    let nowhere = format!("http://127.0.0.1:{}", free_port());
    runner.inputs.insert("url".to_owned(), nowhere.clone());
    let away = runner.main();
    assert_eq!(away.finished.code, Some(1), "{away:?}");
    let line = format!("::error::dayfly: cannot reach {nowhere} (ECONNREFUSED)\n");
    assert!(away.log().ends_with(&line), "{}", away.log());
    assert_eq!(away.state, BTreeMap::new());

    desk.broker.resume().await;
    succeeded(&runner.post(&main, "success"));
    assert!(!desk.postgres.lets_in(&main.outputs["DATABASE_URL"]));
}

/// The runner signals the step and gives it ten seconds. What is checked is the harder case: it has
/// no time for anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_is_killed_half_way_is_ended_by_the_post_step() {
    let desk = Desk::new().await;
    let wire = Wire::to(desk.broker.port).await;
    let url = format!("http://127.0.0.1:{}", wire.port);
    let with = [("roles", "pg-migrate"), ("export", "env"), ("url", url.as_str())];
    let mut runner = Runner::new(&desk, &with).await;
    wire.hold("/api/v1/leases");
    let mut command = runner.command("main.mjs", &BTreeMap::new());
    let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let waiting = eventually("the task is open", Duration::from_secs(20), async || {
        let stage = runner.left("main.mjs", unseen());
        stage.state.contains_key("task").then_some(stage)
    })
    .await;
    assert_eq!(desk.tasks().await, ["open"]);
    running.signal("KILL", false);
    running.ended().await;
    wire.release();

    let main = runner.left("main.mjs", unseen());
    assert_eq!(main.state, waiting.state);
    succeeded(&runner.post(&main, "cancelled"));
    assert_eq!(desk.tasks().await, ["cancelled"]);
    desk.no_credentials().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_is_asked_for_again_and_one_credential_lives() {
    let desk = Desk::new().await;
    let wire = Wire::to(desk.broker.port).await;
    let url = format!("http://127.0.0.1:{}", wire.port);
    let with = [("roles", "pg-migrate"), ("export", "outputs"), ("url", url.as_str())];
    let mut runner = Runner::new(&desk, &with).await;
    wire.cut_after("/api/v1/leases");
    let mut command = runner.command("main.mjs", &BTreeMap::new());
    let mut running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    eventually("it was minted", Duration::from_secs(20), async || {
        (!desk.credentials().is_empty()).then_some(())
    })
    .await;
    wire.release();
    assert_eq!(running.ended().await, Some(0));
    let main = runner.left("main.mjs", unseen());
    desk.one_credential().await;
    assert!(desk.postgres.lets_in(&main.outputs["DATABASE_URL"]));
    assert_eq!(desk.tasks().await, ["open"]);
    succeeded(&runner.post(&main, "success"));
    assert_eq!(desk.credentials(), Vec::<String>::new());
}

/// An address that sends everybody elsewhere, and counts who comes there.
#[derive(Clone)]
struct Detour {
    elsewhere: String,
    followed: Arc<Mutex<u32>>,
}

async fn turn(State(detour): State<Detour>) -> (StatusCode, [(HeaderName, String); 1]) {
    (StatusCode::TEMPORARY_REDIRECT, [(LOCATION, detour.elsewhere)])
}

async fn follow(State(detour): State<Detour>) -> StatusCode {
    *detour.followed.lock().unwrap() += 1;
    StatusCode::OK
}

/// A token goes to the address that was named, and to no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let desk = Desk::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let detour = Detour { elsewhere: format!("{url}/elsewhere"), followed: Arc::default() };
    let router =
        Router::new().route("/elsewhere", any(follow)).fallback(turn).with_state(detour.clone());
    dayfly_lease::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let with = [("roles", "pg-migrate"), ("export", "env"), ("url", url.as_str())];
    let main = Runner::new(&desk, &with).await.main();
    assert_eq!(main.finished.code, Some(1), "{main:?}");
    assert!(main.log().contains("redirects (307); give the broker's own address"), "{main:?}");
    assert_eq!(*detour.followed.lock().unwrap(), 0);
}

/// A service whose keys have lines.
#[derive(Clone, Default)]
struct Keys(Arc<Mutex<BTreeSet<String>>>);

/// The last line is too short to be hidden.
const LINES: [&str; 4] =
    ["-----BEGIN KEY-----", "  bGluZSBvbmUgb2YgdGhl", "a2V5IGlzIHNlY3JldA", "=end"];

impl Keys {
    async fn start(&self) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new()
            .route("/keys", post(create))
            .route("/keys/{name}", get(look).delete(end))
            .with_state(self.clone());
        dayfly_lease::spawn(async move { axum::serve(listener, router).await.unwrap() });
        port
    }
}

async fn create(State(keys): State<Keys>, Json(body): Json<Value>) -> (StatusCode, Json<Value>) {
    keys.0.lock().unwrap().insert(body["name"].as_str().unwrap().to_owned());
    (StatusCode::CREATED, Json(json!({ "key": LINES.join("\n") })))
}

async fn look(State(keys): State<Keys>, Path(name): Path<String>) -> (StatusCode, Json<Value>) {
    let known = keys.0.lock().unwrap().contains(&name);
    (if known { StatusCode::OK } else { StatusCode::NOT_FOUND }, Json(json!({})))
}

async fn end(State(keys): State<Keys>, Path(name): Path<String>) -> (StatusCode, Json<Value>) {
    let known = keys.0.lock().unwrap().remove(&name);
    (if known { StatusCode::OK } else { StatusCode::NOT_FOUND }, Json(json!({})))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_of_many_lines_is_hidden_line_by_line() {
    let keys = Keys::default();
    let more = format!(
        "[[backend]]\nname = \"signing\"\nkind = \"http\"\nprefix = \"s_\"\n\
         url = \"http://127.0.0.1:{}\"\ncreate = {{ path = \"/keys\", body = {{ name = \"{{handle}}\" }} }}\n\
         answer = {{ secret = \"/key\" }}\nrevoke = {{ path = \"/keys/{{handle}}\" }}\n\
         verify = {{ path = \"/keys/{{handle}}\" }}\n\
         [[role]]\nname = \"sign\"\nbackend = \"signing\"\nowner = \"test\"\nttl = \"5m\"\n\
         ttl_max = \"1h\"\nrenewable = false\ntemplate = {{ variables = {{ SIGNING_KEY = \"token\" }} }}\n",
        keys.start().await
    );
    let desk = Desk::with(&more).await;
    let with = [("roles", "sign"), ("export", "outputs,env,file"), ("ttl", "5m")];
    let mut runner = Runner::new(&desk, &with).await;
    let main = runner.main();
    succeeded(&main);
    let whole = LINES.join("\n");
    assert_eq!((&main.outputs["SIGNING_KEY"], &main.variables["SIGNING_KEY"]), (&whole, &whole));
    let masks = main.masks();
    for line in &LINES[..3] {
        assert!(masks.iter().any(|mask| mask == line.trim()), "{line}: {masks:?}");
    }
    assert!(masks.contains(&whole), "its encoded forms are found by the whole: {masks:?}");
    assert!(masks.iter().all(|mask| mask.len() >= 8), "{masks:?}");
    let sourced = Command::new("sh")
        .args(["-c", ". \"$0\"; printf %s \"$SIGNING_KEY\""])
        .arg(&main.outputs["env-file"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(sourced.stdout).unwrap(), whole);
    assert_eq!(keys.0.lock().unwrap().len(), 1);
    succeeded(&runner.post(&main, "success"));
    assert_eq!(keys.0.lock().unwrap().len(), 0);
}
