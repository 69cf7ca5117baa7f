//! The committed OpenAPI document is the program's own.

use std::process::Command;

use dayfly_integration::{program, root};
use serde_json::Value;

#[test]
fn the_committed_document_is_up_to_date() {
    let output = Command::new(program("dayfly-server")).arg("openapi").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let committed = std::fs::read(root().join("docs/openapi.json")).unwrap();
    assert!(
        committed == output.stdout,
        "docs/openapi.json is not up to date; run \
         `cargo run --bin dayfly-server -- openapi > docs/openapi.json`"
    );
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."), "{}", document["openapi"]);
}
