//! The conformance suite, for users and for sessions with a belt, and what is AWS's own.
//!
//! There is no AWS here: moto stands in for STS and IAM. It checks signatures and policies, and
//! `conformance/account.py` says what had to be added to it so that a deny really denies. What it
//! has none of: delays until a change is everywhere, resources of policies, packed sizes, and
//! AWS's refusals of what Dayfly refuses by itself before it asks.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says by panicking what does not hold"
)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use aws_sdk_iam::error::ProvideErrorMetadata;
use dayfly_backend_aws::{AwsBackend, AwsConfig};
use dayfly_backend_sdk::{
    Backend, Credential, Doomed, Error, ErrorKind, Liveness, MintRequest, Plan, Retry, Revocation,
    Secret, Timestamp,
    testkit::{self, Hop, Login, Session, Subject, eventually},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    named::Named,
    server::{ACCOUNT, REGION, Server},
};

#[path = "conformance/named.rs"]
mod named;
#[path = "conformance/server.rs"]
mod server;

static NUMBERS: AtomicU32 = AtomicU32::new(1);
static LEASES: AtomicU64 = AtomicU64::new(1);
const LONG: Duration = Duration::from_mins(30);
/// Blocks of the README, in their order.
const SESSION_RIGHTS: usize = 1;
const USER_RIGHTS: usize = 2;
const TRUST: usize = 3;
const EMPTY: usize = 4;

/// A broker in the account, with the rights that the README gives it and no others.
struct Service {
    server: Arc<Server>,
    config: AwsConfig,
    backend: AwsBackend,
    number: u32,
    /// How much later it is for sessions, in seconds.
    ahead: AtomicU32,
}

fn written(block: usize) -> String {
    let block = include_str!("../README.md").split("```json").nth(block).unwrap();
    block.split("```").next().unwrap().to_owned()
}

fn policy_arn(name: &str) -> String {
    format!("arn:aws:iam::{ACCOUNT}:policy/{name}")
}

impl Service {
    async fn users() -> Self {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Self::over(Server::shared().await, number, json!({ "mode": "user" }), USER_RIGHTS).await
    }

    async fn sessions(policies: usize) -> Self {
        Self::sessions_over(Server::shared().await, policies).await
    }

