//! Against real nodes: the suite that every backend passes, and what is Redis's own.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says by panicking what does not hold"
)]

use std::time::Duration;

use async_trait::async_trait;
use dayfly_backend_redis::{RedisBackend, RedisConfig, Tls};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Handle, Liveness, MintRequest, Plan, Retry,
    Revocation, Secret, Template, Timestamp,
    testkit::{self, Hop, Login, Session, Subject},
};
use redis::{RedisResult, aio::MultiplexedConnection};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::server::{ADMIN_PASSWORD, Node};

#[path = "conformance/server.rs"]
mod server;

/// A backend over nodes of its own.
struct Service {
    nodes: Vec<Node>,
    backend: RedisBackend,
}

fn config(nodes: &[String], user: &str) -> RedisConfig {
    let raw = json!({ "nodes": nodes, "username": user, "tls": "disable", "clock_skew_ms_max": 0,
        "connect_timeout_ms": 2_000, "answer_timeout_ms": 2_000 });
    let mut config: RedisConfig = serde_json::from_value(raw).unwrap();
    "df_".clone_into(&mut config.prefix);
    config.password = Some(Secret::new(ADMIN_PASSWORD.replace(' ', "-")));
    config
}

impl Service {
    fn start() -> Self {
        Self::over(vec![Node::start()])
    }

    fn over(nodes: Vec<Node>) -> Self {
        let places: Vec<String> = nodes.iter().map(Node::place).collect();
        let backend = RedisBackend::new(&config(&places, "dayfly")).unwrap();
        Self { nodes, backend }
    }

    /// A primary and a replica of it.
    fn pair() -> Self {
        let primary = Node::start();
        let port = primary.port.to_string();
        let replica = Node::with(&[
            "--replicaof",
            "127.0.0.1",
            &port,
            "--masteruser",
            "root",
            "--masterauth",
            "root",
        ]);
        Self::over(vec![primary, replica])
    }

    fn node(&self) -> &Node {
        self.nodes.first().unwrap()
    }

    async fn mint(&self, number: u128, raw: Value) -> Result<(Doomed, Credential), Error> {
        let template = self.backend.template(&raw)?;
        let handle = self.backend.handle(Uuid::from_u128(number)).unwrap();
        let credential = mint(&self.backend, &handle, &template, Duration::from_secs(30)).await?;
        Ok((Doomed::new(handle, template.plan().clone()), credential))
    }

    async fn end(&self, doomed: &Doomed) -> Result<(), Error> {
        match self.backend.revoke(std::slice::from_ref(doomed)).await.pop() {
            Some(Revocation::Gone) => Ok(()),
            Some(Revocation::Lingers) => panic!("it lingers"),
            Some(Revocation::Failed(error)) => Err(error),
            None => panic!("no answer"),
        }
    }
}

async fn mint(
    backend: &RedisBackend,
    handle: &Handle,
    template: &Template,
    within: Duration,
) -> Result<Credential, Error> {
    let now = now();
    let request = MintRequest {
        handle,
        template,
        expires_at: now.plus(Duration::from_mins(10)),
        mint_deadline: now.plus(within),
        principal: "test",
        lease: "lse_test",
    };
    backend.mint(&request).await
}

/// All nodes run on this machine.
fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

async fn login(place: &str, credential: &Credential) -> RedisResult<MultiplexedConnection> {
    let field = |name| credential.field(name).unwrap();
    let url = format!("redis://{}:{}@{place}/", field("username"), field("password"));
    redis::Client::open(url)?.get_multiplexed_async_connection().await
}

