//! Certificates that are a workload's, and those that are not.

use std::{sync::Arc, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::Timestamp;
use dayfly_lease::{
    Disabling, JobKeys, NewTask, Refusal, ReplicaId, Store, StoreError, SystemEntropy, TaskId,
    Write, Written,
    audit::{Chain, Entry, Signer as AuditSigner},
    memory::MemoryStore,
};
use serde_json::json;

use super::{
    Authority, DOMAIN, Desk, OTHER, Signer, WEB, Wanted,
    pki::{CERT_SIGN, CRL_SIGN, DIGITAL_SIGNATURE, SERVER_AUTH, excluded, permitted, rsa_public},
    text,
};
use crate::identity::{ClaimValue, Kind, Principal, Rejection, SPIFFE_ID_LEN_MAX, tests::kit::NOW};

fn refused<T>(why: &'static str) -> Result<T, Rejection> {
    Err(Rejection::Certificate { why })
}

#[tokio::test]
async fn an_svid_is_the_workload_that_its_uri_names() {
    let desk = Desk::new().await;
    let certificate = desk.authority.sign(&Wanted::workload(&[WEB]));
    let principal = desk.show(&[certificate]).await.unwrap();
    assert_eq!(principal.id(), format!("{DOMAIN}|{WEB}"));
    assert_eq!((principal.kind, principal.single_use), (Kind::Workload, false));
    assert_eq!((principal.token_id, principal.token_hash.len()), (None, 64));
    assert!(principal.token_expires_at.seconds() > NOW);
    let principal = desk.show(&[desk.authority.sign(&Wanted::workload(&[WEB]))]).await.unwrap();
    for (claim, value) in
        [("trust_domain", DOMAIN), ("svid", "x509"), ("path.0", "ns"), ("path.3", "web")]
    {
        assert_eq!(text(&principal, claim), value);
    }
    let path = ["ns", "prod", "sa", "web"].map(str::to_owned).to_vec();
    assert_eq!(principal.claims.get("path"), Some(&ClaimValue::List(path)));
}

/// What is wrong with the leaf, by the rule that it breaks.
#[tokio::test]
async fn a_certificate_that_breaks_a_rule_is_nobody() {
    let desk = Desk::new().await;
    let good = Wanted::workload(&[WEB]);
    let with = |change: fn(&mut Wanted)| {
        let mut wanted = good.clone();
        change(&mut wanted);
        wanted
    };
    let uris = |uris: &[&str]| Wanted::workload(uris);
    let twice = Wanted { more: good.names(), ..good.clone() };
    let cases = [
        (uris(&[]), "it has no URI"),
        (with(|w| (w.uris, w.dns) = (vec![], Some("example.org".into()))), "it has no URI"),
        (uris(&[WEB, "spiffe://example.org/admin"]), "it has several URIs"),
        (uris(&[WEB, WEB]), "it has several URIs"),
        (uris(&[WEB, "https://example.org/"]), "it has several URIs"),
        (uris(&["https://example.org/ns"]), "its URI is not a SPIFFE ID"),
        (uris(&["spiffe://Example.org/ns"]), "its URI is not a SPIFFE ID"),
        (uris(&["spiffe://example.org/ns/"]), "its URI is not a SPIFFE ID"),
        (uris(&["spiffe://example.org/a/../b"]), "its URI is not a SPIFFE ID"),
        (uris(&["spiffe://example.org/%61"]), "its URI is not a SPIFFE ID"),
        (uris(&["spiffe://example.org"]), "its SPIFFE ID names no workload"),
        (uris(&["spiffe://example.org/\u{fc}"]), "a name cannot be read"),
        (with(|w| w.ca = true), "it is an authority's"),
        (with(|w| w.usage = None), "it has no key usage"),
        (with(|w| w.usage_critical = false), "its key usage is not critical"),
        (with(|w| w.usage = Some(0x20)), "its key is not for signing"),
        (with(|w| w.usage = Some(DIGITAL_SIGNATURE | CERT_SIGN)), "its key may sign for others"),
        (with(|w| w.usage = Some(DIGITAL_SIGNATURE | CRL_SIGN)), "its key may sign for others"),
        (with(|w| w.purposes = vec![SERVER_AUTH]), "it is not for clients"),
        (twice, "it has an extension twice"),
    ];
    for (wanted, why) in cases {
        let answer = desk.show(&[desk.authority.sign(&wanted)]).await;
        // Text that is no ASCII is refused, whichever of the two rules says so.
        let is_text = why == "a name cannot be read";
        let also = refused("its URI is not a SPIFFE ID");
        assert!(answer == refused(why) || is_text && answer == also, "{why}: {answer:?}");
    }
    let no_purpose = with(|w| w.purposes = vec![]);
    assert!(desk.show(&[desk.authority.sign(&no_purpose)]).await.is_ok());
    let dns_too = with(|w| w.dns = Some("web.example.org".into()));
    assert!(desk.show(&[desk.authority.sign(&dns_too)]).await.is_ok());
}

#[tokio::test]
async fn a_certificate_is_good_between_its_times_only() {
    let desk = Desk::new().await;
    let between = |from, until| Wanted { from, until, ..Wanted::workload(&[WEB]) };
    let expired = desk.authority.sign(&between("20200101000000Z", "20200102000000Z"));
    assert_eq!(desk.show(&[expired]).await, Err(Rejection::Expired));
    let early = desk.authority.sign(&between("20980101000000Z", "20990102000000Z"));
    assert_eq!(desk.show(&[early]).await, Err(Rejection::NotYetValid));
}

/// Authorities date back: a certificate of a day may be minutes longer.
#[tokio::test]
async fn a_certificate_that_is_valid_for_too_long_is_refused_with_the_setting_that_says_so() {
    let desk = Desk::new().await;
    let from =
        |from, until| desk.authority.sign(&Wanted { from, until, ..Wanted::workload(&[WEB]) });
    let of_three_days = from("20260920000000Z", "20260923000000Z");
    let why = "it is valid for longer than its trust domain's `certificate_age_max`";
    assert_eq!(desk.show(std::slice::from_ref(&of_three_days)).await, refused(why));
    assert_eq!(desk.show(&[from("20260921120000Z", "20260922121001Z")]).await, refused(why));
    assert_eq!(desk.show(&[from("20200101000000Z", "99991231235959Z")]).await, refused(why));
    assert!(desk.show(&[from("20260921120000Z", "20260922121000Z")]).await.is_ok());
    let lenient = Desk::with(|rules| rules.certificate_age_max = Duration::from_hours(72)).await;
    let of_three_days =
        Wanted { from: "20260920000000Z", until: "20260923000000Z", ..Wanted::workload(&[WEB]) };
    assert!(lenient.show(&[lenient.authority.sign(&of_three_days)]).await.is_ok());
}

async fn open(store: &MemoryStore, principal: &Principal) -> Result<Written, StoreError> {
    let task = NewTask {
        id: TaskId::new(store.now().await?, &SystemEntropy::new()),
        principal: principal.id(),
        issuer: principal.issuer.clone(),
        identity: json!(principal),
        purpose: "test".to_owned(),
        issued_at: principal.issued_at(),
        token_hash: [0; 32],
        ttl: Duration::from_mins(1),
        heartbeat: None,
        keys: JobKeys::default(),
        binding: None,
        on_behalf_of: None,
        person_issued_at: None,
    };
    let decision = Entry::new("task.opened", principal.id());
    store.write(Write::OpenTask { task: Box::new(task), used: Vec::new(), decision }).await
}

/// It was taken before the cut-off, and is good for two days after it.
#[tokio::test]
async fn a_certificate_from_before_a_cut_off_opens_nothing_for_as_long_as_it_is_valid() {
    let desk = Desk::with(|rules| rules.certificate_age_max = Duration::from_hours(72)).await;
    let now = Timestamp::from_seconds(NOW);
    let replica = ReplicaId::new(now, &SystemEntropy::new());
    let chain = Chain::empty(replica, AuditSigner::from_seed(&[7; 32]).unwrap());
    let store = MemoryStore::new(Arc::clone(&desk.clock) as Arc<dyn dayfly_lease::Clock>, chain);
    let of =
        |from, until| [desk.authority.sign(&Wanted { from, until, ..Wanted::workload(&[WEB]) })];
    let old = of("20260921120000Z", "20260924120000Z");
    // Issued a minute after the cut-off, and dated back by two: it is refused as well.
    let dated_back = of("20260921141220Z", "20260922141420Z");
    let new = of("20260921150000Z", "20260924150000Z");
    let disabling = Disabling {
        principal: format!("{DOMAIN}|{WEB}"),
        cut_off: Some(now),
        actor: "people|root".to_owned(),
        reason: None,
        keep: desk.authenticator.token_age_max(),
        delivery: None,
    };
    store.write(Write::Disable(Box::new(disabling))).await.unwrap();
    let refusal = |opened: Result<Written, StoreError>| opened.err().and_then(|e| e.refusal());
    let disabled = Some(Refusal::IdentityDisabled);
    desk.clock.advance(60);
    let principal = desk.show(&dated_back).await.unwrap();
    assert_eq!(refusal(open(&store, &principal).await), disabled);
    desk.clock.advance(25 * 3_600);
    let principal = desk.show(&old).await.unwrap();
    assert_eq!(principal.issued_at().map(Timestamp::seconds), Some(NOW - 8_000));
    assert_eq!(refusal(open(&store, &principal).await), disabled);
    open(&store, &desk.show(&new).await.unwrap()).await.unwrap();
    // It ends before the row is forgotten.
    desk.clock.advance(45 * 3_600);
    assert_eq!(desk.show(&old).await, Err(Rejection::Expired));
}

#[tokio::test]
async fn the_longest_id_is_somebody_who_can_be_named() {
    let desk = Desk::new().await;
    let start = format!("spiffe://{DOMAIN}/");
    let longest = format!("{start}{}", "x".repeat(SPIFFE_ID_LEN_MAX - start.len()));
    let wanted = Wanted::workload(&[longest.as_str()]);
    let principal = desk.show(&[desk.authority.sign(&wanted)]).await.unwrap();
    assert_eq!(Principal::id_of(DOMAIN, &longest), Some(principal.id()));
    let longer = Wanted::workload(&[&format!("{longest}x")]);
    let answer = desk.show(&[desk.authority.sign(&longer)]).await;
    assert_eq!(answer, refused("its URI is not a SPIFFE ID"));
}

#[tokio::test]
async fn the_bundle_of_one_trust_domain_says_nothing_about_another() {
    let desk = Desk::new().await;
    let theirs = Wanted::workload(&["spiffe://other.example/web"]);
    assert!(desk.show(&[desk.other.sign(&theirs)]).await.is_ok());
    assert_eq!(desk.show(&[desk.authority.sign(&theirs)]).await, Err(Rejection::UnknownKey));
    let ours = desk.other.sign(&Wanted::workload(&[WEB]));
    assert_eq!(desk.show(&[ours]).await, Err(Rejection::UnknownKey));
    let nobodys = desk.authority.sign(&Wanted::workload(&["spiffe://example.com/web"]));
    assert_eq!(desk.show(&[nobodys]).await, Err(Rejection::UnknownTrustDomain));
    let suffix = desk.authority.sign(&Wanted::workload(&["spiffe://example.org.evil/web"]));
    assert_eq!(desk.show(&[suffix]).await, Err(Rejection::UnknownTrustDomain));
}

#[tokio::test]
async fn an_authority_with_the_same_name_and_another_key_is_another() {
    let desk = Desk::new().await;
    let impostor = Authority::new("one");
    let certificate = impostor.sign(&Wanted::workload(&[WEB]));
    assert_eq!(desk.show(std::slice::from_ref(&certificate)).await, Err(Rejection::UnknownKey));
    // Sending the authority along makes it no better known.
    let chain = [certificate, impostor.certificate.clone()];
    assert_eq!(desk.show(&chain).await, Err(Rejection::UnknownKey));
    let self_signed = Authority::certified("self", &Wanted::workload(&[WEB]));
    assert_eq!(desk.show(&[self_signed.certificate]).await, Err(Rejection::UnknownKey));
}

#[tokio::test]
async fn only_authorities_may_stand_between() {
    let desk = Desk::new().await;
    let leaf = Wanted::workload(&[WEB]);
    let middle = desk.authority.below("middle", &Wanted::signer());
    let chain = [middle.sign(&leaf), middle.certificate.clone()];
    assert!(desk.show(&chain).await.is_ok());
    let [alone, _] = &chain;
    assert_eq!(desk.show(std::slice::from_ref(alone)).await, Err(Rejection::UnknownKey));

    // A workload that signs for another.
    let workload = desk.authority.below("workload", &leaf);
    let admin = workload.sign(&Wanted::workload(&["spiffe://example.org/admin"]));
    let answer = desk.show(&[admin, workload.certificate.clone()]).await;
    assert_eq!(answer, refused("a signing one is not an authority's"));
    let without_right = Wanted { usage: Some(CRL_SIGN), ..Wanted::signer() };
    let middle = desk.authority.below("middle", &without_right);
    let answer = desk.show(&[middle.sign(&leaf), middle.certificate.clone()]).await;
    assert_eq!(answer, refused("the key of a signing one is not for that"));
    let past = Wanted { until: "20200102000000Z", ..Wanted::signer() };
    let middle = desk.authority.below("middle", &past);
    let answer = desk.show(&[middle.sign(&leaf), middle.certificate.clone()]).await;
    assert_eq!(answer, Err(Rejection::Expired));
}

#[tokio::test]
async fn a_chain_is_bounded_and_whole() {
    let desk = Desk::new().await;
    assert_eq!(desk.show(&[]).await, refused("there is none"));
    let leaf = desk.authority.sign(&Wanted::workload(&[WEB]));
    let mut chain = vec![leaf.clone()];
    chain.extend(["a", "b", "c"].map(|name| Authority::new(name).certificate));
    assert!(desk.show(&chain).await.is_ok());
    chain.push(desk.authority.certificate.clone());
    assert_eq!(desk.show(&chain).await, refused("the chain is too long"));
    let longer: Vec<u8> = leaf.iter().copied().chain([0]).collect();
    assert_eq!(desk.show(&[longer.into()]).await, refused("it cannot be read"));
    assert_eq!(desk.show(&[b"-----BEGIN".to_vec().into()]).await, refused("it cannot be read"));
}

/// Of several with one name the library would try each: signatures that a stranger has us verify.
#[tokio::test]
async fn no_two_signing_certificates_of_a_chain_have_one_name() {
    let desk = Desk::new().await;
    let leaf = Wanted::workload(&[WEB]);
    let [middle, other] = [0, 1].map(|_| desk.authority.below("middle", &Wanted::signer()));
    let chain = [middle.sign(&leaf), middle.certificate.clone()];
    assert!(desk.show(&chain).await.is_ok());
    for more in [&other, &middle] {
        let chain = [&chain[..], std::slice::from_ref(&more.certificate)].concat();
        assert_eq!(desk.show(&chain).await, refused("two signing ones have one name"));
    }
    // A workload's name is not among them.
    let workload = desk.authority.below("workload", &Wanted::signer());
    let chain = [workload.sign(&leaf), workload.certificate.clone()];
    assert!(desk.show(&chain).await.is_ok());
}

#[tokio::test]
async fn a_chain_is_no_longer_than_each_of_its_authorities_allows() {
    let desk = Desk::new().await;
    let leaf = Wanted::workload(&[WEB]);
    let at_most = |len| Wanted { path_len: Some(len), ..Wanted::signer() };
    let middle = desk.authority.below("middle", &at_most(0));
    assert!(desk.show(&[middle.sign(&leaf), middle.certificate.clone()]).await.is_ok());
    let lower = middle.below("lower", &Wanted::signer());
    let chain = [lower.sign(&leaf), lower.certificate.clone(), middle.certificate.clone()];
    assert_eq!(desk.show(&chain).await, refused("the chain does not hold"));
    let middle = desk.authority.below("middle", &at_most(1));
    let lower = middle.below("lower", &Wanted::signer());
    let chain = [lower.sign(&leaf), lower.certificate.clone(), middle.certificate.clone()];
    assert!(desk.show(&chain).await.is_ok());

    // What the bundle's own authority says counts as well.
    for (len, answer) in
        [(1, Ok(())), (0, refused("the chain is longer than its authority allows"))]
    {
        let top = Authority::certified("top", &at_most(len));
        desk.publish(DOMAIN, &[top.jwk()]);
        desk.authenticator.reread_bundles().await;
        let middle = top.below("middle", &Wanted::signer());
        let chain = [middle.sign(&leaf), middle.certificate.clone()];
        assert_eq!(desk.show(&chain).await.map(drop), answer, "{len}");
        assert!(desk.show(&[top.sign(&leaf)]).await.is_ok(), "{len}");
        // Sent along, it does not stand between.
        assert!(desk.show(&[top.sign(&leaf), top.certificate.clone()]).await.is_ok(), "{len}");
    }
}

#[tokio::test]
async fn short_keys_and_sha1_are_refused() {
    let desk = Desk::new().await;
    let wanted = Wanted::workload(&[WEB]);
    let key = Signer::rsa().jwk("rsa");
    let number = |name: &str| BASE64URL_NOPAD.decode(key[name].as_str().unwrap().as_bytes());
    let (modulus, exponent) = (number("n").unwrap(), number("e").unwrap());
    let good = desk.authority.sign_key(&rsa_public(&modulus, &exponent), &wanted);
    assert!(desk.show(&[good]).await.is_ok());
    let short = desk.authority.sign_key(&rsa_public(&modulus[..128], &exponent), &wanted);
    assert_eq!(desk.show(&[short]).await, refused("its key is weak"));
    // Refused for the algorithm: a signature that does not hold is of an unknown key.
    let sha1 = Wanted { sha1: true, ..wanted };
    let answer = desk.show(&[desk.authority.sign(&sha1)]).await;
    assert_eq!(answer, refused("the chain does not hold"));
}

/// Nobody here reads constraints on URIs, so that they let nobody in: not even what they permit.
#[tokio::test]
async fn an_authority_with_constraints_on_uris_signs_for_nobody() {
    const URI: u8 = 0x86;
    const DNS: u8 = 0x82;
    let desk = Desk::new().await;
    let leaf = Wanted::workload(&[WEB]);
    let cases = [
        (permitted(URI, DOMAIN), false),
        (permitted(URI, "elsewhere.example"), false),
        (excluded(URI, "elsewhere.example"), false),
        (excluded(URI, DOMAIN), false),
        (permitted(DNS, "elsewhere.example"), true),
    ];
    for (more, is_good) in cases {
        let expected = if is_good { Ok(()) } else { refused("the chain does not hold") };
        let wanted = Wanted { more, ..Wanted::signer() };
        let middle = desk.authority.below("middle", &wanted);
        let chain = [middle.sign(&leaf), middle.certificate.clone()];
        assert_eq!(desk.show(&chain).await.map(drop), expected);
        let top = Authority::certified("top", &wanted);
        desk.publish(DOMAIN, &[desk.authority.jwk(), top.jwk()]);
        desk.authenticator.reread_bundles().await;
        assert_eq!(desk.show(&[top.sign(&leaf)]).await.map(drop), expected);
    }
}

#[tokio::test]
async fn a_certificate_that_replaces_another_is_the_same_workload() {
    let desk = Desk::new().await;
    let svid = || desk.authority.sign(&Wanted::workload(&[WEB]));
    let (old, new) = (desk.show(&[svid()]).await.unwrap(), desk.show(&[svid()]).await.unwrap());
    assert_eq!((old.id(), &old.claims), (new.id(), &new.claims));
    assert_ne!(old.token_hash, new.token_hash);
}

#[tokio::test]
async fn an_authority_works_from_when_the_bundle_has_it_until_it_has_not() {
    let desk = Desk::new().await;
    let new = Authority::new("one");
    let by_old = [desk.authority.sign(&Wanted::workload(&[WEB]))];
    let by_new = [new.sign(&Wanted::workload(&[WEB]))];
    desk.publish(DOMAIN, &[new.jwk()]);
    // Nothing that a caller shows has the file read more than once in half a minute.
    assert_eq!(desk.show(&by_new).await, Err(Rejection::UnknownKey));
    desk.clock.advance(30);
    assert!(desk.show(&by_new).await.is_ok());
    assert_eq!(desk.show(&by_old).await, Err(Rejection::UnknownKey));
    // An empty bundle takes everything back; the administrator need not wait.
    desk.publish(DOMAIN, &[]);
    assert!(desk.show(&by_new).await.is_ok());
    desk.authenticator.reread_bundles().await;
    assert_eq!(desk.show(&by_new).await, Err(Rejection::UnknownKey));
}

#[tokio::test]
async fn without_a_bundle_nobody_is_let_in() {
    let desk = Desk::new().await;
    let chain = [desk.authority.sign(&Wanted::workload(&[WEB]))];
    std::fs::remove_file(desk.file(DOMAIN)).unwrap();
    desk.clock.advance(360);
    assert!(desk.show(&chain).await.is_ok(), "an outage is bridged");
    desk.clock.advance(3_601);
    assert_eq!(desk.show(&chain).await, Err(Rejection::KeysUnavailable));
    let theirs = desk.other.sign(&Wanted::workload(&["spiffe://other.example/web"]));
    assert!(desk.show(&[theirs]).await.is_ok(), "{OTHER} is not concerned");
}
