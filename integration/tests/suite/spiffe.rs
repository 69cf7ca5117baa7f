//! SPIFFE identities at the real listener: client certificates over TLS, and tokens.

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::{Timestamp, testkit::certify};
use dayfly_integration::{
    Broker, BrokerConfig, Client, Issuer, Postgres, Store, TrustDomain, eventually, replace,
};
use dayfly_lease::{Entropy, SystemEntropy};
use reqwest::{Certificate, ClientBuilder, Identity};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::{default_provider, sign::any_supported_type},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::{CertifiedKey, SingleCertAndKey},
};
use serde_json::{Value, json};

const WEB: &str = "spiffe://prod.example.test/ns/prod/sa/web";
const AUTHORITY: [&str; 2] =
    ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,digitalSignature,keyCertSign"];

/// A broker that asks for client certificates, and two trust domains that it knows.
struct Scene {
    broker: Broker,
    prod: TrustDomain,
    test: TrustDomain,
}

impl Scene {
    async fn new() -> Self {
        Self::with(Store::Sqlite, "").await
    }

    /// On this store, with these keys in each trust domain besides.
    async fn with(store: Store, more: &str) -> Self {
        let mut config = BrokerConfig::new(store, None);
        let domain = |name: &str| {
            format!(
                "[[trust_domain]]\nname = \"{name}.example.test\"\n\
                 bundle_file = \"{name}.bundle\"\naudiences = [\"{}\"]\n{more}\n",
                Issuer::AUDIENCE
            )
        };
        let tls = "[server.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n\
                   client_certificates = \"spiffe\"\n";
        config.more.extend([tls, &domain("prod"), &domain("test")]);
        let broker = Broker::configure(config);
        certify(broker.path());
        let (prod, test) = (TrustDomain::new(), TrustDomain::new());
        let mut scene = Self { broker, prod, test };
        replace(&scene.broker.path().join("prod.bundle"), &scene.prod.bundle());
        replace(&scene.broker.path().join("test.bundle"), &scene.test.bundle());
        scene.broker.spawn();
        let client = scene.client(None);
        eventually("the broker is ready", Duration::from_secs(20), async || {
            if let Some(status) = scene.broker.exited() {
                panic!("the broker ended with {status}:\n{}", scene.broker.log());
            }
            client.get("/readyz").await.filter(|answer| answer.status == 200)
        })
        .await;
        scene
    }

    /// With connections of its own, showing this key and certificate.
    fn client(&self, identity: Option<&[u8]>) -> Client {
        dayfly_server::identity::install_crypto();
        let authority = Certificate::from_pem(&self.authority()).unwrap();
        let mut http = reqwest::Client::builder().tls_certs_only([authority]);
        if let Some(identity) = identity {
            http = http.identity(Identity::from_pem(identity).unwrap());
        }
        self.over(http)
    }

