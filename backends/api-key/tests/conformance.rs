//! The conformance suite on API keys, and what is particular to them.

#![expect(clippy::unwrap_used, reason = "a test may panic")]
#![expect(clippy::string_slice, reason = "a key is ASCII")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use dayfly_backend_api_key::{ApiKeyBackend, KeyRecord, KeyStore, MemoryKeyStore, Random};
use dayfly_backend_sdk::{
    Backend, Credential, HandlePrefix, MintRequest, Timestamp,
    testkit::{self, Login, Session, Subject},
};
use serde_json::json;
use uuid::Uuid;

#[path = "conformance/signed.rs"]
mod signed;

const START: i64 = 1_790_000_000;

struct Service {
    backend: ApiKeyBackend,
    keys: Arc<MemoryKeyStore>,
}

impl Service {
    fn new() -> Self {
        let keys = Arc::new(MemoryKeyStore::new(Timestamp::from_seconds(START)));
        let counter = AtomicU8::new(1);
        let random: Random =
            Arc::new(move |bytes| bytes.fill(counter.fetch_add(1, Ordering::SeqCst)));
        let prefix = HandlePrefix::parse("dayfly_").unwrap();
        Self { backend: ApiKeyBackend::new(prefix, keys.clone(), random), keys }
    }

    async fn mint(&self) -> String {
        let template = self.backend.template(&json!({ "scopes": ["orders:read"] })).unwrap();
        let handle = self.backend.handle(Uuid::from_u128(7)).unwrap();
        let now = self.keys.now().await.unwrap();
        let request = MintRequest {
            handle: &handle,
            template: &template,
            expires_at: now.plus(Duration::from_secs(10)),
            mint_deadline: now.plus(Duration::from_secs(5)),
            principal: "ci",
            lease: "lse_7",
        };
        self.backend.mint(&request).await.unwrap().field("key").unwrap().to_owned()
    }
}

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        self.keys.now().await.unwrap()
    }

    async fn wait(&self, duration: Duration) {
        let now = self.keys.now().await.unwrap();
        self.keys.set_now(now.plus(duration));
    }

    async fn works(&self, credential: &Credential) -> bool {
        let key = credential.field("key").unwrap();
        self.backend.verify_key(key).await.unwrap().is_some()
    }

    async fn open(&self, _credential: &Credential) -> Option<Box<dyn Session>> {
        None
    }
}

#[tokio::test]
async fn conforms() {
    let service = Service::new();
    let stranger = KeyRecord {
        handle: dayfly_backend_sdk::Handle::parse("dayflyx_other").unwrap(),
        hash: [9; 32],
        scopes: Vec::new(),
        principal: String::new(),
        lease: String::new(),
        expires_at: Timestamp::MAX,
    };
    service.keys.insert(&stranger, Timestamp::MAX).await.unwrap();
    let template = service.backend.template(&json!({ "scopes": ["orders:read"] })).unwrap();
    let subject = Subject::new(&service.backend, &template, &service);
    let ran = testkit::run(&subject).await.unwrap();
    let without_sessions: Vec<_> =
        testkit::STEPS.iter().copied().filter(|step| *step != "session_kill").collect();
    assert_eq!(ran, without_sessions);
    assert_eq!(service.keys.find(&[9; 32]).await.unwrap(), Some(stranger));
}

#[tokio::test]
async fn a_key_is_good_until_its_expiry_and_not_at_it() {
    let service = Service::new();
    let key = service.mint().await;
    service.wait(Duration::from_micros(9_999_999)).await;
    let record = service.backend.verify_key(&key).await.unwrap().unwrap();
    assert_eq!(record.scopes, ["orders:read"]);
    assert_eq!((record.principal.as_str(), record.lease.as_str()), ("ci", "lse_7"));
    service.wait(Duration::from_micros(1)).await;
    assert_eq!(service.backend.verify_key(&key).await.unwrap(), None);
}

#[tokio::test]
async fn only_the_hash_is_kept() {
    let service = Service::new();
    let key = service.mint().await;
    let kept = format!("{:?}", service.keys);
    assert!(!kept.contains(&key) && !kept.contains(&key[4..20]), "{kept}");
}

#[tokio::test]
async fn nothing_but_the_whole_key_is_good() {
    let service = Service::new();
    let key = service.mint().await;
    let mut other = key.clone();
    other.replace_range(10..11, if &key[10..11] == "a" { "b" } else { "a" });
    let long = "dfk_".repeat(10_000);
    for bad in ["", " ", "\0", "dfk_", &key[4..], &key[..52], &format!("{key} "), &other, &long] {
        assert_eq!(service.backend.verify_key(bad).await.unwrap(), None, "{bad:?}");
    }
    assert!(service.backend.verify_key(&key).await.unwrap().is_some());
}
