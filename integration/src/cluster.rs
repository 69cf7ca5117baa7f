//! A stand-in for a Kubernetes cluster, as far as a broker sees one: its API server's token
//! reviews, lists and watches of pods, and the tokens that it gives to them.
//!
//! It is not an API server, and proves nothing about one ([`ApiServer`](crate::ApiServer) is one):
//! what it answers is written after Kubernetes 1.33, and what a real one does besides is not here. It signs tokens and checks what
//! it signed; it forgets events as etcd does, and cuts connections where a test wants it.
//!
//! Invariant: it answers nobody who has not the token in the broker's file, as it is now.

mod api;
mod tokens;

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
};

use axum::{
    Router,
    routing::{get, post},
};
use dayfly_lease::{Entropy, SystemEntropy, spawn};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use uuid::Uuid;

use tokens::Signer;

/// A running stand-in.
#[derive(Debug)]
pub struct Cluster {
    directory: TempDir,
    site: Arc<Site>,
    serving: JoinHandle<()>,
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
}

/// A pod of it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name, which another may have after it.
    pub name: String,
    /// Its uid, which no other ever has.
    pub uid: String,
}

#[derive(Debug)]
struct Site {
    signer: Signer,
    world: Mutex<World>,
    changed: watch::Sender<()>,
}

/// What there is, and how it came about.
#[derive(Debug, Default)]
struct World {
    /// The broker's token.
    ours: String,
    pods: BTreeMap<(String, String), Value>,
    /// The last one that was given.
    version: u64,
    /// What changed, each with its version.
    events: Vec<(u64, Value)>,
    /// What came before this one is forgotten.
    oldest: u64,
    /// How often all watches were cut.
    cuts: u64,
    is_down: bool,
    ignores_audiences: bool,
    asked: Vec<String>,
}

impl Cluster {
    /// What its tokens have as their `iss`: the default of many installers.
    pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// Starts one, without any pod.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("dfk").tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (changed, _) = watch::channel(());
        let world = Mutex::new(World { version: 1, ..World::default() });
        let site = Arc::new(Site { signer: Signer::new(), world, changed });
        let router = Router::new()
            .route("/apis/authentication.k8s.io/v1/tokenreviews", post(api::review))
            .route("/api/v1/pods", get(api::pods))
            .route("/api/v1/namespaces/{namespace}/pods", get(api::pods_of))
            .route("/api/v1/namespaces/{namespace}/pods/{name}", get(api::pod))
            .fallback(api::nothing)
            .with_state(Arc::clone(&site));
        let serving = spawn(async move { axum::serve(listener, router).await.unwrap() });
        let cluster = Self { directory, site, serving, port };
        fs::write(cluster.jwks_file(), cluster.site.signer.jwks().to_string()).unwrap();
        cluster.replace_our_token();
        cluster
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The file with the broker's token.
    pub fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    /// The keys of its tokens.
    pub fn jwks_file(&self) -> PathBuf {
        self.directory.path().join("jwks.json")
    }

    /// The broker's token.
    pub fn our_token(&self) -> String {
        self.site.world().ours.clone()
    }

    /// Gives the broker another token, as the kubelet does, and takes the old one back.
    pub fn replace_our_token(&self) {
        let token = format!("{}.{}", uuid(), uuid());
        fs::write(self.token_file(), format!("{token}\n")).unwrap();
        self.site.world().ours = token;
    }