    /// The same, showing the certificate of `shown` and signing with the key of `own`.
    fn client_of(&self, shown: &[u8], own: &[u8]) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.authority()).unwrap()).unwrap();
        let chain = CertificateDer::pem_slice_iter(shown).map(Result::unwrap).collect();
        let key = any_supported_type(&PrivateKeyDer::from_pem_slice(own).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
                chain, key,
            ))));
        self.over(reqwest::Client::builder().tls_backend_preconfigured(tls))
    }

    fn over(&self, http: ClientBuilder) -> Client {
        let http = http.no_proxy().timeout(Duration::from_secs(30)).build().unwrap();
        Client::over(http, &format!("https://localhost:{}", self.broker.port))
    }

    fn authority(&self) -> Vec<u8> {
        std::fs::read(self.broker.path().join("ca.pem")).unwrap()
    }

    /// Codes of refused identities in the audit log, oldest first.
    async fn refusals(&self) -> Vec<String> {
        let records = self.refused().await;
        let code = |record: &Value| record["code"].as_str().unwrap().to_owned();
        records.iter().map(code).collect()
    }

    /// What the audit log says of refused identities, oldest first.
    async fn refused(&self) -> Vec<Value> {
        let admin = self.client(None).with(&self.broker.admin());
        let page = admin.get("/api/v1/audit?limit=500&event=identity.refused").await.unwrap();
        let page = page.expect(200);
        let records = page.body["data"].as_array().unwrap();
        records.iter().map(|record| record["detail"].clone()).collect()
    }

    /// What the log says of handshakes that failed over a certificate, oldest first, when
    /// there are so many.
    async fn failed_handshakes(&self, count: usize) -> Vec<String> {
        eventually("the handshakes have failed", Duration::from_secs(10), async || {
            let log = self.broker.log();
            let lines = log.lines().filter(|line| line.contains("tls.certificate.refused"));
            let lines: Vec<_> = lines.map(str::to_owned).collect();
            (lines.len() >= count).then_some(lines)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_who_its_certificate_says_and_gets_credentials() {
    let scene = Scene::new().await;
    let web = scene.client(Some(&scene.prod.svid(WEB)));
    let me = web.get("/api/v1/whoami").await.unwrap().expect(200);
    assert_eq!(me.text("/principal"), format!("prod.example.test|{WEB}"));
    assert_eq!((me.text("/kind"), me.text("/subject")), ("workload".into(), WEB.into()));
    // Nothing of a certificate is used up: each task is opened over the same connection.
    for _ in 0..2 {
        let (task, owner) = web.open_task().await;
        let lease = owner.mint("greeter").await.expect(201);
        assert!(!lease.text("/id").is_empty());
        owner.complete(&task, "10s").await.expect(200);
    }
    assert_eq!(scene.refusals().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_speaks_before_the_certificate_and_a_bad_one_alone() {
    let scene = Scene::new().await;
    let web = scene.client(Some(&scene.prod.svid(WEB)));
    let both = web.with(&scene.broker.issuer.token("job"));
    let me = both.get("/api/v1/whoami").await.unwrap().expect(200);
    assert_eq!(me.text("/principal"), "ci|job");
    web.with("nonsense").get("/api/v1/whoami").await.unwrap().problem(401, "unauthenticated");
    let basic = web.request(reqwest::Method::GET, "/api/v1/whoami").basic_auth("web", Some("x"));
    Client::send(basic).await.unwrap().problem(401, "unauthenticated");
    let nobody = scene.client(None);
    nobody.get("/api/v1/whoami").await.unwrap().problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_no_svid_makes_no_connection() {
    let scene = Scene::new().await;
    let (prod, stranger) = (&scene.prod, TrustDomain::new());
    let theirs = "spiffe://test.example.test/web";
    let workload = ["keyUsage=critical,digitalSignature", "basicConstraints=critical,CA:FALSE"];
    let server = [&workload[..], &["extendedKeyUsage=serverAuth"]].concat();
    let cases = [
        (prod.svid(theirs), "unknown_key"),
        (stranger.svid(WEB), "unknown_key"),
        (prod.svid("spiffe://elsewhere.example.test/web"), "unknown_trust_domain"),
        (prod.certified_twice(WEB, "spiffe://prod.example.test/admin"), "certificate"),
        (prod.certified_twice(WEB, "https://prod.example.test/"), "certificate"),
        (prod.certified("DNS:prod.example.test", &workload), "certificate"),
        (prod.svid("spiffe://prod.example.test"), "certificate"),
        (prod.svid("spiffe://prod.example.test/web/"), "certificate"),
        (prod.svid("spiffe://Prod.example.test/web"), "certificate"),
        (prod.certified(&format!("URI:{WEB}"), &AUTHORITY), "certificate"),
        (prod.certified(&format!("URI:{WEB}"), &server), "certificate"),
        (prod.certified_by_sha1(WEB), "certificate"),
    ];
    for (place, (identity, code)) in cases.iter().enumerate() {
        let client = scene.client(Some(identity));
        assert!(client.get("/api/v1/whoami").await.is_none(), "{code}");
        let failed = scene.failed_handshakes(place + 1).await;
        assert_eq!(failed.len(), place + 1, "{failed:?}");
        assert!(failed[place].contains(&format!("\"{code}\"")), "{code}: {}", failed[place]);
    }
    // The domain's own authority is good for it.
    let test = scene.client(Some(&scene.test.svid(theirs)));
    let me = test.get("/api/v1/whoami").await.unwrap().expect(200);
    assert_eq!(me.text("/issuer"), "test.example.test");
}

/// Whoever has such certificates is told which setting it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_lives_too_long_makes_no_connection_until_it_may() {
    let scene = Scene::new().await;
    let long = scene.client(Some(&scene.prod.svid_for(WEB, 3)));
    assert!(long.get("/api/v1/whoami").await.is_none());
    let refused = eventually("the refusal is recorded", Duration::from_secs(10), async || {
        Some(scene.refused().await).filter(|refused| !refused.is_empty())
    })
    .await;
    assert_eq!(refused[0]["code"], "certificate");
    let about = refused[0]["about"].as_str().unwrap();
    assert!(about.contains("`certificate_age_max`"), "{about}");
    let scene = Scene::with(Store::Sqlite, "certificate_age_max = \"72h\"").await;
    let long = scene.client(Some(&scene.prod.svid_for(WEB, 3)));
    long.get("/api/v1/whoami").await.unwrap().expect(200);
}

/// The id is of letters that no database compresses: it must fit into its indexes as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_workload_with_the_longest_id_gets_credentials_and_can_be_disabled() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let scene = Scene::with(store, "").await;
        let mut random = [0; 2_048];
        SystemEntropy::new().fill(&mut random);
        let mut id = format!("{WEB}/{}", BASE64URL_NOPAD.encode(&random));
        id.truncate(2_048);
        let web = scene.client(Some(&scene.prod.svid(&id)));
        let (task, owner) = web.open_task().await;
        owner.mint("greeter").await.expect(201);
        let admin = scene.client(None).with(&scene.broker.admin());
        let wanted = json!({ "issuer": "prod.example.test", "subject": id, "reason": "it leaked" });
        let answer = admin.post("/api/v1/identities/disable", wanted).await.expect(200);
        assert_eq!(answer.body["tasks"], json!([task]));
        web.get("/api/v1/whoami").await.unwrap().problem(401, "unauthenticated");
        assert_eq!(scene.refusals().await, ["identity_disabled"]);
    }
}

/// A certificate says when it was issued by `notBefore`.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_after_a_cut_off_goes_on() {
    let scene = Scene::new().await;
    let admin = scene.client(None).with(&scene.broker.admin());
    let old = scene.client(Some(&scene.prod.svid(WEB)));
    let (task, owner) = old.open_task().await;
    let cut_off = i64::try_from(Issuer::now()).unwrap();
    let wanted = json!({
        "issuer": "prod.example.test", "subject": WEB, "reason": "it leaked",
        "cut_off": Timestamp::from_seconds(cut_off).rfc3339(),
    });
    admin.post("/api/v1/identities/disable", wanted).await.expect(200);
    let answer = owner.get(&format!("/api/v1/tasks/{task}")).await.unwrap().expect(200);
    assert_eq!(answer.text("/state"), "revoked");
    old.get("/api/v1/whoami").await.unwrap().problem(401, "unauthenticated");
    // The times of certificates are whole seconds.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let new = scene.client(Some(&scene.prod.svid(WEB)));
    new.open_task().await;
    old.get("/api/v1/whoami").await.unwrap().problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_makes_no_connection_and_is_in_the_audit_log() {
    let scene = Scene::new().await;
    let (stolen, own) = (scene.prod.svid(WEB), scene.prod.svid(WEB));
    // The same way, with the key that belongs to it.
    let good = scene.client_of(&stolen, &stolen);
    good.get("/api/v1/whoami").await.unwrap().expect(200);
    assert!(scene.client_of(&stolen, &own).get("/api/v1/whoami").await.is_none());
    let refused = eventually("the refusal is recorded", Duration::from_secs(10), async || {
        Some(scene.refused().await).filter(|refused| !refused.is_empty())
    })
    .await;
    let [refused] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((&refused["code"], &refused["times"]), (&json!("bad_signature"), &json!(1)));
    assert_eq!(refused["source_address"], "127.0.0.1");
}

/// Nobody is bounded before the handshake is done, so what is recorded of it must be.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_fail_for_one_reason_are_one_record_a_minute() {
    let scene = Scene::new().await;
    let stranger = TrustDomain::new().svid(WEB);
    for count in 1..=10 {
        assert!(scene.client(Some(&stranger)).get("/api/v1/whoami").await.is_none());
        scene.failed_handshakes(count).await;
    }
    // Another reason is told, however much noise there is of the first.
    let elsewhere = scene.prod.svid("spiffe://elsewhere.example.test/web");
    assert!(scene.client(Some(&elsewhere)).get("/api/v1/whoami").await.is_none());
    let codes = eventually("the other reason is recorded", Duration::from_secs(10), async || {
        let codes = scene.refusals().await;
        codes.iter().any(|code| code == "unknown_trust_domain").then_some(codes)
    })
    .await;
    assert_eq!(codes, ["unknown_key", "unknown_trust_domain"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_replaced_between_two_requests_of_a_task_is_the_same_workload() {
    let scene = Scene::new().await;
    let old = scene.client(Some(&scene.prod.svid(WEB)));
    let new = scene.client(Some(&scene.prod.svid(WEB)));
    let body = json!({ "purpose": "test", "ttl_seconds": 600 });
    let opened = old.post("/api/v1/tasks", body).await.expect(201);
    let (task, token) = (opened.text("/id"), opened.text("/token"));
    old.with(&token).mint("greeter").await.expect(201);
    let me = new.get("/api/v1/whoami").await.unwrap().expect(200);
    assert_eq!(me.text("/principal"), format!("prod.example.test|{WEB}"));
    let owner = new.with(&token);
    owner.mint("greeter").await.expect(201);
    owner.complete(&task, "10s").await.expect(200);
    assert_eq!(scene.refusals().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_cannot_be_used_is_named_in_the_log() {
    let scene = Scene::new().await;
    let mut bundle: Value = serde_json::from_str(&scene.prod.bundle()).unwrap();
    let unreadable = json!({ "kty": "EC", "use": "x509-svid", "x5c": ["AAAA"] });
    bundle["keys"].as_array_mut().unwrap().push(unreadable);
    replace(&scene.broker.path().join("prod.bundle"), &bundle.to_string());
    scene.broker.signal("HUP");
    let said = eventually("the authority is named", Duration::from_secs(20), async || {
        let log = scene.broker.log();
        let mut lines = log.lines();
        let line = lines.find(|line| line.contains("authorities that cannot be used"));
        line.map(str::to_owned)
    })
    .await;
    assert!(said.contains("WARN") && said.contains("prod.example.test"), "{said}");
    assert!(said.contains("it cannot be read"), "{said}");
    // The one beside it works.
    let web = scene.client(Some(&scene.prod.svid(WEB)));
    web.get("/api/v1/whoami").await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_changes_while_the_broker_runs_counts_for_open_connections_too() {
    let scene = Scene::new().await;
    let old = scene.client(Some(&scene.prod.svid(WEB)));
    old.get("/api/v1/whoami").await.unwrap().expect(200);
    let next = TrustDomain::new();
    let new_identity = next.svid(WEB);
    assert!(scene.client(Some(&new_identity)).get("/api/v1/whoami").await.is_none());
    replace(&scene.broker.path().join("prod.bundle"), &next.bundle());
    scene.broker.signal("HUP");
    eventually("the new authority counts", Duration::from_secs(20), async || {
        let client = scene.client(Some(&new_identity));
        client.get("/api/v1/whoami").await.filter(|answer| answer.status == 200)
    })
    .await;
    // Its connection is open still, and its authority is not in the bundle any more.
    let answer = old.get("/api/v1/whoami").await.expect("the connection is open");
    answer.problem(401, "unauthenticated");
    // It was refused as a request: a handshake's record has no certificate's hash.
    let refused = scene.refused().await;
    let requests: Vec<_> = refused.iter().filter(|one| one["token_hash"].is_string()).collect();
    assert_eq!(requests.len(), 1, "{refused:?}");
    assert_eq!(requests[0]["code"], "unknown_key");
    let theirs = scene.client(Some(&scene.test.svid("spiffe://test.example.test/web")));
    theirs.get("/api/v1/whoami").await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_trust_domain_is_the_same_workload() {
    let scene = Scene::new().await;
    let claims =
        |sub: &str, aud: &str| json!({ "sub": sub, "aud": [aud], "exp": Issuer::now() + 300 });
    let client = scene.client(None);
    let good = scene.prod.token(&claims(WEB, Issuer::AUDIENCE));
    let me = client.with(&good).get("/api/v1/whoami").await.unwrap().expect(200);
    assert_eq!(me.text("/principal"), format!("prod.example.test|{WEB}"));
    // It comes from the workload's cache, so it may open another task.
    client.with(&good).open_task().await;
    client.with(&good).open_task().await;
    let bad = [
        (scene.test.token(&claims(WEB, Issuer::AUDIENCE)), "bad_signature"),
        (scene.prod.token(&claims(WEB, "https://elsewhere.example.test")), "wrong_audience"),
        (
            scene.prod.token(&claims("spiffe://prod.example.test/web/", Issuer::AUDIENCE)),
            "malformed",
        ),
        (scene.prod.token(&json!({ "sub": WEB, "exp": Issuer::now() + 300 })), "malformed"),
    ];
    for (token, _) in &bad {
        let answer = client.with(token).get("/api/v1/whoami").await.unwrap();
        answer.problem(401, "unauthenticated");
    }
    let codes: Vec<_> = bad.iter().map(|(_, code)| (*code).to_owned()).collect();
    assert_eq!(scene.refusals().await, codes);
}
