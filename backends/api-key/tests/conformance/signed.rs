//! Keys that are signed: the suite as somebody sees it who verifies by the published keys
//! alone, and as somebody who asks each time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use dayfly_backend_api_key::{ApiKeyBackend, ApiKeyConfig, JwtConfig, KeyStore, MemoryKeyStore};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, ErrorKind, Handle, HandlePrefix, Liveness, MintRequest,
    RenewRequest, Revocation, Secret, Template, Timestamp,
    testkit::{self, Login, Session, Subject},
};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
        Ed25519KeyPair, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::START;

const AUDIENCE: &str = "https://orders.example.test";
const LEEWAY_S: i64 = 60;

fn pem(pkcs8: &[u8]) -> Secret {
    let body = BASE64.encode(pkcs8);
    Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----"))
}

fn p256() -> Secret {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random);
    pem(key.unwrap().as_ref())
}

fn ed25519() -> Secret {
    pem(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref())
}

fn backend(key: Secret, introspected: bool, keys: &Arc<MemoryKeyStore>) -> ApiKeyBackend {
    let raw = json!({ "issuer": "https://dayfly.example.test", "introspected": introspected });
    let mut jwt: JwtConfig = serde_json::from_value(raw).unwrap();
    jwt.signing_key = Some(key);
    let config = ApiKeyConfig { jwt: Some(jwt) };
    let prefix = HandlePrefix::parse("dayfly_").unwrap();
    let keys: Arc<dyn KeyStore> = Arc::clone(keys) as Arc<dyn KeyStore>;
    ApiKeyBackend::configured(prefix, &config, keys, Arc::new(|bytes: &mut [u8]| bytes.fill(1)))
        .unwrap()
}

/// A backend, and a service to which its keys are shown.
struct Service {
    backend: ApiKeyBackend,
    keys: Arc<MemoryKeyStore>,
    /// It asks the backend; otherwise it has the published keys and nothing else.
    asks: bool,
}

impl Service {
    fn new(key: Secret, asks: bool) -> Self {
        let keys = Arc::new(MemoryKeyStore::new(Timestamp::from_seconds(START)));
        Self { backend: backend(key, asks, &keys), keys, asks }
    }

    fn template(&self) -> Template {
        let raw = json!({ "audience": AUDIENCE, "scopes": ["orders:read"] });
        self.backend.template(&raw).unwrap()
    }

    async fn mint(&self, lease: u128, ttl: Duration) -> (Handle, Result<String, ErrorKind>) {
        let (template, now) = (self.template(), self.keys.now().await.unwrap());
        let handle = self.backend.handle(Uuid::from_u128(lease)).unwrap();
        let request = MintRequest {
            handle: &handle,
            template: &template,
            expires_at: now.plus(ttl),
            mint_deadline: now.plus(Duration::from_secs(5)),
            principal: "ci|job",
            lease: "lse_7",
        };
        let minted = self.backend.mint(&request).await;
        let minted = minted.map(|credential| credential.field("key").unwrap().to_owned());
        (handle, minted.map_err(|error| error.kind()))
    }

    fn doomed(&self, handle: &Handle) -> Doomed {
        Doomed::new(handle.clone(), self.template().plan().clone())
    }

    /// What a verifier that never asks takes a token for, at most as late as is declared.
    async fn offline(&self, token: &str) -> Option<Value> {
        let claims = verified(token, &self.backend.jwks())?;
        let end = claims.get("exp")?.as_i64()?.checked_add(LEEWAY_S)?;
        let now = self.keys.now().await.unwrap();
        (now < Timestamp::from_seconds(end) && claims.get("aud")? == AUDIENCE).then_some(claims)
    }
}

/// The claims of `token`, if one of `keys` has signed it by its own algorithm.
fn verified(token: &str, keys: &[Value]) -> Option<Value> {
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let header: Value = serde_json::from_slice(&bytes(header)?).ok()?;
    assert_eq!(header.get("typ")?, "at+jwt");
    let key = keys.iter().find(|key| key.get("kid") == header.get("kid"))?;
    assert_eq!(key.get("alg"), header.get("alg"));
    let member = |name: &str| key.get(name).and_then(Value::as_str).and_then(bytes);
    let public = match key.get("y") {
        None => member("x")?,
        Some(_) => [vec![4], member("x")?, member("y")?].concat(),
    };
    let curve = key.get("crv")?.as_str()?;
    let algorithm: &'static dyn VerificationAlgorithm =
        if curve == "Ed25519" { &ED25519 } else { &ECDSA_P256_SHA256_FIXED };
    let public = UnparsedPublicKey::new(algorithm, public);
    public.verify(message.as_bytes(), &bytes(signature)?).ok()?;
    serde_json::from_slice(&bytes(claims)?).ok()
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
        if self.asks {
            self.backend.verify_key(key).await.unwrap().is_some()
        } else {
            self.offline(key).await.is_some()
        }
    }

    async fn open(&self, _credential: &Credential) -> Option<Box<dyn Session>> {
        None
    }
}

