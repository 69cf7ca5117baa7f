//! Certificates for servers under test.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// An authority of its own in `directory` (`ca.pem`, `ca.key`), and from it a certificate for
/// `localhost` and 127.0.0.1 (`server.pem`, `server.key`).
///
/// # Panics
/// Where `openssl` is not installed.
pub fn certify(directory: &Path) {
    let at = |name: &str| directory.join(name).display().to_string();
    let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
    let new = |more: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
        command.args(["-nodes", "-days", "2"]).args(more).stderr(Stdio::null());
        let status = command.status();
        assert!(status.is_ok_and(|status| status.success()), "{command:?}");
    };
    new(&["-subj", "/CN=test-ca", "-keyout", &ca_key, "-out", &ca]);
    new(&[
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-keyout",
        &at("server.key"),
        "-out",
        &at("server.pem"),
    ]);
}