async fn run(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> Result<redis::Value, String> {
    let (first, rest) = words.split_first().unwrap();
    let answer: RedisResult<redis::Value> =
        redis::cmd(first).arg(rest).query_async(connection).await;
    answer.map_err(|error| error.code().unwrap_or("none").to_owned())
}

fn usual() -> Value {
    json!({ "commands": ["+@read", "+@write", "+ping"], "keys": ["app:*"] })
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        now()
    }

    async fn wait(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// At every node, or at none: anything between would be neither.
    async fn works(&self, credential: &Credential) -> bool {
        let mut works = Vec::new();
        for node in &self.nodes {
            match login(&node.place(), credential).await {
                Ok(_) => works.push(true),
                Err(error) => {
                    // Only "you may not" counts; a dead node would prove nothing.
                    let refused = error.kind() == redis::ErrorKind::AuthenticationFailed
                        || error.code() == Some("WRONGPASS");
                    assert!(refused, "{error}");
                    works.push(false);
                }
            }
        }
        let all = works.iter().all(|works| *works);
        assert!(all || works.iter().all(|works| !works), "the nodes differ: {works:?}");
        all
    }

    async fn open(&self, credential: &Credential) -> Option<Box<dyn Session>> {
        let mut open = Vec::new();
        for node in &self.nodes {
            open.push(login(&node.place(), credential).await.ok()?);
        }
        Some(Box::new(Open(open)))
    }
}

struct Open(Vec<MultiplexedConnection>);

#[async_trait]
impl Session for Open {
    async fn alive(&mut self) -> bool {
        let mut alive = false;
        for connection in &mut self.0 {
            alive |= run(connection, &["GET", "app:x"]).await.is_ok();
        }
        alive
    }
}

async fn conforms(service: &Service, left_out: &[&str]) {
    // Names that a prefix alone would take for ours.
    let tail = "a".repeat(26);
    let strangers = [format!("df_{}", tail.to_uppercase()), format!("df_{tail}a"), "df_x".into()];
    for node in &service.nodes {
        for name in &strangers {
            node.root::<()>(&["ACL", "SETUSER", name, "on", ">x"]).await;
        }
    }
    let template = service.backend.template(&usual()).unwrap();
    let ran = testkit::run(&Subject::new(&service.backend, &template, service)).await.unwrap();
    let expected: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| !left_out.contains(step)).collect();
    assert_eq!(ran, expected);
    for node in &service.nodes {
        let users: Vec<String> = node.root(&["ACL", "USERS"]).await;
        assert!(strangers.iter().all(|name| users.contains(name)), "{users:?}");
    }
}

#[tokio::test]
async fn one_node_conforms() {
    conforms(&Service::start(), &["native_expiry"]).await;
}

/// A replica has users of its own.
#[tokio::test]
async fn a_primary_and_a_replica_conform() {
    conforms(&Service::pair(), &["native_expiry", "late_mint"]).await;
}

#[tokio::test]
async fn what_was_revoked_does_not_come_back_with_a_restart() {
    let mut service = Service::start();
    let (gone, one) = service.mint(1, usual()).await.unwrap();
    let (stays, two) = service.mint(2, usual()).await.unwrap();
    service.end(&gone).await.unwrap();
    service.nodes[0].kill();
    service.nodes[0].resume();
    assert!(!service.works(&one).await);
    assert!(service.works(&two).await, "a lease outlives its node's restart");
    let listed = service.backend.list(None, 10).await.unwrap();
    assert_eq!(
        listed.credentials.into_iter().map(|one| one.handle).collect::<Vec<_>>(),
        [stays.handle]
    );
}

#[tokio::test]
async fn a_user_has_its_templates_rights_and_no_others() {
    let service = Service::start();
    let raw = json!({ "commands": ["+@read", "+set", "+publish"], "keys": ["app:*"],
        "read_keys": ["ref:*"], "channels": ["news"] });
    let (_, credential) = service.mint(1, raw).await.unwrap();
    let mut session = login(&service.node().place(), &credential).await.unwrap();
    for allowed in [
        &["SET", "app:a", "1"][..],
        &["GET", "app:a"],
        &["GET", "ref:a"],
        &["PUBLISH", "news", "x"],
    ] {
        assert!(run(&mut session, allowed).await.is_ok(), "{allowed:?}");
    }
    for refused in [
        &["SET", "ref:a", "1"][..],
        &["GET", "other"],
        &["DEL", "app:a"],
        &["PUBLISH", "olds", "x"],
        &["KEYS", "*"],
        &["ACL", "WHOAMI"],
    ] {
        assert_eq!(run(&mut session, refused).await, Err("NOPERM".into()), "{refused:?}");
    }
}

