//! The real `dayfly` against a real broker and PostgreSQL.

use std::{
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_integration::{Broker, BrokerConfig, Client, Postgres, Store, eventually, program};
use serde_json::Value;

/// A broker with PostgreSQL, and what its users have.
struct Desk {
    postgres: Postgres,
    broker: Broker,
    admin: Client,
}

/// What a program left.
#[derive(Debug)]
struct Finished {
    code: Option<i32>,
    /// What it died of, if it did.
    signal: Option<i32>,
    out: String,
    err: String,
}

impl Desk {
    async fn new() -> Self {
        let postgres = Postgres::start();
        let mut config = BrokerConfig::new(Store::Sqlite, Some(&postgres));
        config.more.push_str(
            "[[role]]\nname = \"auditor\"\nbackend = \"pg\"\nowner = \"test\"\nttl = \"5m\"\n\
             ttl_max = \"1h\"\ntemplate = { member_of = [\"readers\"] }\n",
        );
        let broker = Broker::start(config).await;
        let admin = broker.client().with(&broker.admin());
        Self { postgres, broker, admin }
    }

    /// A file with a token, as platforms leave it.
    fn token_file(&self, token: &str) -> PathBuf {
        let path = self.broker.path().join("identity-token");
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path
    }

    fn dayfly(&self, words: &[&str]) -> Command {
        let mut command = Command::new(program("dayfly"));
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", self.postgres.bin().display());
        command.args(words).env_clear().env("PATH", path);
        command.env("DAYFLY_URL", self.broker.client().url()).stdin(Stdio::null());
        command
    }

    /// `dayfly exec` with a fresh identity: what stands before `--`, and the command.
    fn exec(&self, options: &[&str], command: &[&str]) -> Command {
        let file = self.token_file(&self.broker.issuer.token("cli-job"));
        let file = ["exec", "--token-file", file.to_str().unwrap()];
        self.dayfly(&[&file, options, &["--"], command].concat())
    }

    /// `dayfly` as the administrator.
    fn administer(&self, words: &[&str]) -> Finished {
        let mut command = self.dayfly(words);
        finish(command.env("DAYFLY_TOKEN", self.broker.admin()))
    }

    fn credentials(&self) -> Vec<String> {
        self.postgres.roles("df_")
    }

    async fn tasks(&self) -> Vec<Value> {
        let tasks = self.admin.get("/api/v1/tasks").await.unwrap().expect(200);
        tasks.body["data"].as_array().unwrap().clone()
    }

    async fn leases(&self) -> Vec<Value> {
        let leases = self.admin.get("/api/v1/leases").await.unwrap().expect(200);
        leases.body["data"].as_array().unwrap().clone()
    }
}

fn finish(command: &mut Command) -> Finished {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Finished {
        code: output.status.code(),
        signal: output.status.signal(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_gives_psql_its_credential_and_ends_it() {
    let desk = Desk::new().await;
    let psql = ["psql", "-X", "-tAc", "select text from app.notes"];
    let read = finish(&mut desk.exec(&["--role", "reader"], &psql));
    assert_eq!((read.code, read.out.as_str()), (Some(0), "hello\n"), "{read:?}");
    assert!(read.err.contains("completed: 1 credential verified dead"), "{}", read.err);
    assert_eq!(desk.credentials(), Vec::<String>::new());

    let shown = finish(&mut desk.exec(&["--role", "reader"], &["sh", "-c", "echo $DATABASE_URL"]));
    let url = shown.out.trim();
    assert!(url.starts_with("postgres") && url.contains("@127.0.0.1:"), "{shown:?}");
    assert!(!desk.postgres.lets_in(url), "a login after the command");
    let password = url.split([':', '@']).nth(2).unwrap();
    assert!(!shown.err.contains(password), "{}", shown.err);
    for task in desk.tasks().await {
        assert_eq!(task["state"], "completed", "{task}");
    }
    for lease in desk.leases().await {
        assert_eq!(
            (&lease["state"], &lease["cause"]),
            (&"revoked".into(), &"task_completed".into())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_ends_as_its_command_ends() {
    let desk = Desk::new().await;
    for code in [1, 2, 42, 125, 255] {
        let command = format!("exit {code}");
        let ended = finish(&mut desk.exec(&["--role", "reader"], &["sh", "-c", &command]));
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(desk.credentials(), Vec::<String>::new());
        assert_eq!(desk.tasks().await[0]["state"], "failed");
    }
    let killed = finish(&mut desk.exec(&["--role", "reader"], &["sh", "-c", "kill -9 $$"]));
    assert_eq!((killed.code, killed.signal), (None, Some(9)), "{killed:?}");
    assert_eq!(desk.credentials(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_role_starts_nothing_and_names_the_rule() {
    let desk = Desk::new().await;
    let mark = desk.broker.path().join("started");
    let touch = ["touch", mark.to_str().unwrap()];
    for options in [&["--role", "forbidden"][..], &["--role", "reader", "--role", "X=forbidden"]] {
        let denied = finish(&mut desk.exec(options, &touch));
        assert_eq!((denied.code, denied.out.as_str()), (Some(125), ""), "{denied:?}");
        assert!(!mark.exists(), "the command was started");
        let line = "dayfly: error[role_denied]: role `forbidden` was denied by rule `test/no-production`: \
                    tests get no production credential (request req_";
        assert!(denied.err.starts_with(line), "{}", denied.err);
        let advice = "run `dayfly role check forbidden --explain`\n";
        assert!(denied.err.ends_with(advice), "{}", denied.err);
        assert_eq!(denied.err.lines().count(), 1, "{}", denied.err);
    }
    eventually("what was minted beside it is gone", Duration::from_secs(10), async || {
        desk.credentials().is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_before_the_command_is_125_or_127_and_mints_nothing() {
    let desk = Desk::new().await;
    let nowhere = format!("http://127.0.0.1:{}", dayfly_integration::free_port());
    let mut unreachable = desk.exec(&["--role", "reader"], &["true"]);
    let failed = finish(unreachable.env("DAYFLY_URL", &nowhere));
    assert_eq!((failed.code, failed.out.as_str()), (Some(125), ""), "{failed:?}");
    let line = format!("dayfly: error: cannot reach the broker at {nowhere}");
    assert!(failed.err.starts_with(&line), "{}", failed.err);
    assert_eq!(failed.err.lines().count(), 1, "{}", failed.err);

    let missing = finish(&mut desk.exec(&["--role", "reader"], &["no-such-command-here"]));
    assert_eq!(missing.code, Some(127), "{missing:?}");
    assert_eq!(
        missing.err,
        "dayfly: error: `no-such-command-here` was not found; is it installed, and PATH right?\n"
    );
    let plain = finish(&mut desk.exec(&["--role", "reader"], &["/etc/passwd"]));
    assert_eq!(plain.code, Some(126), "{plain:?}");
    assert_eq!(
        plain.err,
        "dayfly: error: `/etc/passwd` can't be executed; is it a program, and has it the mode of \
         one (chmod +x)?\n"
    );

    let file = desk.token_file("not-a-token");
    let words = ["exec", "--token-file", file.to_str().unwrap(), "--role", "reader", "--", "true"];
    let refused = finish(&mut desk.dayfly(&words));
    assert_eq!(refused.code, Some(125), "{refused:?}");
    let line = "dayfly: error[unauthenticated]: the bearer token was not accepted";
    assert!(refused.err.starts_with(line), "{}", refused.err);
    assert_eq!(refused.err.lines().count(), 1, "{}", refused.err);
    assert!(!refused.err.contains("not-a-token"), "{}", refused.err);

    assert_eq!(desk.tasks().await, Vec::<Value>::new());
    assert_eq!(desk.leases().await, Vec::<Value>::new());
}

/// Ends a program that a failed test leaves.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_reaches_the_command_and_cancels_the_task() {
    let desk = Desk::new().await;
    let (ready, got) = (desk.broker.path().join("ready"), desk.broker.path().join("got"));
    let script = format!(
        "trap 'echo term >{}; exit 7' TERM; echo >{}; while :; do sleep 0.1; done",
        got.display(),
        ready.display()
    );
    let mut command = desk.exec(&["--role", "reader"], &["sh", "-c", &script]);
    let mut running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    eventually("the command runs", Duration::from_secs(10), async || ready.exists().then_some(()))
        .await;
    assert_eq!(desk.credentials().len(), 1);
    let id = running.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let status =
        eventually("dayfly ends", Duration::from_secs(15), async || running.0.try_wait().unwrap())
            .await;
    assert_eq!(status.code(), Some(7), "the command's own answer to the signal");
    assert_eq!(std::fs::read_to_string(&got).unwrap(), "term\n");
    assert_eq!(desk.credentials(), Vec::<String>::new());
    assert_eq!(desk.tasks().await[0]["state"], "cancelled");
    assert_eq!(desk.leases().await[0]["cause"], "task_cancelled");
}

/// Nobody is left to say anything: not the injector, which `kill -9` ends, and not the command,
/// which ends with it. The broker hears nothing and ends the task, whose deadline is far away.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_injector_is_noticed_by_its_silence() {
    let desk = Desk::new().await;
    let options = ["--role", "reader", "--ttl", "1h", "--heartbeat", "10s"];
    let mut running = Running(desk.exec(&options, &["sleep", "600"]).spawn().unwrap());
    eventually("the credential is there", Duration::from_secs(10), async || {
        (desk.credentials().len() == 1).then_some(())
    })
    .await;
    // Longer than the interval: it is heard.
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(desk.credentials().len(), 1);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    eventually("the credential is gone", Duration::from_mins(1), async || {
        desk.credentials().is_empty().then_some(())
    })
    .await;
    assert_eq!(desk.tasks().await[0]["state"], "lost");
    eventually("its death is verified", Duration::from_secs(10), async || {
        (desk.leases().await[0]["state"] == "revoked").then_some(())
    })
    .await;
    assert_eq!(desk.leases().await[0]["cause"], "task_lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_roles_stand_under_their_names() {
    let desk = Desk::new().await;
    let script = r#"
        test -z "$PGUSER" && test -z "$DATABASE_URL" || exit 90
        test "$OLD_PGUSER" != "$NEW_PGUSER" || exit 91
        for url in "$OLD_DATABASE_URL" "$NEW_DATABASE_URL"; do
            psql -X -tAc 'select text from app.notes' "$url" || exit 92
        done"#;
    let roles = ["--role", "OLD=reader", "--role", "NEW=auditor"];
    let both = finish(&mut desk.exec(&roles, &["sh", "-c", script]));
    assert_eq!((both.code, both.out.as_str()), (Some(0), "hello\nhello\n"), "{both:?}");
    assert!(both.err.contains("2 credentials verified dead"), "{}", both.err);
    assert_eq!(desk.credentials(), Vec::<String>::new());

    // An API key goes by its own name, beside a database or alone.
    let keyed = ["--role", "reader", "--role", "greeter"];
    let keyed = finish(&mut desk.exec(&keyed, &["sh", "-c", "echo $DAYFLY_API_KEY $PGDATABASE"]));
    assert_eq!(keyed.code, Some(0), "{keyed:?}");
    let (key, database) = keyed.out.trim().split_once(' ').unwrap();
    assert_eq!(database, "app");
    let verified = desk.broker.client().with(key).get("/verify").await.unwrap();
    assert_eq!(verified.status, 401, "the key is dead");
    assert!(key.starts_with("dfk_") && !keyed.err.contains(key), "{keyed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_administrator_finds_a_lease_and_revokes_it() {
    let desk = Desk::new().await;
    let (task, owner) =
        desk.broker.client().with(&desk.broker.issuer.token("laptop")).open_task().await;
    let lease = owner.mint("reader").await.expect(201);
    let (id, url) = (lease.text("/id"), lease.text("/credential/url"));
    let password = lease.text("/credential/password");

    let listed = desk.administer(&["lease", "list", "--output", "json"]);
    assert_eq!(listed.code, Some(0), "{listed:?}");
    let page: Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(page["data"].as_array().unwrap().len(), 1, "{page}");
    assert_eq!(
        (&page["data"][0]["id"], &page["data"][0]["state"]),
        (&id.as_str().into(), &"active".into())
    );
    let dead = desk.administer(&["lease", "list", "--state", "revoked", "--output", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&dead.out).unwrap()["data"], serde_json::json!([]));
    let table = desk.administer(&["lease", "list", "--role", "reader"]);
    assert!(table.out.starts_with("ID") && table.out.contains(&id), "{table:?}");

    let shown = desk.administer(&["lease", "show", &id]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    for word in [id.as_str(), task.as_str(), "active", "ci|laptop", "native_expiry"] {
        assert!(shown.out.contains(word), "{word}: {}", shown.out);
    }
    assert!(!shown.out.contains(&password) && !listed.out.contains(&password));

    assert!(desk.postgres.lets_in(&url));
    let words = ["lease", "revoke", &id, "--reason", "laptop lost", "--wait", "5s"];
    let revoked = desk.administer(&words);
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert!(revoked.out.contains("revoked") && revoked.out.contains("requested"), "{revoked:?}");
    assert!(!desk.postgres.lets_in(&url));
    assert_eq!(desk.administer(&words).code, Some(0), "asking twice is no error");

    let none = desk.administer(&["lease", "show", "lse_none"]);
    assert_eq!((none.code, none.out.as_str()), (Some(3), ""), "{none:?}");
    let mistyped = desk.administer(&["lease", "list", "--state", "alive"]);
    assert_eq!((mistyped.code, mistyped.out.as_str()), (Some(2), ""), "{mistyped:?}");
    let mut nobody = desk.dayfly(&["lease", "list"]);
    assert_eq!(finish(nobody.env("DAYFLY_TOKEN", "nonsense")).code, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_who_he_is_and_what_he_may_have() {
    let desk = Desk::new().await;
    let me = desk.administer(&["whoami", "--output", "json"]);
    assert_eq!(me.code, Some(0), "{me:?}");
    let me: Value = serde_json::from_str(&me.out).unwrap();
    assert_eq!((&me["kind"], &me["subject"]), (&"human".into(), &"root@example.test".into()));
    let names = |finished: &Finished| {
        let roles: Value = serde_json::from_str(&finished.out).unwrap();
        let names = roles["data"].as_array().unwrap().iter();
        names.map(|role| role["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let all = desk.administer(&["role", "list", "--output", "json"]);
    assert_eq!(names(&all), ["auditor", "forbidden", "greeter", "reader"]);

    let job = |words: &[&str]| {
        let token = desk.broker.issuer.token("cli-job");
        finish(desk.dayfly(words).env("DAYFLY_ID_TOKEN", token))
    };
    assert!(job(&["whoami"]).out.contains("ci|cli-job"));
    let mine = job(&["role", "list", "--output", "json"]);
    assert_eq!(names(&mine), ["auditor", "greeter", "reader"]);
    assert!(job(&["role", "list"]).out.contains("reader"));
}