    /// With a role that may list things in IAM, and a belt of so many policies.
    async fn sessions_over(server: Arc<Server>, policies: usize) -> Self {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let names: Vec<_> = (0..policies).map(|n| format!("deny-{number}-{n}")).collect();
        let (iam, role) = (server.iam(), format!("deploy{number}"));
        let broker = format!("user/broker{number}");
        let trust = written(TRUST).replace("role/dayfly", &broker);
        let create = iam.create_role().role_name(&role).assume_role_policy_document(trust);
        create.send().await.unwrap();
        let rights = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
            "Action": ["iam:List*", "iam:GetUser"], "Resource": "*" }] });
        let put = iam.put_role_policy().role_name(&role).policy_name("rights");
        put.policy_document(rights.to_string()).send().await.unwrap();
        for name in &names {
            let create = iam.create_policy().policy_name(name).policy_document(written(EMPTY));
            create.send().await.unwrap();
            let attach = iam.attach_role_policy().role_name(&role);
            attach.policy_arn(policy_arn(name)).send().await.unwrap();
        }
        let arns: Vec<_> = names.iter().map(|name| policy_arn(name)).collect();
        Self::over(server, number, json!({ "deny_policies": arns }), SESSION_RIGHTS).await
    }

    async fn over(server: Arc<Server>, number: u32, more: Value, rights: usize) -> Self {
        let (iam, broker) = (server.iam(), format!("broker{number}"));
        iam.create_user().user_name(&broker).send().await.unwrap();
        let put = iam.put_user_policy().user_name(&broker).policy_name("rights");
        put.policy_document(written(rights)).send().await.unwrap();
        let key = iam.create_access_key().user_name(&broker).send().await.unwrap();
        let key = key.access_key.unwrap();
        let mut raw = json!({ "region": REGION, "access_key_id": key.access_key_id,
            "endpoint_url": format!("http://{}", server.place()), "propagation_ms": 0 });
        raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let mut config: AwsConfig = serde_json::from_value(raw).unwrap();
        config.password = Some(Secret::new(key.secret_access_key));
        config.prefix = format!("d{number}_");
        let backend = AwsBackend::new(&config).unwrap();
        Self { server, config, backend, number, ahead: AtomicU32::new(0) }
    }

    /// A session's template.
    fn role(&self, more: &Value) -> Value {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/deploy{}", self.number);
        let mut raw = json!({ "type": "assume_role", "role_arn": role });
        raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        raw
    }

    async fn session(&self) -> (Doomed, Credential) {
        let minted = mint(&self.backend, lease(), &self.role(&json!({}))).await;
        minted.unwrap_or_else(|error| panic!("{}", chain(&error)))
    }

    /// The names that a policy of the belt has.
    async fn denied(&self, policy: usize) -> BTreeSet<String> {
        let arn = &self.config.deny_policies[policy];
        let iam = self.server.iam();
        let policy = iam.get_policy().policy_arn(arn).send().await.unwrap().policy.unwrap();
        let get = iam.get_policy_version().policy_arn(arn);
        let get = get.version_id(policy.default_version_id.unwrap()).send().await.unwrap();
        let text = get.policy_version.unwrap().document.unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let statements = document["Statement"].as_array().unwrap();
        let names =
            |one: &Value| one["Condition"]["StringLike"]["aws:userid"].as_array().unwrap().clone();
        let names = statements.iter().flat_map(names);
        names.map(|name| name.as_str().unwrap().trim_start_matches("*:").to_owned()).collect()
    }

    /// Puts other names into a policy, which may go after `hour`.
    async fn fill(&self, policy: usize, hour: i64, names: usize) {
        let names: Vec<_> = (0..names).map(|n| format!("*:other_{n:022}")).collect();
        let document = json!({ "Version": "2012-10-17", "Statement": [{
            "Sid": format!("Dayfly{hour}"), "Effect": "Deny", "Action": "*", "Resource": "*",
            "Condition": { "StringLike": { "aws:userid": names } } }] });
        let create = self.server.iam().create_policy_version().set_as_default(true);
        let create = create.policy_arn(&self.config.deny_policies[policy]);
        create.policy_document(document.to_string()).send().await.unwrap();
    }

    async fn liveness(&self, doomed: &Doomed) -> Liveness {
        self.backend.verify(std::slice::from_ref(doomed)).await.unwrap()[0]
    }
}

/// As the engine makes them: `UUIDv7`.
fn lease() -> Uuid {
    let millis = u128::try_from(now().micros() / 1_000).unwrap();
    let number = u128::from(LEASES.fetch_add(1, Ordering::Relaxed));
    Uuid::from_u128((millis << 80) | (0x7 << 76) | (0x2 << 62) | number)
}

async fn mint(
    backend: &AwsBackend,
    lease: Uuid,
    raw: &Value,
) -> Result<(Doomed, Credential), Error> {
    mint_for(backend, lease, raw, "test").await
}

async fn mint_for(
    backend: &AwsBackend,
    lease: Uuid,
    raw: &Value,
    principal: &str,
) -> Result<(Doomed, Credential), Error> {
    let template = backend.template(raw)?;
    let handle = backend.handle(lease).unwrap();
    let request = MintRequest {
        handle: &handle,
        template: &template,
        expires_at: now().plus(LONG),
        mint_deadline: now().plus(Duration::from_secs(15)),
        principal,
        lease: "lse_test",
    };
    let credential = backend.mint(&request).await?;
    let doomed = Doomed::new(handle, template.plan().clone());
    Ok((doomed.keeping(credential.kept().cloned()), credential))
}

