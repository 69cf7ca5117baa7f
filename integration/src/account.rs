//! A stand-in for an account of AWS: moto, as the backend `aws` is tested with it. It checks
//! signatures.
//!
//! Invariant: it listens on loopback alone and ends with its test.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{eventually, free_port, python, root, run};

/// A running STS and IAM.
#[derive(Debug)]
pub struct Account {
    directory: TempDir,
    child: Child,
    /// Its TCP port on 127.0.0.1.
    pub port: u16,
}

/// What one session of a role signs with.
#[derive(Clone, Debug)]
pub struct AwsSession {
    /// The access key's id.
    pub id: String,
    /// The secret key.
    pub secret: String,
    /// The session token.
    pub token: String,
    /// The role's unique id.
    pub unique_id: String,
}

impl Account {
    /// The account's id.
    pub const ID: &str = "123456789012";

    /// Starts one; `integration/test` has installed what it needs.
    pub async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("dfa").tempdir().unwrap();
        let port = free_port();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(python());
        command.arg(root().join("backends/aws/tests/conformance/account.py"));
        command.arg(port.to_string()).arg(directory.path());
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        let mut account = Self { directory, child: command.spawn().unwrap(), port };
        eventually("the account answers", Duration::from_mins(1), async || {
            let ended = account.child.try_wait().unwrap();
            assert!(ended.is_none(), "{}", account.log());
            let key = account.directory.path().join("root").exists();
            let up = key && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
            up.then_some(())
        })
        .await;
        account
    }

    /// The administrator's key: its id and its secret.
    pub fn root_key(&self) -> (String, String) {
        let text = fs::read_to_string(self.directory.path().join("root")).unwrap();
        let (id, secret) = text.trim().split_once(' ').unwrap();
        (id.to_owned(), secret.to_owned())
    }

    /// A new session of `role`, which is made if it is not there.
    pub fn session(&self, role: &str, session: &str) -> AwsSession {
        let mut command = Command::new(python());
        command.arg(root().join("integration/peers/aws-session.py"));
        command.arg(self.port.to_string()).arg(self.directory.path()).args([role, session]);
        command.env_clear().env("PATH", "/usr/bin:/bin");
        let answer: Value = serde_json::from_str(&run(&mut command)).unwrap();
        let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap().to_owned();
        AwsSession {
            id: text("id"),
            secret: text("secret"),
            token: text("token"),
            unique_id: text("unique_id"),
        }
    }

    /// Everything that it has written.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap()
    }
}

impl AwsSession {
    /// As AWS's own tools find it in their environment.
    pub fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", self.id.as_str()),
            ("AWS_SECRET_ACCESS_KEY", self.secret.as_str()),
            ("AWS_SESSION_TOKEN", self.token.as_str()),
            ("AWS_REGION", "eu-central-1"),
        ]
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
