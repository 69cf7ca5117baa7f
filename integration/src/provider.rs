//! A certified OpenID Provider: the npm package `oidc-provider`, as a process behind TLS.
//!
//! Invariant: its certificate is from an authority of the test's own, so that a broker which
//! accepts it has checked it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{eventually, free_port, root, run};

/// A running provider.
#[derive(Debug)]
pub struct Provider {
    directory: TempDir,
    child: Child,
    /// Its TCP port on localhost.
    pub port: u16,
}

impl Provider {
    /// Starts one; `integration/test` has installed it.
    pub async fn start() -> Self {
        let peers = root().join("integration/.peers");
        let module = peers.join("node_modules/oidc-provider");
        assert!(module.exists(), "oidc-provider is not installed; run integration/test once");
        let directory = tempfile::Builder::new().prefix("dfo").tempdir().unwrap();
        certificates(directory.path());
        let port = free_port();
        let mut command = Command::new("node");
        command.arg(root().join("integration/peers/oidc-provider.mjs"));
        command.arg(port.to_string()).arg(directory.path()).env("PEERS", &peers);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().expect("node is installed (Debian: nodejs)");
        let provider = Self { directory, child, port };
        eventually("the provider answers", Duration::from_secs(20), async || {
            provider.try_token("https://nobody.example.test").await
        })
        .await;
        provider
    }

    /// What it calls itself.
    pub fn issuer(&self) -> String {
        format!("https://localhost:{}", self.port)
    }

    /// The authority that signed its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// A token for `audience`, by the client credentials grant, as a workload gets it.
    pub async fn token(&self, audience: &str) -> String {
        self.try_token(audience).await.expect("the provider gives a token")
    }

    async fn try_token(&self, audience: &str) -> Option<String> {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "10", "--noproxy", "*"]);
        curl.arg("--cacert").arg(self.ca_file());
        curl.args(["-u", "ci-job:ci-job-secret", "-d", "grant_type=client_credentials"]);
        curl.args(["-d", &format!("resource={audience}")]).arg(format!("{}/token", self.issuer()));
        let output = curl.output().await.ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(answer.get("access_token")?.as_str()?.to_owned())
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An authority and a certificate for localhost.
pub(crate) fn certificates(directory: &Path) {
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments));
    let ca = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
    openssl(
        &[
            &["req", "-x509", "-subj", "/CN=test authority"],
            &ca[..],
            &["-keyout", &at("ca.key"), "-out", &at("ca.pem")],
        ]
        .concat(),
    );
    openssl(
        &[
            &["req", "-subj", "/CN=localhost"],
            &ca[..5],
            &["-keyout", &at("key.pem"), "-out", &at("request.pem")],
        ]
        .concat(),
    );
    std::fs::write(directory.join("extensions"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        .unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        &at("request.pem"),
        "-CA",
        &at("ca.pem"),
        "-CAkey",
        &at("ca.key"),
        "-CAcreateserial",
        "-days",
        "2",
        "-extfile",
        &at("extensions"),
        "-out",
        &at("cert.pem"),
    ]);
}