async fn end(backend: &AwsBackend, doomed: &Doomed) -> Result<(), Error> {
    match backend.revoke(std::slice::from_ref(doomed)).await.pop().unwrap() {
        Revocation::Gone => Ok(()),
        Revocation::Lingers => panic!("it lingers"),
        Revocation::Failed(error) => Err(error),
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// What AWS answers; `ok` where all went well.
fn said<T, E: ProvideErrorMetadata>(answer: Result<T, E>) -> String {
    let code = |error: E| error.code().unwrap_or("no answer").to_owned();
    answer.map_or_else(code, |_| "ok".to_owned())
}

async fn works(server: &Server, credential: &Credential) -> bool {
    let said = said(server.iam_as(credential).list_account_aliases().send().await);
    // Only "you may not" counts; a dead server would prove nothing.
    let refused = ["AccessDenied", "ExpiredToken", "InvalidClientTokenId"];
    assert!(said == "ok" || refused.contains(&said.as_str()), "{said}");
    said == "ok"
}

#[async_trait]
impl Login for Service {
    async fn now(&self) -> Timestamp {
        now()
    }

    /// No session ends within fifteen minutes, whatever its lease: these pass as well. What
    /// does not end by itself is waited for as long as it was said.
    async fn wait(&self, duration: Duration) {
        if self.config.deny_policies.is_empty() {
            tokio::time::sleep(duration).await;
            return;
        }
        let by = u32::try_from(duration.as_secs()).unwrap() + 901;
        let ahead = self.ahead.fetch_add(by, Ordering::Relaxed) + by;
        self.server.ahead(Duration::from_secs(u64::from(ahead)));
    }

    async fn works(&self, credential: &Credential) -> bool {
        works(&self.server, credential).await
    }

    /// IAM has no connections: a session is a client that goes on using its key.
    async fn open(&self, credential: &Credential) -> Option<Box<dyn Session>> {
        Some(Box::new(Client(Arc::clone(&self.server), credential.clone())))
    }
}

struct Client(Arc<Server>, Credential);

#[async_trait]
impl Session for Client {
    async fn alive(&mut self) -> bool {
        works(&self.0, &self.1).await
    }
}

fn user() -> Value {
    let lists = json!([{ "Effect": "Allow", "Action": "iam:List*", "Resource": "*" }]);
    json!({ "type": "iam_user", "policy": { "Version": "2012-10-17", "Statement": lists } })
}

#[tokio::test]
async fn users_conform() {
    let service = Service::users().await;
    // Names that a prefix alone would take for ours, and our names elsewhere.
    let (iam, prefix) = (service.server.iam(), &service.config.prefix);
    let path = format!("/dayfly/{}/", prefix.trim_end_matches('_'));
    let strangers = [format!("{prefix}{}", "A".repeat(26)), format!("{prefix}x")];
    for name in &strangers {
        iam.create_user().user_name(name).path(&path).send().await.unwrap();
    }
    let template = service.backend.template(&user()).unwrap();
    let ran = testkit::run(&Subject::new(&service.backend, &template, &service)).await;
    let ran = ran.unwrap_or_else(|failure| panic!("{failure}"));
    let left_out = ["native_expiry", "late_mint"];
    let expected: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| !left_out.contains(step)).collect();
    assert_eq!(ran, expected);
    for name in &strangers {
        iam.get_user().user_name(name).send().await.unwrap();
    }
}

#[tokio::test]
async fn sessions_with_a_belt_conform() {
    // Of its own, since its clock is moved.
    let service = Service::sessions_over(Arc::new(Server::start()), 1).await;
    let backend = Named::new(AwsBackend::new(&service.config).unwrap());
    let template = backend.template(&service.role(&json!({}))).unwrap();
    let ran = testkit::run(&Subject::new(&backend, &template, &service)).await;
    let ran = ran.unwrap_or_else(|failure| panic!("{failure}"));
    let left_out = ["late_mint", "renew", "list"];
    let expected: Vec<_> =
        testkit::STEPS.into_iter().filter(|step| !left_out.contains(step)).collect();
    assert_eq!(ran, expected);
}

/// Nothing ends it, and everything says so.
#[tokio::test]
async fn a_session_without_a_belt_lingers() {
    let service = Service::sessions(0).await;
    let (doomed, credential) = service.session().await;
    assert!(credential.kept().is_none());
    let revoked = service.backend.revoke(std::slice::from_ref(&doomed)).await;
    assert!(matches!(revoked[..], [Revocation::Lingers]), "{revoked:?}");
    assert!(works(&service.server, &credential).await);
    assert_eq!(service.backend.marker().await.unwrap(), None);
    let advice = service.backend.advice().await.unwrap();
    assert!(advice.iter().any(|one| one.contains("deny_policies")), "{advice:?}");
    let handle = service.backend.handle(lease()).unwrap();
    let template = service.backend.template(&service.role(&json!({}))).unwrap();
    let report = service.backend.canary(&handle, &template).await;
    assert!(report.passed() && report.lingers, "{report:?}");
}

#[tokio::test]
async fn a_session_has_its_policys_rights_and_no_others() {
    let service = Service::sessions(1).await;
    let only = json!([{ "Effect": "Allow", "Action": ["iam:ListUsers", "iam:CreateUser"],
        "Resource": "*" }]);
    let raw = service.role(&json!({ "policy": { "Version": "2012-10-17", "Statement": only } }));
    let (doomed, credential) = mint(&service.backend, lease(), &raw).await.unwrap();
    let iam = service.server.iam_as(&credential);
    assert_eq!(said(iam.list_users().send().await), "ok");
    // What the role has and the policy does not, and the other way round.
    assert_eq!(said(iam.list_roles().send().await), "AccessDenied");
    assert_eq!(said(iam.create_user().user_name("x").send().await), "AccessDenied");
    let identity = service.server.sts_as(&credential).get_caller_identity().send().await.unwrap();
    assert!(identity.arn.unwrap().ends_with(doomed.handle.as_str()));
    // Never later than the lease, whatever the mint took.
    let until = Timestamp::parse_rfc3339(credential.field("expiration").unwrap()).unwrap();
    let left = until.since(now());
    assert!(left <= LONG && left + Duration::from_secs(20) >= LONG, "{left:?}");
    end(&service.backend, &doomed).await.unwrap();
    assert_eq!(said(iam.list_users().send().await), "AccessDenied");
}

/// A user may not undo its own end, nor make anything that outlives it.
#[tokio::test]
async fn nobody_lifts_himself_up() {
    let users = Service::users().await;
    let sessions = Service::sessions(1).await;
    let (doomed, credential) = mint(&users.backend, lease(), &user()).await.unwrap();
    let (session, other) = sessions.session().await;
    let all =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let role = format!("arn:aws:iam::{ACCOUNT}:role/deploy{}", sessions.number);
    let belt = &sessions.config.deny_policies[0];
    for credential in [&credential, &other] {
        let iam = users.server.iam_as(credential);
        let sts = users.server.sts_as(credential);
        let name = doomed.handle.as_str();
        let version = iam.create_policy_version().policy_arn(belt).policy_document(all);
        let put = iam.put_user_policy().user_name(name).policy_name("x").policy_document(all);
        let detach = iam.detach_role_policy().role_name(format!("deploy{}", sessions.number));
        let attach = iam.attach_user_policy().user_name(name);
        let admin = "arn:aws:iam::aws:policy/AdministratorAccess";
        for (what, said) in [
            ("version", said(version.set_as_default(true).send().await)),
            ("put", said(put.send().await)),
            ("detach", said(detach.policy_arn(belt).send().await)),
            ("attach", said(attach.policy_arn(admin).send().await)),
            ("key", said(iam.create_access_key().user_name(name).send().await)),
            ("user", said(iam.create_user().user_name("friend").send().await)),
            ("delete", said(iam.delete_policy().policy_arn(belt).send().await)),
            (
                "assume",
                said(sts.assume_role().role_arn(&role).role_session_name("xx").send().await),
            ),
            ("token", said(sts.get_federation_token().name("xx").policy(all).send().await)),
        ] {
            assert_eq!(said, "AccessDenied", "{what}");
        }
    }
    end(&users.backend, &doomed).await.unwrap();
    end(&sessions.backend, &session).await.unwrap();
}

/// Whoever the principal says he is, it is only a tag.
#[tokio::test]
async fn whatever_a_principal_is_called_it_is_only_a_name() {
    let users = Service::users().await;
    let sessions = Service::sessions(1).await;
    let long = "x".repeat(1_000);
    let mut minted = Vec::new();
    for principal in [
        "",
        "a",
        "aws:root",
        "a&Action=DeleteUser",
        "a\"}]}",
        "a\nb\0c",
        "../..",
        "é☃",
        "%2e",
        &long,
    ] {
        let raw = sessions.role(&json!({ "source_identity": "principal" }));
        let session = mint_for(&sessions.backend, lease(), &raw, principal).await;
        minted.push(session.unwrap_or_else(|error| panic!("{}", chain(&error))).0);
        let (doomed, _) = mint_for(&users.backend, lease(), &user(), principal).await.unwrap();
        let iam = users.server.iam();
        let tags = iam.list_user_tags().user_name(doomed.handle.as_str()).send().await.unwrap();
        let tags: BTreeSet<_> = tags.tags.into_iter().map(|tag| tag.key).collect();
        assert_eq!(tags, BTreeSet::from(["dayfly:lease", "dayfly:principal"].map(String::from)));
        end(&users.backend, &doomed).await.unwrap();
    }
    let revoked = sessions.backend.revoke(&minted).await;
    assert!(revoked.iter().all(|one| matches!(one, Revocation::Gone)), "{revoked:?}");
}

/// Everything that hangs on a user goes with it, also what others hung on it.
#[tokio::test]
async fn a_user_ends_whatever_hangs_on_it() {
    let service = Service::users().await;
    let (iam, group) = (service.server.iam(), format!("readers{}", service.number));
    iam.create_group().group_name(&group).send().await.unwrap();
    let lists = json!({ "Version": "2012-10-17", "Statement": [
        { "Effect": "Allow", "Action": "iam:List*", "Resource": "*" }] });
    let create = iam.create_policy().policy_name(&group).policy_document(lists.to_string());
    create.send().await.unwrap();
    let raw = json!({ "type": "iam_user", "groups": [group], "policy_arns": [policy_arn(&group)] });
    let (doomed, credential) = mint(&service.backend, lease(), &raw).await.unwrap();
    assert!(works(&service.server, &credential).await);
    let name = doomed.handle.as_str();
    let key = iam.create_access_key().user_name(name).send().await.unwrap().access_key.unwrap();
    let login = iam.create_login_profile().user_name(name).password("Aa1!Aa1!Aa1!");
    login.send().await.unwrap();
    let put = iam.put_user_policy().user_name(name).policy_name("more");
    put.policy_document(written(EMPTY)).send().await.unwrap();
    end(&service.backend, &doomed).await.unwrap();
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
    let second = Credential::new()
        .public("access_key_id", key.access_key_id)
        .public("secret_access_key", key.secret_access_key);
    assert!(!works(&service.server, &credential).await && !works(&service.server, &second).await);
}

#[tokio::test]
async fn what_the_template_names_must_be_there() {
    let service = Service::users().await;
    let lease = lease();
    let raw = json!({ "type": "iam_user", "groups": ["nobody"] });
    let error = mint(&service.backend, lease, &raw).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{}", chain(&error));
    assert!(chain(&error).contains("NoSuchEntity"), "{}", chain(&error));
    // What it left behind.
    let doomed = Doomed::new(service.backend.handle(lease).unwrap(), Plan::default());
    assert_eq!(service.liveness(&doomed).await, Liveness::Live);
    end(&service.backend, &doomed).await.unwrap();
}

/// The user is made, and nobody is told: that is not known, and what revokes it finds it.
#[tokio::test]
async fn an_answer_that_is_lost_means_nothing() {
    let service = Service::users().await;
    let hop = Hop::losing_the_answer(&service.server.place(), b"Action=CreateUser&");
    let config = AwsConfig {
        endpoint_url: Some(format!("http://{}", hop.place())),
        ..service.config.clone()
    };
    let lease = lease();
    let error = mint(&AwsBackend::new(&config).unwrap(), lease, &user()).await.unwrap_err();
    assert!(hop.met(), "else this proves nothing");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{}", chain(&error));
    let doomed = Doomed::new(service.backend.handle(lease).unwrap(), Plan::default());
    eventually("it was made", async || {
        (service.liveness(&doomed).await == Liveness::Live).then_some(())
    })
    .await;
    end(&service.backend, &doomed).await.unwrap();
}

/// A session that nobody was told of is denied until it must have ended.
#[tokio::test]
async fn a_session_whose_answer_is_lost_is_denied() {
    let service = Service::sessions(1).await;
    let hop = Hop::losing_the_answer(&service.server.place(), b"Action=AssumeRole&");
    let config = AwsConfig {
        endpoint_url: Some(format!("http://{}", hop.place())),
        ..service.config.clone()
    };
    let (lease, raw) = (lease(), service.role(&json!({})));
    let error = mint(&AwsBackend::new(&config).unwrap(), lease, &raw).await.unwrap_err();
    assert!(hop.met(), "else this proves nothing");
    assert_eq!(error.kind(), ErrorKind::UnknownOutcome, "{}", chain(&error));
    let plan = service.backend.template(&raw).unwrap().plan().clone();
    let doomed = Doomed::new(service.backend.handle(lease).unwrap(), plan);
    assert_eq!(service.liveness(&doomed).await, Liveness::Live);
    end(&service.backend, &doomed).await.unwrap();
    assert!(service.denied(0).await.contains(doomed.handle.as_str()));
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

/// What has ended by itself needs no place, and what has gone is forgotten.
#[tokio::test]
async fn the_belt_forgets_what_has_ended() {
    let service = Service::sessions(1).await;
    service.fill(0, 1, 150).await;
    let (doomed, credential) = service.session().await;
    let ended = doomed.clone().keeping(Some(Secret::new("1000000000")));
    end(&service.backend, &ended).await.unwrap();
    assert_eq!(service.denied(0).await.len(), 150, "nothing was written for it");
    assert!(works(&service.server, &credential).await);
    end(&service.backend, &doomed).await.unwrap();
    let name = doomed.handle.as_str().to_owned();
    assert_eq!(service.denied(0).await, BTreeSet::from([name]));
    // More versions than IAM keeps.
    for _ in 0..7 {
        let (doomed, credential) = service.session().await;
        end(&service.backend, &doomed).await.unwrap();
        assert!(!works(&service.server, &credential).await);
    }
    assert_eq!(service.denied(0).await.len(), 8);
}

/// A full policy hands on to the next; a full belt says so, and drops nothing.
#[tokio::test]
async fn a_belt_that_is_full_says_so() {
    let service = Service::sessions(2).await;
    let later = now().seconds() / 3_600 + 100;
    service.fill(0, later, 178).await;
    let (first, one) = service.session().await;
    end(&service.backend, &first).await.unwrap();
    assert!(service.denied(1).await.contains(first.handle.as_str()));
    service.fill(1, later, 178).await;
    let (second, two) = service.session().await;
    let backend = AwsBackend::new(&service.config).unwrap();
    let error = end(&backend, &second).await.unwrap_err();
    assert_eq!((error.kind(), error.retry()), (ErrorKind::Dependent, Retry::Permanent));
    assert!(chain(&error).contains("add it to `deny_policies`"), "{}", chain(&error));
    assert_eq!(service.liveness(&second).await, Liveness::Live);
    assert!(works(&service.server, &two).await);
    assert_eq!(service.denied(0).await.len(), 178);
    // An administrator took the first one's name away: it is alive again, and we say so.
    assert_eq!(service.liveness(&first).await, Liveness::Live);
    assert!(works(&service.server, &one).await);
}

/// Two replicas that write at once lose nothing of each other's.
#[tokio::test]
async fn two_writers_lose_nothing() {
    let service = Service::sessions(1).await;
    let pause = Duration::from_secs(1);
    let hop = Hop::before(&service.server.place(), b"Action=CreatePolicyVersion&", pause);
    let config = AwsConfig {
        endpoint_url: Some(format!("http://{}", hop.place())),
        ..service.config.clone()
    };
    let slow = AwsBackend::new(&config).unwrap();
    let ((first, one), (second, two)) = (service.session().await, service.session().await);
    let both = tokio::join!(end(&slow, &first), async {
        // The slow one has read, and its write is on its way.
        tokio::time::sleep(pause / 2).await;
        end(&service.backend, &second).await
    });
    both.0.unwrap();
    both.1.unwrap();
    assert!(hop.met(), "else this proves nothing");
    let names = [&first, &second].map(|doomed| doomed.handle.as_str().to_owned());
    assert_eq!(service.denied(0).await, BTreeSet::from(names));
    let policy = service.server.iam().get_policy().policy_arn(&service.config.deny_policies[0]);
    let policy = policy.send().await.unwrap().policy.unwrap();
    let version = policy.default_version_id.unwrap();
    assert_eq!(version, "v4", "each wrote once, and the slow one once more: else nothing crossed");
    for credential in [one, two] {
        assert!(!works(&service.server, &credential).await);
    }
    assert_eq!(service.liveness(&first).await, Liveness::Gone);
}

/// What would deny nothing is no death, and what somebody else wrote is not overwritten.
#[tokio::test]
async fn a_belt_that_is_not_one_ends_nothing() {
    let service = Service::sessions(1).await;
    let (iam, role) = (service.server.iam(), format!("deploy{}", service.number));
    let (doomed, credential) = service.session().await;
    end(&service.backend, &doomed).await.unwrap();
    let belt = &service.config.deny_policies[0];
    iam.detach_role_policy().role_name(&role).policy_arn(belt).send().await.unwrap();
    assert!(works(&service.server, &credential).await);
    assert_eq!(service.liveness(&doomed).await, Liveness::Live);
    let error = end(&service.backend, &doomed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Dependent);
    assert!(chain(&error).contains(&format!("attached to `{role}`")), "{}", chain(&error));
    // The template tells the backend which roles there are.
    service.backend.template(&service.role(&json!({}))).unwrap();
    let advice = service.backend.advice().await.unwrap();
    assert!(advice.iter().any(|one| one.contains(&role)), "{advice:?}");
    let all =
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#;
    let create = iam.create_policy_version().policy_arn(belt).set_as_default(true);
    create.policy_document(all).send().await.unwrap();
    let error = end(&service.backend, &doomed).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{}", chain(&error));
}

/// moto answers with a key that is none, so only what is asked for shows.
#[tokio::test]
async fn a_federated_user_is_denied_by_its_name() {
    let service = Service::sessions(1).await;
    let (iam, broker) = (service.server.iam(), format!("broker{}", service.number));
    let may = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
        "Action": ["sts:GetFederationToken", "sts:TagSession"], "Resource": "*" }] });
    let put = iam.put_user_policy().user_name(&broker).policy_name("federation");
    put.policy_document(may.to_string()).send().await.unwrap();
    let raw = json!({ "type": "federation_token",
        "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"] });
    let (doomed, credential) = mint(&service.backend, lease(), &raw).await.unwrap();
    assert!(credential.field("session_token").is_some());
    let error = end(&service.backend, &doomed).await.unwrap_err();
    assert!(chain(&error).contains(&format!("attached to `{broker}`")), "{}", chain(&error));
    let belt = &service.config.deny_policies[0];
    iam.attach_user_policy().user_name(&broker).policy_arn(belt).send().await.unwrap();
    end(&service.backend, &doomed).await.unwrap();
    assert_eq!(service.liveness(&doomed).await, Liveness::Gone);
}

