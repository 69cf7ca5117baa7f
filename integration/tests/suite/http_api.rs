//! A token of an HTTP API that only the token itself revokes, for one task: what that needs is
//! sealed in the store, across a crash of the broker.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{delete, get, post},
};
use dayfly_integration::{Broker, BrokerConfig, Store, eventually, free_port};
use serde_json::{Value, json};

#[derive(Clone, Default)]
struct Api {
    tokens: Arc<Mutex<BTreeSet<String>>>,
    /// The next one is made and not told.
    forgets: Arc<AtomicBool>,
}

impl Api {
    async fn start(&self) -> u16 {
        let port = free_port();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let router = Router::new()
            .route("/tokens", post(create))
            .route("/token", delete(end))
            .route("/me", get(me))
            .with_state(self.clone());
        dayfly_lease::spawn(async move { axum::serve(listener, router).await.unwrap() });
        port
    }

    fn has(&self, token: &str) -> bool {
        self.tokens.lock().unwrap().contains(token)
    }
}

fn bearer(headers: &HeaderMap) -> String {
    let value = headers.get("authorization").map(|value| value.to_str().unwrap());
    value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().to_owned()
}

async fn create(State(api): State<Api>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if bearer(&headers) != "root-of-the-api" {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "message": "who?" })));
    }
    let token = format!("tok-{}", uuid::Uuid::new_v4());
    api.tokens.lock().unwrap().insert(token.clone());
    if api.forgets.swap(false, Ordering::Relaxed) {
        return (StatusCode::BAD_GATEWAY, Json(json!({})));
    }
    (StatusCode::CREATED, Json(json!({ "token": token })))
}

async fn end(State(api): State<Api>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    if api.tokens.lock().unwrap().remove(&bearer(&headers)) {
        (StatusCode::OK, Json(json!({})))
    } else {
        me(State(api), headers).await
    }
}

async fn me(State(api): State<Api>, headers: HeaderMap) -> (StatusCode, Json<Value>) {
    let known = api.has(&bearer(&headers));
    (if known { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, Json(json!({})))
}

fn backend(port: u16) -> String {
    let own = "headers = { authorization = \"Bearer {secret}\" }\ngone = [401]";
    format!(
        "[seal]\nkey = {{ file = \"seal-key\" }}\n\
         [[backend]]\nname = \"api\"\nkind = \"http\"\nprefix = \"t_\"\n\
         url = \"http://127.0.0.1:{port}\"\npassword = {{ file = \"api-password\" }}\n\
         headers = {{ authorization = \"Bearer {{password}}\" }}\n\
         expiry = {{ slack_s = 1, life_min_s = 600, fixed = true }}\n\
         create = {{ path = \"/tokens\" }}\nanswer = {{ secret = \"/token\" }}\n\
         [backend.revoke]\npath = \"/token\"\n{own}\n[backend.verify]\npath = \"/me\"\n{own}\n\
         [backend.use]\npath = \"/me\"\n{own}\n\
         [[role]]\nname = \"token\"\nbackend = \"api\"\nowner = \"test\"\nttl = \"5m\"\n\
         ttl_max = \"1h\"\nrenewable = false\ntemplate = {{ variables = {{ TOKEN = \"token\" }} }}\n"
    )
}

fn secret(broker: &Broker, name: &str, text: &str) {
    let path = broker.config_file().with_file_name(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_only_itself_revokes_dies_with_its_task() {
    let api = Api::default();
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str(&backend(api.start().await));
    let mut broker = Broker::configure(config);
    secret(&broker, "api-password", "root-of-the-api");
    let unsealed = broker.command(&["check"]);
    let text = String::from_utf8_lossy(&unsealed.stderr).into_owned();
    assert!(!unsealed.status.success() && text.contains("seal.key"), "{text}");
    secret(&broker, "seal-key", &"5a".repeat(32));
    let canary = broker.command(&["check", "--canary"]);
    assert!(canary.status.success(), "{canary:?}");
    assert!(api.tokens.lock().unwrap().is_empty(), "the canary left one behind");

    broker.resume().await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    let lease = owner.mint("token").await.expect(201);
    let token = lease.text("/credential/token");
    assert_eq!(lease.text("/credential/_env/TOKEN"), "token");
    assert!(lease.body.get("residual_until").is_none(), "{}", lease.text);
    broker.kill();
    for file in ["dayfly.db", "dayfly.db-wal", "broker.log"] {
        let bytes = fs::read(broker.path().join(file)).unwrap_or_default();
        let shown = bytes.windows(token.len()).any(|part| part == token.as_bytes());
        assert!(!shown, "the token is in {file}");
    }
    broker.resume().await;
    assert!(api.has(&token), "it outlives the broker");
    owner.complete(&task, "10s").await.expect(200);
    assert!(!api.has(&token), "and not its task");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_answer_was_lost_is_owed_until_its_own_end() {
    let api = Api::default();
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str(&backend(api.start().await));
    let mut broker = Broker::configure(config);
    secret(&broker, "api-password", "root-of-the-api");
    secret(&broker, "seal-key", &"5a".repeat(32));
    broker.resume().await;
    let (task, owner) = broker.client().with(&broker.issuer.token("job")).open_task().await;
    api.forgets.store(true, Ordering::Relaxed);
    owner.mint("token").await.problem(503, "backend_unavailable");
    let completed = eventually("the task is closed", Duration::from_secs(30), async || {
        let completed = owner.complete(&task, "5s").await.expect(202);
        (completed.body.get("residual_until")?).is_string().then_some(completed)
    })
    .await;
    assert_eq!(completed.body.pointer("/leases/lingering"), Some(&json!(1)));
    let admin = broker.client().with(&broker.admin());
    let leases = admin.get("/api/v1/leases?state=revoking").await.unwrap().expect(200);
    assert_eq!(leases.text("/data/0/last_error"), "lingers");
    assert_eq!(leases.text("/data/0/residual_until"), completed.text("/residual_until"));
}
