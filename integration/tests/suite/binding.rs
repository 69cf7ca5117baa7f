//! Bound tokens: who has stolen one has nothing, at any replica, and who has the key goes on.

use std::{path::Path, process::Command, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::testkit::certify;
use dayfly_integration::{
    Answer, Broker, BrokerConfig, Client, Issuer, Postgres, Store, TrustDomain, eventually,
    program, replace,
};
use reqwest::{Certificate, Identity, Method, RequestBuilder};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

const TASKS: &str = "/api/v1/tasks";
const LEASES: &str = "/api/v1/leases";

/// Whoever has a key.
pub(crate) struct Holder(EcdsaKeyPair);

fn hash(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

impl Holder {
    pub(crate) fn new() -> Self {
        let (algorithm, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap())
    }

    fn coordinates(&self) -> [String; 2] {
        let (x, y) = self.0.public_key().as_ref().get(1..).unwrap().split_at(32);
        [x, y].map(|part| BASE64URL_NOPAD.encode(part))
    }

    pub(crate) fn thumbprint(&self) -> String {
        let [x, y] = self.coordinates();
        hash(format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes())
    }

    /// A proof for one request with `token`.
    fn proof(&self, method: &Method, url: &str, token: &str) -> String {
        let [x, y] = self.coordinates();
        let mut id = [0; 16];
        SystemRandom::new().fill(&mut id).unwrap();
        let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
        let claims = json!({
            "jti": BASE64URL_NOPAD.encode(&id), "htm": method.as_str(), "htu": url,
            "iat": Issuer::now(), "ath": hash(token.as_bytes()),
        });
        let part = |json: &Value| BASE64URL_NOPAD.encode(json.to_string().as_bytes());
        let message = format!("{}.{}", part(&header), part(&claims));
        let signature = self.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    /// A request with `token` and a proof for it.
    pub(crate) fn request(
        &self,
        client: &Client,
        what: (Method, &str),
        shown: (&str, &str),
    ) -> RequestBuilder {
        let url = format!("{}{}", client.url(), what.1);
        let proof = self.proof(&what.0, &url, shown.1);
        request(client, what, shown, Some(&proof))
    }

    /// Opens a task with an identity token: the whole answer.
    async fn try_open(&self, client: &Client, token: &str) -> Answer {
        let request = self.request(client, (Method::POST, TASKS), ("Bearer", token));
        Client::send(request.json(&opening())).await.unwrap()
    }

    /// The id and the token of a task that is bound to the key.
    pub(crate) async fn open(&self, client: &Client, token: &str) -> (String, String) {
        let opened = self.try_open(client, token).await.expect(201);
        assert_eq!((opened.text("/token_type"), opened.text("/binding")), bound("DPoP", "key"));
        (opened.text("/id"), opened.text("/token"))
    }

    pub(crate) async fn post(
        &self,
        client: &Client,
        path: &str,
        token: &str,
        body: Value,
    ) -> Answer {
        let request = self.request(client, (Method::POST, path), ("DPoP", token));
        Client::send(request.json(&body)).await.unwrap()
    }
}

fn bound(token_type: &str, binding: &str) -> (String, String) {
    (token_type.to_owned(), binding.to_owned())
}

fn opening() -> Value {
    json!({ "purpose": "test", "ttl_seconds": 600 })
}

fn role() -> Value {
    json!({ "role": "greeter" })
}

fn request(
    client: &Client,
    (method, path): (Method, &str),
    (scheme, token): (&str, &str),
    proof: Option<&str>,
) -> RequestBuilder {
    let request = client.request(method, path).header("authorization", format!("{scheme} {token}"));
    match proof {
        Some(proof) => request.header("dpop", proof),
        None => request,
    }
}

/// The codes of refused identities in the audit log, oldest first.
async fn refusals(broker: &Broker) -> Vec<String> {
    let records = broker.audit().await;
    let refused = records.iter().filter(|record| record["event"] == "identity.refused");
    refused.map(|record| record["detail"]["code"].as_str().unwrap().to_owned()).collect()
}

async fn mint_with(request: RequestBuilder) -> Answer {
    Client::send(request.json(&role())).await.unwrap()
}

/// What the client hears and what the audit log says of a token without its key, of a proof that
/// does not hold, and of one that was shown before.
const UNPROVEN: [&str; 2] = ["token_bound", "token_bound_to_key"];
const AMISS: [&str; 2] = ["invalid_dpop_proof", "invalid_proof"];
const SEEN: [&str; 2] = ["invalid_dpop_proof", "replayed_proof"];

/// How `token` of `holder` is shown by somebody who has it and the proof `seen`: by which scheme
/// and with which proof, to mint; and what comes of it.
fn thefts(
    client: &Client,
    holder: &Holder,
    token: &str,
    seen: &str,
) -> [(&'static str, Option<String>, [&'static str; 2]); 10] {
    let here = format!("{}{LEASES}", client.url());
    let elsewhere = format!("{}{TASKS}", client.url());
    let proof = |method, url: &str, token: &str| Some(holder.proof(&method, url, token));
    let own = Holder::new().proof(&Method::POST, &here, token);
    [
        ("Bearer", None, UNPROVEN),
        ("DPoP", None, UNPROVEN),
        ("DPoP", Some(own), UNPROVEN),
        ("Bearer", proof(Method::POST, &here, token), UNPROVEN),
        ("DPoP", Some(seen.to_owned()), SEEN),
        ("DPoP", proof(Method::GET, &here, token), AMISS),
        ("DPoP", proof(Method::POST, &elsewhere, token), AMISS),
        ("DPoP", proof(Method::POST, "https://evil.example/api/v1/leases", token), AMISS),
        ("DPoP", proof(Method::POST, &here, "dft_another"), AMISS),
        ("DPoP", Some("x".to_owned()), AMISS),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_token_is_worth_nothing_and_its_holder_goes_on() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = Broker::start(BrokerConfig::new(store, None)).await;
        let (client, holder) = (broker.client(), Holder::new());
        let (task, token) = holder.open(&client, &broker.issuer.token("job")).await;
        let url = format!("{}{LEASES}", client.url());
        let seen = holder.proof(&Method::POST, &url, &token);
        let mint = |scheme, proof: Option<&str>| {
            request(&client, (Method::POST, LEASES), (scheme, &token), proof)
        };
        mint_with(mint("DPoP", Some(&seen))).await.expect(201);
        let mut codes = Vec::new();
        for (scheme, proof, [code, recorded]) in thefts(&client, &holder, &token, &seen) {
            let answer = mint_with(mint(scheme, proof.as_deref())).await.problem(401, code);
            assert!(answer.header("www-authenticate").starts_with("DPoP error="), "{answer:?}");
            assert!(!answer.text.contains(&token), "{answer:?}");
            codes.push(recorded.to_owned());
            assert_eq!(refusals(&broker).await, codes, "{scheme} {proof:?}");
        }
        let good = || holder.proof(&Method::POST, &url, &token);
        let two = mint("DPoP", Some(&good())).header("dpop", good());
        mint_with(two).await.problem(401, "invalid_dpop_proof");

        holder.post(&client, LEASES, &token, role()).await.expect(201);
        let path = format!("{TASKS}/{task}");
        let shown = holder.request(&client, (Method::GET, &path), ("DPoP", &token));
        assert_eq!(Client::send(shown).await.unwrap().expect(200).text("/binding"), "key");
        let complete = format!("{path}/complete?wait=10s");
        let done = holder.post(&client, &complete, &token, json!({ "outcome": "completed" })).await;
        assert_eq!(done.expect(200).body["leases"]["revoked"], 2);
        let records = broker.audit().await;
        let opened = records.iter().find(|record| record["event"] == "task.opened").unwrap();
        assert_eq!(opened["detail"]["binding"], "key");
        assert_eq!(opened["detail"]["bound_to"], holder.thumbprint());
        let stolen = records.iter().find(|record| record["detail"]["code"] == "token_bound_to_key");
        assert_eq!(stolen.unwrap()["task"], task.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_one_replica_has_seen_is_refused_by_the_other() {
    let postgres = Postgres::start();
    let config = BrokerConfig::new(Store::Postgres(postgres.url("dayfly")), None);
    let mut one = Broker::configure(config);
    // Both are reached by one name, as behind a balancer; below a path that a proxy takes away.
    let text = std::fs::read_to_string(one.config_file()).unwrap();
    let public = "[server]\npublic_url = \"https://dayfly.example.test/broker\"\n";
    std::fs::write(one.config_file(), text.replacen("[server]\n", public, 1)).unwrap();
    one.resume().await;
    let two = one.replica().await;
    let (holder, identity) = (Holder::new(), one.issuer.token("job"));
    let public = |path: &str| format!("https://dayfly.example.test/broker{path}");
    let proof = holder.proof(&Method::POST, &public(TASKS), &identity);
    let open = request(&one.client(), (Method::POST, TASKS), ("Bearer", &identity), Some(&proof));
    let opened = Client::send(open.json(&opening())).await.unwrap().expect(201);
    let (task, token) = (opened.text("/id"), opened.text("/token"));

    let proof = holder.proof(&Method::POST, &public(LEASES), &token);
    let shown = ("DPoP", token.as_str());
    let at = |broker: &Broker, proof: &str| {
        request(&broker.client(), (Method::POST, LEASES), shown, Some(proof))
    };
    mint_with(at(&one, &proof)).await.expect(201);
    for broker in [&two, &one] {
        mint_with(at(broker, &proof)).await.problem(401, "invalid_dpop_proof");
    }
    let by_its_port =
        holder.proof(&Method::POST, &format!("{}{LEASES}", two.client().url()), &token);
    mint_with(at(&two, &by_its_port)).await.problem(401, "invalid_dpop_proof");
    let thief = Holder::new().proof(&Method::POST, &public(LEASES), &token);
    mint_with(at(&two, &thief)).await.problem(401, "token_bound");
    let again = holder.proof(&Method::POST, &public(LEASES), &token);
    mint_with(at(&two, &again)).await.expect(201);

    let path = format!("{TASKS}/{task}/complete");
    let proof = holder.proof(&Method::POST, &public(&path), &token);
    let waiting = format!("{path}?wait=10s");
    let done = request(&two.client(), (Method::POST, &waiting), shown, Some(&proof));
    Client::send(done.json(&json!({ "outcome": "completed" }))).await.unwrap().expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_bound_is_a_bearer_and_nothing_else() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let client = broker.client();
    let opened = client.with(&broker.issuer.token("job")).post(TASKS, opening()).await.expect(201);
    assert_eq!(opened.text("/token_type"), "Bearer");
    assert!(opened.body.get("binding").is_none(), "{}", opened.text);
    let token = opened.text("/token");
    let holder = Holder::new();
    let refused = holder.post(&client, LEASES, &token, role()).await;
    refused.problem(401, "unauthenticated");
    assert_eq!(refusals(&broker).await, ["token_not_bound"]);
    // What comes with a bearer is looked at, and binds nothing.
    let with = holder.request(&client, (Method::POST, LEASES), ("Bearer", &token));
    mint_with(with).await.expect(201);
    let both = request(&client, (Method::POST, LEASES), ("Bearer", &token), Some("x"));
    mint_with(both).await.problem(401, "invalid_dpop_proof");
    client.with(&token).mint("greeter").await.expect(201);
    // What cannot be proven cannot be asked for.
    for wanted in ["key", "certificate"] {
        let body = json!({ "purpose": "test", "ttl_seconds": 60, "bind": wanted });
        let answer = client.with(&broker.issuer.token("odd")).post(TASKS, body).await;
        let answer = answer.problem(422, "binding_unproven");
        assert_eq!(answer.text("/errors/0/pointer"), "/bind");
    }
    let body = json!({ "purpose": "test", "ttl_seconds": 60, "bind": "blood" });
    let odd = client.with(&broker.issuer.token("odd")).post(TASKS, body).await;
    odd.problem(400, "invalid_body");
}

/// A broker with an issuer whose tokens are given to a job once, as GitLab does.
async fn static_tokens(store: Store, more: &str) -> Broker {
    let mut config = BrokerConfig::new(store, None);
    let section = format!(
        "[[issuer]]\nname = \"static\"\nissuer = \"{}/static\"\naudience = \"{}\"\n\
         jwks_file = \"ci.json\"\nsingle_use = false\n{more}",
        Issuer::URL,
        Issuer::AUDIENCE
    );
    config.more.push_str(&section);
    Broker::start(config).await
}

fn static_token(broker: &Broker, more: Value) -> String {
    let mut claims = json!({ "iss": format!("{}/static", Issuer::URL) });
    let Value::Object(more) = more else { panic!("claims are an object") };
    claims.as_object_mut().unwrap().extend(more);
    broker.issuer.token_with("job", claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_whole_job_belongs_to_the_first_key_that_is_proven_with_it() {
    let postgres = Postgres::start();
    for store in [Store::Sqlite, Store::Postgres(postgres.url("dayfly"))] {
        let broker = static_tokens(store, "first_key_binds = true\n").await;
        let (client, holder, thief) = (broker.client(), Holder::new(), Holder::new());
        let token = static_token(&broker, json!({}));
        holder.open(&client, &token).await;
        let stolen = thief.try_open(&client, &token).await.problem(401, "token_bound");
        assert!(!stolen.text.contains(&token));
        let plain = client.with(&token).post(TASKS, opening()).await;
        plain.problem(401, "token_bound");
        assert_eq!(refusals(&broker).await, ["token_bound_to_another_key"; 2]);
        holder.open(&client, &token).await;
        // Another token of the same job is another's to bind; one that nobody proved, nobody's.
        thief.open(&client, &static_token(&broker, json!({}))).await;
        let nobodys = client.with(&static_token(&broker, json!({})));
        nobodys.open_task().await;
        nobodys.open_task().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_several_share_belongs_to_no_key() {
    let broker = static_tokens(Store::Sqlite, "").await;
    let token = static_token(&broker, json!({}));
    for _ in 0..2 {
        Holder::new().open(&broker.client(), &token).await;
    }
    broker.client().with(&token).open_task().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_its_issuer_bound_needs_that_key_everywhere() {
    let broker = static_tokens(Store::Sqlite, "").await;
    let (client, holder, thief) = (broker.client(), Holder::new(), Holder::new());
    let token = static_token(&broker, json!({ "cnf": { "jkt": holder.thumbprint() } }));
    let whoami = || (Method::GET, "/api/v1/whoami");
    client.with(&token).get("/api/v1/whoami").await.unwrap().problem(401, "token_bound");
    let as_bearer = holder.request(&client, whoami(), ("Bearer", &token));
    Client::send(as_bearer).await.unwrap().problem(401, "token_bound");
    let of_another = thief.request(&client, whoami(), ("DPoP", &token));
    Client::send(of_another).await.unwrap().problem(401, "token_bound");
    assert_eq!(refusals(&broker).await, ["token_bound_to_key"; 3]);
    let own = holder.request(&client, whoami(), ("DPoP", &token));
    assert_eq!(Client::send(own).await.unwrap().expect(200).text("/principal"), "static|job");
    let open = holder.request(&client, (Method::POST, TASKS), ("DPoP", &token));
    Client::send(open.json(&opening())).await.unwrap().expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_binding_is_required_no_task_is_opened_without() {
    let mut config = BrokerConfig::new(Store::Sqlite, None);
    config.more.push_str("[tasks]\nbinding = \"required\"\n");
    let broker = Broker::start(config).await;
    let client = broker.client();
    let token = broker.issuer.token("job");
    let refused = client.with(&token).post(TASKS, opening()).await;
    refused.problem(422, "binding_required");
    // It is not used up by that.
    Holder::new().open(&client, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_proves_its_key_to_a_real_broker_all_the_way() {
    let broker = Broker::start(BrokerConfig::new(Store::Sqlite, None)).await;
    let file = broker.path().join("identity-token");
    std::fs::write(&file, broker.issuer.token("cli-job")).unwrap();
    let words = ["exec", "--role", "greeter", "--heartbeat", "10s", "--token-file"];
    let mut command = Command::new(program("dayfly"));
    command.args(words).arg(&file).args(["--", "sleep", "5"]);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    let output = command.env("DAYFLY_URL", broker.client().url()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("1 credential verified dead") && !said.contains("warning"), "{said}");
    let records = broker.audit().await;
    let opened = records.iter().find(|record| record["event"] == "task.opened").unwrap();
    assert_eq!(opened["detail"]["binding"], "key");
    assert_eq!(refusals(&broker).await, Vec::<String>::new());
}

/// `dayfly` with the identity token in `file` and nothing else of ours in its environment.
fn dayfly(broker: &Broker, file: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(program("dayfly"));
    command.args(words).arg("--token-file").arg(file);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command.env("DAYFLY_URL", broker.client().url());
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runs_of_one_job_share_its_token_by_a_key_file() {
    let broker = static_tokens(Store::Sqlite, "first_key_binds = true\n").await;
    let (token, key) = (broker.path().join("identity-token"), broker.path().join("proof-key"));
    std::fs::write(&token, static_token(&broker, json!({}))).unwrap();
    let exec = || {
        let mut command = dayfly(&broker, &token, &["exec", "--role", "greeter"]);
        command.args(["--", "true"]);
        command
    };
    for _ in 0..2 {
        let output = exec().env("DAYFLY_PROOF_KEY_FILE", &key).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
    }
    let output = exec().output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--proof-key-file"), "{said}");
    assert_eq!(refusals(&broker).await, ["token_bound_to_another_key"]);

    let directory = broker.path().join("left");
    let mut open = dayfly(&broker, &token, &["task", "open", "--role", "greeter"]);
    open.arg("--directory").arg(&directory).arg("--proof-key-file").arg(&key);
    let output = open.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let task = std::fs::read_to_string(directory.join("task")).unwrap();
    let words = ["task", "complete", task.trim()];
    let left = directory.join("token");
    let output = dayfly(&broker, &left, &words).output().unwrap();
    assert_eq!(output.status.code(), Some(5), "the token alone is worth nothing: {output:?}");
    let output = dayfly(&broker, &left, &words).arg("--proof-key-file").arg(&key).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

/// A broker that asks for client certificates, and a trust domain that it knows.
struct Certified {
    broker: Broker,
    domain: TrustDomain,
}

impl Certified {
    async fn new() -> Self {
        let mut config = BrokerConfig::new(Store::Sqlite, None);
        config.more.push_str(
            "[server.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n\
             client_certificates = \"spiffe\"\n\
             [[trust_domain]]\nname = \"prod.example.test\"\nbundle_file = \"prod.bundle\"\n",
        );
        let broker = Broker::configure(config);
        certify(broker.path());
        let mut scene = Self { broker, domain: TrustDomain::new() };
        replace(&scene.broker.path().join("prod.bundle"), &scene.domain.bundle());
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

    fn client(&self, identity: Option<&[u8]>) -> Client {
        dayfly_server::identity::install_crypto();
        let authority = std::fs::read(self.broker.path().join("ca.pem")).unwrap();
        let authority = Certificate::from_pem(&authority).unwrap();
        let mut http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30));
        http = http.tls_certs_only([authority]);
        if let Some(identity) = identity {
            http = http.identity(Identity::from_pem(identity).unwrap());
        }
        let url = format!("https://localhost:{}", self.broker.port);
        Client::over(http.build().unwrap(), &url)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_certificate_serves_no_other_connection() {
    let scene = Certified::new().await;
    let id = "spiffe://prod.example.test/ns/prod/sa/web";
    let web = scene.client(Some(&scene.domain.svid(id)));
    let body = json!({ "purpose": "test", "ttl_seconds": 600, "bind": "certificate" });
    let opened = web.post(TASKS, body).await.expect(201);
    assert_eq!(
        (opened.text("/token_type"), opened.text("/binding")),
        bound("Bearer", "certificate")
    );
    let token = opened.text("/token");
    web.with(&token).mint("greeter").await.expect(201);
    // The same workload with its next certificate is another; so is whoever has none.
    let next = scene.client(Some(&scene.domain.svid(id)));
    for thief in [&next, &scene.client(None)] {
        thief.with(&token).mint("greeter").await.problem(401, "token_bound");
    }
    let with_a_key = Holder::new().post(&web, LEASES, &token, role()).await;
    with_a_key.problem(401, "token_bound");
    web.with(&token).complete(&opened.text("/id"), "10s").await.expect(200);
    let admin = scene.client(None).with(&scene.broker.admin());
    let page = admin.get("/api/v1/audit?limit=500&event=identity.refused").await.unwrap();
    let page = page.expect(200);
    let records = page.body["data"].as_array().unwrap();
    let code = |record: &Value| record["detail"]["code"].as_str().unwrap().to_owned();
    let codes: Vec<_> = records.iter().map(code).collect();
    assert_eq!(codes, ["token_bound_to_certificate"; 3]);

    // Who is known by its certificate can prove a key of its own besides.
    let holder = Holder::new();
    let url = format!("{}{TASKS}", web.url());
    let proof = without_token(&holder, &url);
    let open = web.request(Method::POST, TASKS).header("dpop", proof).json(&opening());
    let opened = Client::send(open).await.unwrap().expect(201);
    assert_eq!(opened.text("/binding"), "key");
    holder.post(&next, LEASES, &opened.text("/token"), role()).await.expect(201);
}

/// A proof for a request that shows no token: none is named.
pub(crate) fn without_token(holder: &Holder, url: &str) -> String {
    let proof = holder.proof(&Method::POST, url, "");
    let (header, rest) = proof.split_once('.').unwrap();
    let (claims, _) = rest.split_once('.').unwrap();
    let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).unwrap();
    let mut claims: Value = serde_json::from_slice(&claims).unwrap();
    claims.as_object_mut().unwrap().remove("ath");
    let message = format!("{header}.{}", BASE64URL_NOPAD.encode(claims.to_string().as_bytes()));
    let signature = holder.0.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
    format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
}