#[tokio::test]
async fn a_web_identity_brings_its_token() {
    let service = Service::sessions(1).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "header.claims.signature\n").unwrap();
    let role = format!("arn:aws:iam::{ACCOUNT}:role/deploy{}", service.number);
    let raw = json!({ "type": "web_identity", "role_arn": role, "token_file": token.path() });
    let (doomed, credential) = mint(&service.backend, lease(), &raw).await.unwrap();
    assert!(works(&service.server, &credential).await);
    end(&service.backend, &doomed).await.unwrap();
    assert!(!works(&service.server, &credential).await);
    token.close().unwrap();
    let error = mint(&service.backend, lease(), &raw).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
}

#[tokio::test]
async fn what_is_wrong_with_the_way_is_said() {
    let service = Service::users().await;
    let failure = async |config: AwsConfig| {
        let error = mint(&AwsBackend::new(&config).unwrap(), lease(), &user()).await;
        let error = error.map(drop).unwrap_err();
        (error.kind(), chain(&error))
    };
    let base = || service.config.clone();
    let (kind, text) = failure(AwsConfig { password: Some(Secret::new("wrong")), ..base() }).await;
    assert_eq!(kind, ErrorKind::Denied, "{text}");
    assert!(text.contains("SignatureDoesNotMatch"), "{text}");
    let unknown = Some("AKIAQAAAAAAANOTTHERE".to_owned());
    let (kind, text) = failure(AwsConfig { access_key_id: unknown, ..base() }).await;
    assert_eq!(kind, ErrorKind::Denied, "{text}");
    let other = Some("210987654321".to_owned());
    let (kind, text) = failure(AwsConfig { account_id: other, ..base() }).await;
    assert_eq!(kind, ErrorKind::Denied, "{text}");
    assert!(text.contains(ACCOUNT), "{text}");
    let nobody = Some(format!("http://127.0.0.1:{}", testkit::free_port()));
    let (kind, text) = failure(AwsConfig { endpoint_url: nobody, ..base() }).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("refused"), "{text}");
    // One that may assume a role and not make users.
    let sessions = Service::sessions(0).await;
    let mut bare = base();
    bare.access_key_id.clone_from(&sessions.config.access_key_id);
    bare.password.clone_from(&sessions.config.password);
    let (kind, text) = failure(bare).await;
    assert_eq!(kind, ErrorKind::Denied, "{text}");
    assert!(text.contains("iam:CreateUser"), "{text}");
    let server = Server::with_tls();
    let url = Some(format!("https://localhost:{}", server.port));
    let (kind, text) = failure(AwsConfig { endpoint_url: url.clone(), ..base() }).await;
    assert_eq!(kind, ErrorKind::Unavailable, "{text}");
    assert!(text.contains("UnknownIssuer"), "{text}");
    let ca_file = Some(server.path("ca.pem"));
    let (kind, text) = failure(AwsConfig { endpoint_url: url, ca_file, ..base() }).await;
    assert_eq!(kind, ErrorKind::Denied, "the key is another server's: {text}");
    std::fs::write(server.path("none.pem"), "none").unwrap();
    let config = AwsConfig { ca_file: Some(server.path("none.pem")), ..base() };
    let error = AwsBackend::new(&config).unwrap_err();
    assert!(chain(&error).contains("there is no certificate in it"), "{}", chain(&error));
}

#[tokio::test]
async fn no_secret_is_written_down() {
    let (users, sessions) = (Service::users().await, Service::sessions(1).await);
    let minted = [mint(&users.backend, lease(), &user()).await.unwrap(), sessions.session().await];
    let log = users.server.written();
    for (backend, (doomed, credential)) in
        [&users.backend, &sessions.backend].into_iter().zip(minted)
    {
        let shown = format!("{backend:?}{doomed:?}{credential:?}{:?}", users.config);
        for field in ["secret_access_key", "session_token"] {
            let Some(secret) = credential.field(field) else { continue };
            assert!(!log.contains(secret) && !shown.contains(secret), "{field}");
        }
        end(backend, &doomed).await.unwrap();
    }
}
