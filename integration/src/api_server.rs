//! A kube-apiserver with its etcd, as processes: the real thing for what the stand-in
//! ([`Cluster`](crate::Cluster)) says of itself. There is no kubelet: pods are objects, and their
//! phases are what a test writes.
//!
//! Invariant: both processes end with the value; nothing of them is kept.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use dayfly_server::identity::install_crypto;
use reqwest::{Certificate, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Pod, eventually, free_port, root, run};

const START_WITHIN: Duration = Duration::from_mins(2);
const ADMIN: &str = "admin-token";
const NODE: &str = "n1";

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    directory: TempDir,
    etcd: Child,
    server: Child,
    etcd_port: u16,
    port: u16,
}

impl ApiServer {
    /// What its tokens have as their `iss`.
    pub const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    /// Starts one with the account `dayfly` and the account `runner` in `ci`;
    /// `integration/kubernetes` has built it.
    pub async fn start() -> Self {
        install_crypto();
        let directory = tempfile::Builder::new().prefix("dfk").tempdir().unwrap();
        let (etcd_port, peer_port, port) = (free_port(), free_port(), free_port());
        let path = directory.path();
        let key = path.join("sa.key").display().to_string();
        let public = path.join("sa.pub").display().to_string();
        run(Command::new("openssl").args(["genrsa", "-out", &key, "2048"]));
        run(Command::new("openssl").args(["rsa", "-in", &key, "-pubout", "-out", &public]));
        fs::write(path.join("tokens.csv"), format!("{ADMIN},admin,admin,\"system:masters\"\n"))
            .unwrap();
        let (client, peer) = (local("http", etcd_port), local("http", peer_port));
        let mut command = logged("etcd", &path.join("etcd.log"));
        command.arg("--data-dir").arg(path.join("etcd"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        let etcd = command.spawn().expect("etcd is installed (Debian: etcd-server)");
        let server = spawn_server(path, etcd_port, port);
        let mut it = Self { directory, etcd, server, etcd_port, port };
        it.is_ready().await;
        it.furnish().await;
        it
    }

    /// Where its API is.
    pub fn url(&self) -> String {
        local("https", self.port)
    }

    /// The certificate that it made for itself, and the one that signed it.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("certs/apiserver.crt")
    }

    /// The file with the broker's token.
    pub fn token_file(&self) -> PathBuf {
        self.directory.path().join("token")
    }

    /// The keys of its tokens, as it publishes them.
    pub fn jwks_file(&self) -> PathBuf {
        self.directory.path().join("jwks.json")
    }

    /// Stops the API server, and starts it again; etcd goes on.
    pub async fn restart(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.server = spawn_server(self.directory.path(), self.etcd_port, self.port);
        self.is_ready().await;
    }

    /// Adds a pod of the account `runner` in `ci`, which runs.
    pub async fn add(&self, name: &str) -> Pod {
        let pod = json!({
            "metadata": { "name": name },
            "spec": {
                "nodeName": NODE, "serviceAccountName": "runner",
                "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
                "containers": [{ "name": "build", "image": "x" }],
            },
        });
        let pod = self.post("/api/v1/namespaces/ci/pods", &pod).await;
        let text = |name: &str| pod["metadata"][name].as_str().unwrap().to_owned();
        let pod = Pod { namespace: text("namespace"), name: text("name"), uid: text("uid") };
        self.phase(&pod, "Running").await;
        pod
    }

    /// Writes a pod's phase, as its kubelet would.
    pub async fn phase(&self, pod: &Pod, phase: &str) {
        let path = format!("{}/status", place(pod));
        let patch = json!({ "status": { "phase": phase } });
        self.call(Method::PATCH, &path, Some(&patch)).await;
    }

    /// Deletes a pod at once.
    pub async fn remove(&self, pod: &Pod) {
        let now = json!({ "gracePeriodSeconds": 0 });
        self.call(Method::DELETE, &place(pod), Some(&now)).await;
    }

    /// A token of a pod for one audience, or for the API server itself.
    pub async fn token(&self, pod: &Pod, audience: Option<&str>) -> String {
        let bound = json!({
            "kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid,
        });
        let audiences: Vec<&str> = audience.into_iter().collect();
        self.account_token(
            "ci",
            "runner",
            &json!({
                "audiences": audiences, "expirationSeconds": 3_600, "boundObjectRef": bound,
            }),
        )
        .await
    }

    async fn account_token(&self, namespace: &str, account: &str, spec: &Value) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
        let request = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec,
        });
        self.post(&path, &request).await["status"]["token"].as_str().unwrap().to_owned()
    }

    /// What everybody finds: namespaces, accounts, a node, and the rights that the documentation
    /// gives to a broker.
    async fn furnish(&mut self) {
        let named = |name: &str| json!({ "metadata": { "name": name } });
        for (namespace, account) in [("ci", "runner"), ("dayfly", "dayfly")] {
            self.post("/api/v1/namespaces", &named(namespace)).await;
            let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
            self.post(&path, &named(account)).await;
        }
        self.post("/api/v1/nodes", &named(NODE)).await;
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let rules = json!([
            { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"],
              "verbs": ["create"] },
            { "apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"] },
        ]);
        let role = json!({ "metadata": { "name": "dayfly" }, "rules": rules });
        self.post(&format!("{rbac}/clusterroles"), &role).await;
        let binding = json!({
            "metadata": { "name": "dayfly" },
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "dayfly",
            },
            "subjects": [{ "kind": "ServiceAccount", "name": "dayfly", "namespace": "dayfly" }],
        });
        self.post(&format!("{rbac}/clusterrolebindings"), &binding).await;
        let spec = json!({ "expirationSeconds": 36_000 });
        let ours = self.account_token("dayfly", "dayfly", &spec).await;
        fs::write(self.token_file(), ours).unwrap();
        let keys = self.call(Method::GET, "/openid/v1/jwks", None).await;
        fs::write(self.jwks_file(), keys.to_string()).unwrap();
    }

    async fn is_ready(&mut self) {
        eventually("the API server is ready", START_WITHIN, async || {
            let exited = self.server.try_wait().unwrap();
            assert!(exited.is_none(), "{}", self.log());
            let certificate = fs::read(self.ca_file()).ok()?;
            let client = client(&certificate)?;
            let ready = client.get(format!("{}/readyz", self.url())).bearer_auth(ADMIN);
            ready.send().await.is_ok_and(|answer| answer.status().is_success()).then_some(())
        })
        .await;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("server.log")).unwrap_or_default()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        self.call(Method::POST, path, Some(body)).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let client = client(&fs::read(self.ca_file()).unwrap()).unwrap();
        let kind = match method {
            Method::PATCH => "application/merge-patch+json",
            _ => "application/json",
        };
        let mut request = client.request(method, format!("{}{path}", self.url()));
        request = request.bearer_auth(ADMIN).header("content-type", kind);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        for child in [&mut self.server, &mut self.etcd] {
            // It may be dead already.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn spawn_server(path: &Path, etcd_port: u16, port: u16) -> Child {
    let program = root().join("integration/.peers/kubernetes/kube-apiserver");
    assert!(program.exists(), "no kube-apiserver is built; run integration/kubernetes once");
    let mut command = logged(&program, &path.join("server.log"));
    let file = |name: &str| path.join(name).display().to_string();
    for (name, value) in [
        ("etcd-servers", local("http", etcd_port)),
        ("secure-port", port.to_string()),
        ("bind-address", "127.0.0.1".to_owned()),
        ("cert-dir", file("certs")),
        ("service-account-issuer", ApiServer::ISSUER.to_owned()),
        ("service-account-key-file", file("sa.pub")),
        ("service-account-signing-key-file", file("sa.key")),
        ("token-auth-file", file("tokens.csv")),
        ("authorization-mode", "RBAC".to_owned()),
        ("service-cluster-ip-range", "10.0.0.0/24".to_owned()),
        // Nobody makes the accounts' default objects here.
        ("disable-admission-plugins", "ServiceAccount".to_owned()),
    ] {
        command.arg(format!("--{name}={value}"));
    }
    command.spawn().unwrap()
}

fn logged(program: impl AsRef<OsStr>, log: &Path) -> Command {
    let mut command = Command::new(program);
    let log = File::options().create(true).append(true).open(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    command
}

fn local(scheme: &str, port: u16) -> String {
    format!("{scheme}://127.0.0.1:{port}")
}

fn place(pod: &Pod) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name)
}

/// None while the certificate is being written.
fn client(certificate: &[u8]) -> Option<reqwest::Client> {
    let mut builder = reqwest::Client::builder().no_proxy();
    for certificate in Certificate::from_pem_bundle(certificate).ok()? {
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().ok()
}