/// Whoever may everything that a template can give still makes no user and stops no server.
#[tokio::test]
async fn nobody_lifts_himself_up() {
    // Whatever the server's own configuration forbids to everybody would prove nothing.
    let open = ["--enable-module-command", "yes", "--enable-debug-command", "yes"];
    let service = Service::over(vec![Node::with(&open)]);
    let raw = json!({ "commands": ["+@all"], "keys": ["*"], "channels": ["*"] });
    let (doomed, credential) = service.mint(1, raw).await.unwrap();
    let mut session = login(&service.node().place(), &credential).await.unwrap();
    assert!(run(&mut session, &["SET", "any", "1"]).await.is_ok());
    let me = doomed.handle.as_str();
    let attempts: [&[&str]; 14] = [
        &["ACL", "SETUSER", me, "+@admin"],
        &["ACL", "SETUSER", "friend", "on", "nopass", "+@all", "~*"],
        &["ACL", "DELUSER", "root"],
        &["ACL", "LIST"],
        &["ACL", "SAVE"],
        &["CONFIG", "SET", "requirepass", ""],
        &["CONFIG", "GET", "*"],
        &["MODULE", "LOAD", "/tmp/x.so"],
        &["FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('f', function() end)"],
        &["DEBUG", "SLEEP", "0"],
        &["REPLICAOF", "NO", "ONE"],
        &["SHUTDOWN", "NOSAVE"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["MONITOR"],
    ];
    for attempt in attempts {
        assert_eq!(run(&mut session, attempt).await, Err("NOPERM".into()), "{attempt:?}");
    }
    let script = ["EVAL", "return redis.call('ACL', 'SETUSER', 'friend', 'on')", "0"];
    assert!(run(&mut session, &script).await.is_err());
    let users: Vec<String> = service.node().root(&["ACL", "USERS"]).await;
    assert!(!users.contains(&"friend".to_owned()), "{users:?}");
}

/// The message that creates the user is held on its way until the deadline has passed.
#[tokio::test]
async fn a_create_that_comes_late_creates_nothing() {
    let service = Service::start();
    let hop = Hop::before(&service.node().place(), b"EXEC", Duration::from_millis(1_500));
    let backend = RedisBackend::new(&config(&[hop.place()], "dayfly")).unwrap();
    let template = backend.template(&usual()).unwrap();
    let handle = backend.handle(Uuid::from_u128(1)).unwrap();
    let error = mint(&backend, &handle, &template, Duration::from_secs(1)).await.unwrap_err();
    assert!(chain(&error).contains("deadline has passed"), "{}", chain(&error));
    assert!(hop.met(), "else this proves nothing");
    let doomed = Doomed::new(handle, Plan::default());
    assert_eq!(service.backend.verify(&[doomed]).await.unwrap(), [Liveness::Gone]);
}

/// Its users are there, and nobody can say that they are not.
#[tokio::test]
async fn a_node_that_is_away_leaves_nobody_dead() {
    let mut service = Service::pair();
    let (doomed, credential) = service.mint(1, usual()).await.unwrap();
    service.nodes[1].kill();
    let error = service.end(&doomed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    assert!(service.backend.verify(std::slice::from_ref(&doomed)).await.is_err());
    assert!(login(&service.node().place(), &credential).await.is_err(), "at the other it is over");
    service.nodes[1].resume();
    service.end(&doomed).await.unwrap();
    assert!(!service.works(&credential).await);
}

#[tokio::test]
async fn what_is_wrong_with_the_way_is_said() {
    let node = Node::start();
    let failure = async |config: &RedisConfig| {
        let backend = RedisBackend::new(config).unwrap();
        let template = backend.template(&usual()).unwrap();
        let handle = backend.handle(Uuid::from_u128(1)).unwrap();
        mint(&backend, &handle, &template, Duration::from_secs(30)).await.unwrap_err()
    };
    let mut wrong = config(&[node.place()], "dayfly");
    wrong.password = Some(Secret::new("wrong"));
    let error = failure(&wrong).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", chain(&error));
    let error = failure(&config(&[node.place()], "bare")).await;
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(chain(&error).contains("acl|setuser"), "{}", chain(&error));
    let nobody = format!("127.0.0.1:{}", testkit::free_port());
    let error = failure(&config(std::slice::from_ref(&nobody), "dayfly")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(chain(&error).contains(&nobody), "{}", chain(&error));
    let user = ["no-aclfile", "--user", "dayfly", "on", ">correct-horse", "~*", "+@all"];
    let unsaved = Node::with(&user);
    let error = failure(&config(&[unsaved.place()], "dayfly")).await;
    assert!(chain(&error).contains("ACL file"), "{}", chain(&error));
}

/// Encrypted, to the host that the certificate names, by an authority that we know.
#[tokio::test]
async fn a_node_is_believed_by_its_certificate() {
    let node = Node::over_tls();
    let over = |place: String, authority: bool| {
        let mut config = config(&[place], "dayfly");
        config.tls = Tls::VerifyFull;
        config.ca_file = authority.then(|| node.path("ca.pem"));
        RedisBackend::new(&config).unwrap()
    };
    let refused = async |backend: RedisBackend| {
        let error = backend.list(None, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        chain(&error)
    };
    let known = over(node.place(), true);
    let handle = known.handle(Uuid::from_u128(1)).unwrap();
    let report = known.canary(&handle, &known.template(&usual()).unwrap()).await;
    assert!(report.passed(), "{report:?}");
    let text = refused(over(node.place(), false)).await;
    assert!(text.contains("UnknownIssuer"), "{text}");
    let text = refused(over(node.place().replace("127.0.0.1", "127.0.0.2"), true)).await;
    assert!(text.contains("127.0.0.2"), "{text}");
    let text = refused(RedisBackend::new(&config(&[node.place()], "dayfly")).unwrap()).await;
    assert!(!text.is_empty(), "in the clear there is no answer");
}

/// The server is told a hash, and says nothing else.
#[tokio::test]
async fn the_secret_is_in_no_log_and_no_file_of_the_server() {
    let service = Service::start();
    let (doomed, credential) = service.mint(1, usual()).await.unwrap();
    assert!(service.works(&credential).await);
    service.end(&doomed).await.unwrap();
    let (_, stays) = service.mint(2, usual()).await.unwrap();
    let file = std::fs::read_to_string(service.node().path("users.acl")).unwrap();
    let log = service.node().log();
    assert!(file.contains("user df_") && !log.is_empty());
    for secret in [&credential, &stays].map(|one| one.field("password").unwrap()) {
        assert!(!file.contains(secret) && !log.contains(secret));
    }
}

/// Our own password is changed by us at every node, and stays so over a restart.
#[tokio::test]
async fn our_own_password_changes() {
    let mut service = Service::pair();
    let places: Vec<String> = service.nodes.iter().map(Node::place).collect();
    let old = config(&places, "dayfly").password.unwrap();
    let make = |password: &Secret| -> Box<dyn Backend> {
        let config = RedisConfig { password: Some(password.clone()), ..config(&places, "dayfly") };
        Box::new(RedisBackend::new(&config).unwrap())
    };
    let rotated = testkit::rotation(&make, &old).await;
    let new = rotated.unwrap_or_else(|failure| panic!("{failure}"));
    // One node away: both passwords are accepted where it got to, and the one before everywhere.
    service.nodes[1].kill();
    let unset = Secret::new("UNSETABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    assert!(make(&new).rotate_root(&unset).await.is_err());
    for node in &mut service.nodes {
        node.kill();
        node.resume();
    }
    make(&new).marker().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    // And once more settles it, as whoever finds it open does.
    make(&new).rotate_root(&unset).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    make(&unset).marker().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(make(&new).marker().await.is_err(), "the one before is dead");
    for node in &service.nodes {
        let kept = std::fs::read_to_string(node.path("users.acl")).unwrap();
        assert!(kept.contains("dayfly") && !kept.contains("ROTATED"), "only its hash: {kept}");
    }
}

/// A node that cannot write its users down: what is minted would not be there after a restart,
/// and what is ended would. Both are errors that say so, until there is room again.
#[tokio::test]
async fn a_full_disk_is_said_and_nothing_is_lost() {
    let mut service = Service::over(vec![Node::on_small_disk()]);
    let (before, credential) = service.mint(1, usual()).await.unwrap();
    service.node().disk().fill();
    let error = service.mint(2, usual()).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
    assert!(chain(&error).contains("ACL"), "{}", chain(&error));
    let error = service.end(&before).await.unwrap_err();
    assert_eq!(error.retry(), Retry::Temporary, "{}", chain(&error));
    service.node().disk().free();
    // As if it had crashed before anybody tried again: the one that was ended is there, and the
    // one that was not minted is not.
    service.nodes[0].kill();
    service.nodes[0].resume();
    assert!(service.works(&credential).await, "its death was never written down");
    let handle = service.backend.handle(Uuid::from_u128(2)).unwrap();
    let after = Doomed::new(handle, Plan::default());
    assert_eq!(
        service.backend.verify(std::slice::from_ref(&after)).await.unwrap(),
        [Liveness::Gone]
    );
    service.end(&after).await.unwrap();
    service.end(&before).await.unwrap();
    assert!(!service.works(&credential).await);
}
