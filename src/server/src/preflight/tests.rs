//! Goal: what could never work is refused before anything is contacted.

use std::{path::Path, time::Duration};

use super::*;
use crate::config;

const SHOP: &str = r#"
store = { kind = "sqlite", path = "dayfly.db" }
policies = { dir = "." }
[[backend]]
name = "shop"
kind = "postgres"
prefix = "dayfly_"
host = "/run/postgresql"
clock_skew_ms_max = 5000
"#;

#[tokio::test]
async fn a_backend_whose_mints_could_never_be_in_time_is_refused() {
    let parsed = config::parse(SHOP, "dayfly.toml", Path::new("/"), &|_: &str| None);
    let config = parsed.unwrap_or_else(|faults| panic!("{faults}"));
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let faults = |mint_within| {
        let given = Given { mint_within, sealed: false };
        inspect(&config.backends, &config.roles, &entropy, given)
    };
    assert_eq!(faults(Duration::from_millis(5_001)).len(), 0);
    let found = faults(Duration::from_secs(5));
    let [fault] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(fault.key, "backend.shop");
    assert!(fault.message.contains("`engine.mint_within`"), "{fault}");
}