    /// Adds a pod that runs.
    pub fn add(&self, namespace: &str, name: &str) -> Pod {
        let uid = uuid().to_string();
        let object = json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "name": name, "namespace": namespace, "uid": uid,
                "creationTimestamp": "2026-09-21T14:13:20Z",
                "managedFields": [{ "manager": "kubelet", "operation": "Update", "fieldsV1": {} }],
            },
            "spec": { "containers": [{ "name": "build", "image": "x" }], "nodeName": "n1" },
            "status": { "phase": "Running", "containerStatuses": [{
                "name": "build", "state": { "running": { "startedAt": "2026-09-21T14:13:22Z" } },
                "lastState": {}, "ready": true, "restartCount": 0, "started": true,
            }] },
        });
        let key = (namespace.to_owned(), name.to_owned());
        let before = self.site.change("ADDED", &key, |_| object);
        assert!(before.is_none(), "there is a pod of this name");
        Pod { namespace: key.0, name: key.1, uid }
    }

    /// Puts a pod in its last phase, `Succeeded` or `Failed`.
    pub fn finish(&self, pod: &Pod, phase: &str) {
        self.site.change("MODIFIED", &pod.key(), |object| {
            let mut object = object.unwrap();
            object["status"]["phase"] = json!(phase);
            let ended = json!({ "terminated": { "exitCode": 0 } });
            object["status"]["containerStatuses"][0]["state"] = ended;
            object
        });
    }

    /// Tells a pod to go. Its containers run on for a while.
    pub fn tell_to_go(&self, pod: &Pod) {
        self.site.change("MODIFIED", &pod.key(), |object| {
            let mut object = object.unwrap();
            object["metadata"]["deletionTimestamp"] = json!("2026-09-21T14:20:00Z");
            object
        });
    }

    /// Removes a pod.
    pub fn remove(&self, pod: &Pod) {
        self.site.change("DELETED", &pod.key(), Option::unwrap);
    }

    /// Forgets all that has changed so far, as etcd does after a while.
    pub fn forget(&self) {
        let mut world = self.site.world();
        world.oldest = world.version;
        world.events.clear();
    }

    /// Cuts every watch, in the middle of a line.
    pub fn cut(&self) {
        self.site.world().cuts += 1;
        self.site.changed.send_replace(());
    }

    /// Answers nothing any more but pages of something else, and cuts every watch.
    pub fn go_down(&self) {
        self.site.world().is_down = true;
        self.cut();
    }

    /// Answers again.
    pub fn come_up(&self) {
        self.site.world().is_down = false;
    }

    /// Behaves as an API server that does not know of audiences: it accepts what is for others,
    /// and does not say for whom.
    pub fn ignore_audiences(&self) {
        self.site.world().ignores_audiences = true;
    }

    /// What was asked so far: method, path and query.
    pub fn asked(&self) -> Vec<String> {
        self.site.world().asked.clone()
    }

    /// The token that a pod of the account `runner` has for `audience`.
    pub fn token(&self, pod: &Pod, audience: &str) -> String {
        self.site.signer.sign(&tokens::claims(pod, audience))
    }

    /// A token of `runner` with these claims instead of those that are usual.
    pub fn token_with(&self, pod: &Pod, audience: &str, more: Value) -> String {
        let mut claims = tokens::claims(pod, audience);
        let Value::Object(more) = more else { panic!("claims are an object") };
        claims.as_object_mut().unwrap().extend(more);
        self.site.signer.sign(&claims)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.serving.abort();
        // Connections have tasks of their own, which the abort does not reach.
        self.go_down();
    }
}

impl Pod {
    fn key(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }
}

impl Site {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Changes a pod, and tells everybody; gives what it was.
    fn change(
        &self,
        kind: &str,
        key: &(String, String),
        change: impl FnOnce(Option<Value>) -> Value,
    ) -> Option<Value> {
        let mut world = self.world();
        let before = world.pods.remove(key);
        let mut object = change(before.clone());
        world.version += 1;
        let version = world.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        world.events.push((version, json!({ "type": kind, "object": object })));
        if kind != "DELETED" {
            world.pods.insert(key.clone(), object);
        }
        drop(world);
        self.changed.send_replace(());
        before
    }
}

fn uuid() -> Uuid {
    let mut random = [0; 16];
    SystemEntropy::new().fill(&mut random);
    uuid::Builder::from_random_bytes(random).into_uuid()
}
