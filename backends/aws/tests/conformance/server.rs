//! A throwaway STS and IAM: loopback only, gone on drop.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Weak},
    time::Duration,
};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use aws_sdk_sts::config::retry::RetryConfig;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use dayfly_backend_sdk::{
    Credential,
    testkit::{self, free_port},
};
use tempfile::TempDir;
use tokio::sync::Mutex;

pub(crate) const ACCOUNT: &str = "123456789012";
pub(crate) const REGION: &str = "eu-central-1";

pub(crate) struct Server {
    directory: TempDir,
    pub(crate) port: u16,
    child: Child,
    root: (String, String),
}

/// Alive as long as a test uses it, so that the last one stops it.
static SHARED: Mutex<Weak<Server>> = Mutex::const_new(Weak::new());

impl Server {
    /// The server that is running, or a new one.
    pub(crate) async fn shared() -> Arc<Self> {
        let mut shared = SHARED.lock().await;
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = Arc::new(Self::start());
        *shared = Arc::downgrade(&server);
        server
    }

    pub(crate) fn start() -> Self {
        Self::with(|_| Vec::new())
    }

    /// With a certificate for `localhost` of the authority `ca.pem`.
    pub(crate) fn with_tls() -> Self {
        Self::with(|directory| {
            testkit::certify(directory.path());
            let at = |name: &str| directory.path().join(name).display().to_string();
            vec!["-c".to_owned(), at("server.pem"), "-k".to_owned(), at("server.key")]
        })
    }

    fn with(options: impl Fn(&TempDir) -> Vec<String>) -> Self {
        let directory = tempfile::Builder::new().prefix("dfaws").tempdir_in("/tmp").unwrap();
        let port = free_port();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(python());
        command.arg(at("tests/conformance/account.py")).arg(port.to_string()).arg(directory.path());
        command.args(options(&directory)).env_clear().env("PATH", "/usr/bin:/bin");
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        let child = command.spawn().unwrap();
        let root = (String::new(), String::new());
        let mut server = Self { directory, port, child, root };
        for _ in 0..600 {
            let root = fs::read_to_string(server.path("root"));
            if let Ok(root) = root
                && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
            {
                let (id, secret) = root.trim().split_once(' ').unwrap();
                server.root = (id.to_owned(), secret.to_owned());
                return server;
            }
            if server.child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{}", server.written());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn place(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Lets the sessions' clock run on by so much since the start.
    pub(crate) fn ahead(&self, by: Duration) {
        fs::write(self.path("ahead.new"), by.as_secs_f64().to_string()).unwrap();
        fs::rename(self.path("ahead.new"), self.path("ahead")).unwrap();
    }

    /// Everything that it has written.
    pub(crate) fn written(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// As the administrator.
    pub(crate) fn iam(&self) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(&self.sdk(&self.root.0, &self.root.1, None))
    }

    /// As whoever has the credential.
    pub(crate) fn iam_as(&self, credential: &Credential) -> aws_sdk_iam::Client {
        aws_sdk_iam::Client::new(&self.sdk_as(credential))
    }

    pub(crate) fn sts_as(&self, credential: &Credential) -> aws_sdk_sts::Client {
        aws_sdk_sts::Client::new(&self.sdk_as(credential))
    }

    fn sdk_as(&self, credential: &Credential) -> SdkConfig {
        let field = |name| credential.field(name).unwrap();
        let token = credential.field("session_token").map(str::to_owned);
        self.sdk(field("access_key_id"), field("secret_access_key"), token)
    }

    fn sdk(&self, id: &str, secret: &str, token: Option<String>) -> SdkConfig {
        let keys = Credentials::new(id, secret, token, None, "test");
        let tls = Provider::Rustls(CryptoMode::Ring);
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(format!("http://{}", self.place()))
            .retry_config(RetryConfig::disabled())
            .credentials_provider(SharedCredentialsProvider::new(keys))
            .http_client(Builder::new().tls_provider(tls).build_https())
            .build()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn at(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The one that has moto.
fn python() -> PathBuf {
    let python = at("../../integration/.peers/python/bin/python3");
    assert!(python.exists(), "no moto at {}: run integration/test", python.display());
    python
}
