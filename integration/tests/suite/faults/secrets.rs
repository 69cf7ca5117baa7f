//! No secret that was handed out is in anything that was written.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use dayfly_integration::{Answer, Broker, BrokerConfig, Postgres, Store};
use serde_json::json;

use super::{all_dead, both_stores, ended};

/// What the test itself gave to the broker in a file of its own.
const INPUTS: [&str; 3] = ["pg-password", "store-url", "audit-key"];
const ADMIN_PASSWORD: &str = "admin-password";

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_that_was_handed_out_is_written_anywhere() {
    let postgres = Postgres::start();
    for store in both_stores(&postgres, "secrets") {
        let embedded = matches!(store, Store::Sqlite);
        let mut config = BrokerConfig::new(store, Some(&postgres));
        config.more.push_str(
            "[[role]]\nname = \"broken\"\nbackend = \"pg\"\nowner = \"test\"\nttl = \"5m\"\n\
             ttl_max = \"1h\"\ntemplate = { member_of = [\"nobody_has_made_this\"] }\n",
        );
        let mut broker = Broker::start(config).await;
        let used = use_everything(&postgres, &broker).await;
        // Once while it runs, with what has not reached its main files yet, and once after.
        nothing_is_written(&postgres, &broker, &used, embedded);
        broker.signal("TERM");
        let status = ended(&mut broker, "secrets", Duration::from_secs(25)).await;
        assert!(status.success(), "{status}");
        nothing_is_written(&postgres, &broker, &used, embedded);
    }
}