async fn conforms(service: &Service, left_out: &[&str]) {
    let template = service.template();
    let subject = Subject::new(&service.backend, &template, service);
    let ran = testkit::run(&subject).await.unwrap();
    let asked_for: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| !left_out.contains(step)).collect();
    assert_eq!(ran, asked_for);
}

#[tokio::test]
async fn conforms_for_who_never_asks() {
    let left_out = ["renew", "list", "batch", "session_kill"];
    for key in [p256(), ed25519()] {
        conforms(&Service::new(key, false), &left_out).await;
    }
}

#[tokio::test]
async fn conforms_for_who_asks_each_time() {
    conforms(&Service::new(p256(), true), &["renew", "session_kill"]).await;
}

#[tokio::test]
async fn a_token_says_what_rfc_9068_asks_for_and_no_more() {
    for key in [p256(), ed25519()] {
        let service = Service::new(key, false);
        service.wait(Duration::from_millis(300)).await;
        let (_, token) = service.mint(7, Duration::from_mins(10)).await;
        let said = service.offline(&token.unwrap()).await.unwrap();
        // The lease ends within a second, and the token at the end of it.
        let expected = json!({
            "iss": "https://dayfly.example.test", "sub": "ci|job", "client_id": "ci|job",
            "aud": AUDIENCE, "iat": START, "exp": START + 601, "jti": "lse_7",
            "scope": "orders:read",
        });
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn revoking_ends_it_for_who_asks_and_is_not_called_its_death() {
    let service = Service::new(p256(), false);
    let (handle, token) = service.mint(7, Duration::from_mins(10)).await;
    let token = token.unwrap();
    assert!(service.backend.verify_key(&token).await.unwrap().is_some());
    let doomed = [service.doomed(&handle)];
    for _ in 0..2 {
        let revoked = service.backend.revoke(&doomed).await;
        assert!(matches!(revoked[..], [Revocation::Lingers]), "{revoked:?}");
        assert_eq!(service.backend.verify(&doomed).await.unwrap(), [Liveness::Live]);
        assert_eq!(service.backend.verify_key(&token).await.unwrap(), None);
        assert!(service.offline(&token).await.is_some(), "and it works without us");
    }
}

/// What a lease was minted as decides about its death, not what the configuration says by then.
#[tokio::test]
async fn a_changed_configuration_calls_no_signed_key_dead() {
    let service = Service::new(p256(), false);
    let (handle, _) = service.mint(7, Duration::from_mins(10)).await;
    let doomed = [service.doomed(&handle)];
    let later = backend(p256(), true, &service.keys);
    assert!(matches!(later.revoke(&doomed).await[..], [Revocation::Lingers]));
    assert_eq!(later.verify(&doomed).await.unwrap(), [Liveness::Live]);
    let prefix = HandlePrefix::parse("dayfly_").unwrap();
    let keys: Arc<dyn KeyStore> = service.keys.clone();
    let random = ApiKeyBackend::new(prefix, keys, Arc::new(|bytes: &mut [u8]| bytes.fill(2)));
    assert!(matches!(random.revoke(&doomed).await[..], [Revocation::Lingers]));
    let [Doomed { plan, .. }] = &doomed;
    let until = service.now().await;
    let renewed = random.renew(&RenewRequest { handle: &handle, plan, until }).await;
    assert_eq!(renewed.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_key_from_before_the_change_goes_on() {
    let service = Service::new(p256(), false);
    let prefix = HandlePrefix::parse("dayfly_").unwrap();
    let keys: Arc<dyn KeyStore> = service.keys.clone();
    let random = ApiKeyBackend::new(prefix, keys, Arc::new(|bytes: &mut [u8]| bytes.fill(2)));
    let (_, token) = service.mint(7, Duration::from_mins(10)).await;
    assert!(random.verify_key(&token.unwrap()).await.unwrap().is_some());
}

#[tokio::test]
async fn no_token_is_signed_for_longer_than_any_may_live() {
    let service = Service::new(p256(), false);
    let can = service.backend.capabilities();
    assert_eq!(can.ttl_max, Some(Duration::from_mins(15)));
    let (_, longest) = service.mint(7, Duration::from_mins(15)).await;
    assert!(longest.is_ok());
    let (_, longer) = service.mint(8, Duration::from_secs(901)).await;
    assert_eq!(longer, Err(ErrorKind::Invalid));
}

#[tokio::test]
async fn nothing_but_the_whole_token_is_good() {
    let service = Service::new(p256(), true);
    let (_, token) = service.mint(7, Duration::from_mins(10)).await;
    let token = token.unwrap();
    let (unsigned, _) = token.rsplit_once('.').unwrap();
    let more = format!("{token}.e30");
    for bad in ["..", "a.b.c", "e30.e30.", unsigned, &format!("{unsigned}."), &more] {
        assert_eq!(service.backend.verify_key(bad).await.unwrap(), None, "{bad:?}");
    }
    assert!(service.backend.verify_key(&token).await.unwrap().is_some());
}
