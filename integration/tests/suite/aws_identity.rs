//! AWS as an identity: the real `dayfly` signs, a stand-in for STS that checks signatures says who
//! it was, and a real broker decides.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Command, Stdio},
    thread,
};

use data_encoding::BASE64URL_NOPAD;
use dayfly_integration::{Account, AwsSession, Broker, BrokerConfig, Client, Store, program};
use reqwest::Method;
use serde_json::{Value, json};

const SERVER_ID: &str = "https://dayfly.example.test";

/// A broker that trusts the account `id`, and asks `account`.
async fn broker(account: &Account, id: &str) -> Broker {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    write!(
        config.more,
        "[[aws_identity]]\nname = \"aws\"\nserver_id = \"{SERVER_ID}\"\naccounts = [\"{id}\"]\n\
         regions = [\"eu-central-1\"]\nendpoint_url = \"http://127.0.0.1:{}\"\n",
        account.port
    )
    .unwrap();
    Broker::start(config).await
}

/// `dayfly` on a machine that has nothing but the session.
fn dayfly(url: &str, session: &AwsSession, server_id: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program("dayfly"));
    command.args(words).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.envs(session.environment()).env("DAYFLY_URL", url).env("DAYFLY_IDENTITY", "aws");
    command.env("DAYFLY_AUDIENCE", server_id).stdin(Stdio::null());
    command
}

/// What `dayfly` sends as its bearer: caught by somebody who only listens.
fn signed(session: &AwsSession, server_id: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        let mut lines = lines.take_while(|line| !line.is_empty());
        lines.find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let value = value.strip_prefix("Bearer ")?;
            name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
        })
    });
    // Once only: the call is not repeated where its answer may have been lost.
    let words = ["exec", "--role", "greeter", "--", "true"];
    let output = dayfly(&url, session, server_id, &words).output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    heard.join().unwrap().expect("a bearer was sent")
}

/// Opens a task with `bearer`: the status, and what the audit log says of it last.
async fn opened(broker: &Broker, bearer: &str) -> (u16, String) {
    let body = json!({ "purpose": "test", "ttl_seconds": 60 });
    let request = broker.client().with(bearer).request(Method::POST, "/api/v1/tasks").json(&body);
    let status = Client::send(request).await.unwrap().status;
    let record = broker.audit().await.pop().unwrap();
    let code = record["detail"]["code"].as_str().or_else(|| record["event"].as_str());
    (status, code.unwrap().to_owned())
}

/// `bearer` with something else in it.
fn changed(bearer: &str, change: impl FnOnce(&mut Value)) -> String {
    let encoded = bearer.strip_prefix("aws.").unwrap();
    let bytes = BASE64URL_NOPAD.decode(encoded.as_bytes()).unwrap();
    let mut request: Value = serde_json::from_slice(&bytes).unwrap();
    change(&mut request);
    format!("aws.{}", BASE64URL_NOPAD.encode(request.to_string().as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_opens_a_task_and_gets_its_credential() {
    let account = Account::start().await;
    let broker = broker(&account, Account::ID).await;
    let session = account.session("deploy", "build-7");
    let url = broker.client().url().to_owned();

    let script = ["exec", "--role", "greeter", "--", "sh", "-c", "echo $DAYFLY_API_KEY"];
    let output = dayfly(&url, &session, SERVER_ID, &script).output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{err}\n{}", account.log());
    assert!(output.stdout.starts_with(b"dfk_"), "{:?}", output.stdout);
    assert!(err.contains("completed: 1 credential verified dead"), "{err}");

    let words = ["whoami", "--output", "json"];
    let output = dayfly(&url, &session, SERVER_ID, &words).output().unwrap();
    let me: Value = serde_json::from_slice(&output.stdout).unwrap();
    let role = format!("arn:aws:sts::{}:assumed-role/deploy", Account::ID);
    let subject = format!("{role}#{}", session.unique_id);
    assert_eq!(me["principal"], json!(format!("aws|{subject}")), "{me}");

    // Another session of the role is the same principal; it owns the same tasks.
    let other = account.session("deploy", "build-8");
    let output = dayfly(&url, &other, SERVER_ID, &words).output().unwrap();
    let other: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(other["principal"], me["principal"]);

    // Neither the secret key nor the session's token is anywhere.
    for (path, bytes) in broker.everything_written() {
        let text = String::from_utf8_lossy(&bytes);
        for secret in [&session.secret, &session.token] {
            assert!(!text.contains(secret.as_str()), "{}", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_request_opens_one_task_and_no_second() {
    let account = Account::start().await;
    let broker = broker(&account, Account::ID).await;
    let session = account.session("deploy", "build-7");
    let bearer = signed(&session, SERVER_ID);
    assert_eq!(opened(&broker, &bearer).await, (201, "task.opened".to_owned()));
    assert_eq!(opened(&broker, &bearer).await, (401, "replayed".to_owned()));
    // Nor written down in another way, nor at another replica.
    let again = changed(&bearer, |request| {
        let headers = request["headers"].as_object_mut().unwrap();
        let date = headers.remove("x-amz-date").unwrap();
        headers.insert("X-Amz-Date".to_owned(), date);
    });
    assert_ne!(again, bearer);
    assert_eq!(opened(&broker, &again).await, (401, "replayed".to_owned()));
    // Another request of the same second is another.
    let (one, two) = (signed(&session, SERVER_ID), signed(&session, SERVER_ID));
    assert_eq!(opened(&broker, &one).await.0, 201);
    assert_eq!(opened(&broker, &two).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_changed_or_meant_for_another_is_refused() {
    let account = Account::start().await;
    let broker = broker(&account, Account::ID).await;
    let session = account.session("deploy", "build-7");
    let bearer = signed(&session, SERVER_ID);

    // The signature covers what we look at: STS says so.
    let nonce = changed(&bearer, |r| r["headers"]["x-dayfly-nonce"] = "another".into());
    assert_eq!(opened(&broker, &nonce).await, (401, "bad_signature".to_owned()));
    let elsewhere = signed(&session, "https://other.example.test");
    assert_eq!(opened(&broker, &elsewhere).await, (401, "wrong_audience".to_owned()));
    let bent = changed(&elsewhere, |r| r["headers"]["x-dayfly-server-id"] = SERVER_ID.into());
    assert_eq!(opened(&broker, &bent).await, (401, "bad_signature".to_owned()));
    let host = changed(&bearer, |r| r["url"] = "https://sts.evil.example/".into());
    assert_eq!(opened(&broker, &host).await, (401, "host_refused".to_owned()));
    let forged = AwsSession { secret: "x".repeat(40), ..session.clone() };
    let forged = signed(&forged, SERVER_ID);
    assert_eq!(opened(&broker, &forged).await, (401, "bad_signature".to_owned()));

    // None of this used the good one up.
    assert_eq!(opened(&broker, &bearer).await.0, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_account_is_refused_and_a_dead_sts_is_not_the_callers_fault() {
    let account = Account::start().await;
    let broker = broker(&account, "999999999999").await;
    let session = account.session("deploy", "build-7");
    let bearer = signed(&session, SERVER_ID);
    assert_eq!(opened(&broker, &bearer).await, (401, "account_refused".to_owned()));
    drop(account);
    assert_eq!(opened(&broker, &bearer).await, (503, "sts_unavailable".to_owned()));
    // Who has nothing to do with AWS notices nothing.
    let job = broker.issuer.token("job");
    assert_eq!(opened(&broker, &job).await.0, 201);
}
