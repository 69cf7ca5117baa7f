//! A Keycloak, as a process behind TLS, with a realm of workloads (`ci`) and one of people
//! (`people`), which are two issuers with keys of their own.
//!
//! Invariant: it keeps nothing: its database is in memory, and each start has the same realms.

use std::{
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{eventually, free_port, provider::certificates, root};

/// It takes half a minute where nothing else runs, and starts in the midst of a suite.
const START_WITHIN: Duration = Duration::from_mins(3);
const PASSWORD: &str = "admin-password";

/// A running Keycloak.
#[derive(Debug)]
pub struct Keycloak {
    directory: TempDir,
    child: Child,
    port: u16,
}

impl Keycloak {
    /// The audience of the tokens of both realms.
    pub const AUDIENCE: &'static str = "https://dayfly.example.test";

    /// Starts one; `integration/test` has unpacked it.
    pub async fn start() -> Self {
        let program = root().join("integration/.peers/keycloak/root/bin/kc.sh");
        assert!(program.exists(), "Keycloak is not unpacked; run integration/test once");
        let directory = tempfile::Builder::new().prefix("dfk").tempdir().unwrap();
        certificates(directory.path());
        let (port, management) = (free_port(), free_port());
        let mut command = Command::new(program);
        command.args(["start", "--optimized", "--import-realm", "--http-host=127.0.0.1"]);
        command.arg(format!("--https-port={port}"));
        command.arg(format!("--http-management-port={management}"));
        command.arg(format!("--hostname=https://localhost:{port}"));
        for (option, file) in [("certificate", "cert.pem"), ("certificate-key", "key.pem")] {
            let path = directory.path().join(file);
            command.arg(format!("--https-{option}-file={}", path.display()));
        }
        command.env("KC_BOOTSTRAP_ADMIN_USERNAME", "admin");
        command.env("KC_BOOTSTRAP_ADMIN_PASSWORD", PASSWORD);
        command.env("JAVA_OPTS_APPEND", "-Xms64m -Xmx512m");
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        // The script starts Java as a child of its own.
        let child = command.process_group(0).spawn().unwrap();
        let keycloak = Self { directory, child, port };
        eventually("Keycloak answers", START_WITHIN, async || keycloak.ask("ci", &WORKLOAD).await)
            .await;
        keycloak
    }

    /// What a realm calls itself.
    pub fn issuer(&self, realm: &str) -> String {
        format!("https://localhost:{}/realms/{realm}", self.port)
    }

    /// The authority that signed its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A token of a service account, by the client credentials grant.
    pub async fn workload(&self) -> String {
        self.ask("ci", &WORKLOAD).await.expect("a token of `ci-job`")
    }

    /// The same of a client whose tokens are for somebody else.
    pub async fn workload_elsewhere(&self) -> String {
        let elsewhere =
            ["grant_type=client_credentials", "client_id=elsewhere", "client_secret=ci-job-secret"];
        self.ask("ci", &elsewhere).await.expect("a token of `elsewhere`")
    }

    /// A token of Ada, of the group `platform`.
    pub async fn ada(&self) -> String {
        let ada =
            ["grant_type=password", "client_id=console", "username=ada", "password=ada-password"];
        self.ask("people", &ada).await.expect("a token of Ada's")
    }

    /// A token of Keycloak's own administrator.
    pub async fn administrator(&self) -> String {
        let password = format!("password={PASSWORD}");
        let admin = ["grant_type=password", "client_id=admin-cli", "username=admin", &password];
        self.ask("master", &admin).await.expect("a token of the administrator's")
    }

    /// Gives realm `ci` a new key, with which it signs from now on.
    pub async fn rotate(&self) {
        let bearer = self.administrator().await;
        let key = json!({
            "name": "next", "parentId": "ci", "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider",
            "config": { "priority": ["200"], "keySize": ["2048"], "algorithm": ["RS256"] },
        });
        let mut curl = self.curl(&format!("{}/admin/realms/ci/components", self.base()));
        curl.args(["--fail-with-body", "-H", "content-type: application/json"]);
        curl.arg("-H").arg(format!("authorization: Bearer {bearer}"));
        let output = curl.arg("-d").arg(key.to_string()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    fn base(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    fn curl(&self, url: &str) -> tokio::process::Command {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--noproxy", "*", "--cacert"]).arg(self.ca_file());
        curl.arg(url);
        curl
    }

    async fn ask(&self, realm: &str, form: &[&str]) -> Option<String> {
        let url = format!("{}/protocol/openid-connect/token", self.issuer(realm));
        let mut curl = self.curl(&url);
        for field in form {
            curl.args(["-d", field]);
        }
        let output = curl.output().await.ok()?;
        let answer: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(answer.get("access_token")?.as_str()?.to_owned())
    }
}

const WORKLOAD: [&str; 3] =
    ["grant_type=client_credentials", "client_id=ci-job", "client_secret=ci-job-secret"];

impl Drop for Keycloak {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
        drop(self.child.wait());
    }
}
