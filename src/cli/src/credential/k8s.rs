//! Exec plugins of Kubernetes' clients: `ExecCredential` of `client.authentication.k8s.io/v1`.
//!
//! Invariant: a client that speaks another version is told so, and never given what it might read
//! otherwise.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    args::MappedField,
    credential::handed::{Fault, Fields, Handed},
};

const VERSION: &str = "client.authentication.k8s.io/v1";
const KIND: &str = "ExecCredential";
const NAMES: &[&str] = &["client_certificate", "client_key", "token"];

/// What the client says of itself in `KUBERNETES_EXEC_INFO`.
#[derive(Deserialize)]
struct Info {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
}

/// Whether the client can read what we write. Without a client there is nothing to check.
pub(crate) fn check(info: Option<&str>) -> Result<(), Fault> {
    let Some(info) = info else { return Ok(()) };
    let info: Info = serde_json::from_str(info).map_err(|_| {
        Fault::new("KUBERNETES_EXEC_INFO is not what Kubernetes' clients say there")
    })?;
    if info.api_version == VERSION && info.kind == KIND {
        return Ok(());
    }
    Err(Fault::new(format!(
        "the client wants {} of {}; set `apiVersion: {VERSION}` in the kubeconfig",
        shown(&info.kind),
        shown(&info.api_version)
    )))
}

/// The beginning of what comes from elsewhere.
fn shown(text: &str) -> String {
    format!("`{}`", text.chars().take(64).collect::<String>())
}

/// What the client reads from stdout: a token, a certificate with its key, or both.
pub(crate) fn render(handed: &Handed, named: &[MappedField]) -> Result<String, Fault> {
    let fields = Fields::of(handed, named, NAMES)?;
    let certificate = fields.found("client_certificate", &["client_certificate", "certificate"])?;
    let key = fields.found("client_key", &["client_key", "private_key"])?;
    let mut status = serde_json::Map::new();
    let mut put = |name: &str, value: &str| {
        status.insert(name.to_owned(), Value::from(value));
    };
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            put("clientCertificateData", certificate);
            put("clientKeyData", key);
            if let Some(token) = fields.found("token", &["token"])? {
                put("token", token);
            }
        }
        // A half of a pair is of no use; a token has all that is needed.
        _ => put("token", fields.wanted("token", &["token", "id_token", "key"])?),
    }
    put("expirationTimestamp", &handed.end()?);
    let answer = json!({ "apiVersion": VERSION, "kind": KIND, "status": status });
    Ok(format!("{answer}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::handed::handed;

    fn status(fields: &[(&str, &str)]) -> Value {
        let answer: Value = serde_json::from_str(&render(&handed(fields), &[]).unwrap()).unwrap();
        assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!(VERSION), &json!(KIND)));
        answer["status"].clone()
    }

    #[test]
    fn a_token_or_a_certificate_is_given_with_its_end() {
        let end = "2026-01-01T00:15:00Z";
        assert_eq!(
            status(&[("token", "hunter2")]),
            json!({ "token": "hunter2", "expirationTimestamp": end })
        );
        assert_eq!(
            status(&[("certificate", "-----BEGIN\n"), ("private_key", "k")]),
            json!({ "clientCertificateData": "-----BEGIN\n", "clientKeyData": "k",
                "expirationTimestamp": end })
        );
        let half = handed(&[("certificate", "c")]);
        assert!(render(&half, &[]).unwrap_err().to_string().contains("`token`"));
    }

    #[test]
    fn only_the_version_that_is_written_is_answered() {
        let info = |version: &str, kind: &str| {
            json!({ "apiVersion": version, "kind": kind, "spec": { "interactive": false } })
                .to_string()
        };
        assert_eq!(check(None), Ok(()));
        assert_eq!(check(Some(&info(VERSION, KIND))), Ok(()));
        let beta = check(Some(&info("client.authentication.k8s.io/v1beta1", KIND))).unwrap_err();
        assert!(beta.to_string().contains("apiVersion: client.authentication.k8s.io/v1"), "{beta}");
        assert!(check(Some(&info(VERSION, "Other"))).is_err());
        for bad in ["", "{}", "[]", "v1"] {
            assert!(check(Some(bad)).is_err(), "{bad}");
        }
    }
}