/// What was handed out, and names that may be written and must be found.
struct Used {
    secrets: Vec<(&'static str, String)>,
    handle: String,
    /// The lease of the mint that failed, which is worth a line in the log.
    failed: String,
}

/// Opens, mints, uses, renews, fails, completes and reads: every way a secret goes.
async fn use_everything(postgres: &Postgres, broker: &Broker) -> Used {
    let federated = broker.issuer.token("job");
    let admins = broker.admin();
    let workload = broker.client().with(&federated);
    let body = json!({ "purpose": "secrets", "ttl_seconds": 600, "roles": ["reader", "greeter"] });
    let opened = workload.post("/api/v1/tasks", body).await.expect(201);
    let (task, token) = (opened.text("/id"), opened.text("/token"));
    let owner = broker.client().with(&token);
    let reader = owner.mint("reader").await.expect(201);
    let greeter = owner.mint("greeter").await.expect(201);
    assert!(postgres.lets_in(&reader.text("/credential/url")));
    let renew = format!("/api/v1/leases/{}/renew", reader.text("/id"));
    owner.post(&renew, json!({ "ttl_seconds": 600 })).await.expect(200);
    owner.mint("broken").await.expect(502);
    owner.mint("forbidden").await.expect(403);
    // Secrets where none belong: a replayed token, a key in the place of a token.
    let again = json!({ "purpose": "again", "ttl_seconds": 60 });
    workload.post("/api/v1/tasks", again).await.expect(401);
    let key = greeter.text("/credential/key");
    broker.client().with(&key).get("/api/v1/whoami").await.unwrap().expect(401);
    broker.client().with(&key).get("/verify").await.unwrap();

    let mut secrets = vec![
        ("federated token", federated),
        ("administrator's token", admins.clone()),
        ("task token", token),
        ("password", reader.text("/credential/password")),
        ("password of the first answer", opened.text("/leases/0/credential/password")),
        ("key", key),
        ("key of the first answer", opened.text("/leases/1/credential/key")),
    ];
    secrets.push(("administrator's password at the backend", ADMIN_PASSWORD.to_owned()));
    owner.complete(&task, "15s").await.expect(200);
    all_dead(broker, "secrets", Duration::from_secs(30)).await;
    let admin = broker.client().with(&admins);
    for path in ["leases", "tasks", "roles", "audit", "whoami"] {
        let shown = admin.get(&format!("/api/v1/{path}")).await.unwrap().expect(200);
        assert_tells_nothing(&shown, &secrets);
    }
    assert_tells_nothing(&broker.client().get("/metrics").await.unwrap().expect(200), &secrets);
    let failed = admin.get("/api/v1/leases?role=broken").await.unwrap().text("/data/0/id");
    Used { secrets, handle: reader.text("/credential/username"), failed }
}

fn assert_tells_nothing(shown: &Answer, secrets: &[(&str, String)]) {
    for (name, secret) in secrets {
        assert!(!shown.text.contains(secret), "the {name} is shown");
    }
}

fn nothing_is_written(postgres: &Postgres, broker: &Broker, used: &Used, embedded: bool) {
    let found = |needle: &str, place: &Path| !files_with(&[needle.to_owned()], place).is_empty();
    // The log is of everything, and the search finds what is there.
    let config = std::fs::read_to_string(broker.config_file()).unwrap();
    assert!(config.contains("log_filter = \"trace\"") && broker.log().contains("DEBUG"));
    assert!(found(&used.failed, &broker.path().join("broker.log")), "the log is searched");
    let stored = files_with(std::slice::from_ref(&used.handle), broker.path());
    let in_store = |path: &PathBuf| path.to_string_lossy().contains("dayfly.db");
    assert!(!embedded || stored.iter().any(in_store), "so is the store");
    assert!(found(&used.handle, postgres.socket()), "so is what the server writes");
    for (name, secret) in &used.secrets {
        let needles = spellings(secret);
        let files = files_with(&needles, broker.path());
        assert!(files.is_empty(), "the {name} is in {files:?}");
        // The test has made that account with a password in plain text.
        if secret != ADMIN_PASSWORD {
            let files = files_with(&needles, postgres.socket());
            assert!(files.is_empty(), "the {name} is in the server's {files:?}");
        }
    }
}

/// A secret as it is and as it would look in other clothes.
fn spellings(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let mut all = vec![secret.to_owned(), HEXLOWER.encode(bytes), HEXUPPER.encode(bytes)];
    // Within a longer text it would be encoded from one of three places in a group, and the
    // groups at its ends would be mixed with what is around it.
    for skip in 0..3 {
        let whole = &bytes[skip..];
        let whole = &whole[..whole.len() / 3 * 3];
        all.push(BASE64_NOPAD.encode(whole));
        all.push(BASE64URL_NOPAD.encode(whole));
    }
    all
}

/// The files at or below `place` that contain one of `needles`, without the test's inputs.
fn files_with(needles: &[String], place: &Path) -> Vec<PathBuf> {
    let mut grep = Command::new("grep");
    grep.args(["-r", "-l", "-a", "-F"]).args(INPUTS.map(|name| format!("--exclude={name}")));
    grep.args(needles.iter().flat_map(|needle| ["-e", needle])).arg("--").arg(place);
    let output = grep.output().unwrap();
    // A server at work removes files while they are looked for; any other error is a search
    // that did not search.
    let errors = String::from_utf8_lossy(&output.stderr);
    let real = errors.lines().find(|line| !line.ends_with("No such file or directory"));
    assert_eq!(real, None);
    String::from_utf8(output.stdout).unwrap().lines().map(PathBuf::from).collect()
}

#[test]
fn a_secret_is_found_in_other_clothes() {
    let secret = "dft_0123456789abcdefghij";
    let spellings = spellings(secret);
    for before in ["", "a", "ab", "abc"] {
        let text = format!("{before}{secret}xyz");
        for written in [
            text.clone(),
            HEXLOWER.encode(text.as_bytes()),
            HEXUPPER.encode(text.as_bytes()),
            BASE64_NOPAD.encode(text.as_bytes()),
            BASE64URL_NOPAD.encode(text.as_bytes()),
        ] {
            assert!(spellings.iter().any(|s| written.contains(s)), "{written}");
        }
    }
}
