//! Proofs, right and with one thing wrong each.

use serde_json::{Value, json};

use super::*;
use crate::identity::{
    install_crypto,
    tests::kit::{NOW, Signer},
};

const TOKEN: &str = "dft_a-token-of-a-task";
const URL: &str = "https://dayfly.example/api/v1/leases";

const ALGORITHM: &str = "the algorithm is not accepted";
const HEADER: &str = "the header is not one JSON object";
const UNFIT: &str = "its key is not one that is verified with";

const REQUESTED: Requested<'static> =
    Requested { method: "POST", path: "/api/v1/leases", token: Some(TOKEN) };

fn own() -> OwnAddress {
    let listen = "0.0.0.0:8420".parse().unwrap();
    OwnAddress::new(Some(&"https://dayfly.example".parse().unwrap()), listen, false)
}

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

/// Whoever has a key, and says whatever a test wants.
struct Holder(Signer);

impl Holder {
    fn jwk(&self) -> Value {
        let mut jwk = self.0.jwk("k");
        jwk.as_object_mut().unwrap().remove("kid");
        jwk
    }

    fn header(&self, algorithm: &str) -> Value {
        json!({ "typ": "dpop+jwt", "alg": algorithm, "jwk": self.jwk() })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.0.token(&header.to_string(), &claims.to_string())
    }

    /// A good proof with another value of one claim.
    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = claims();
        claims[name] = value;
        self.sign(&self.header("ES256"), &claims)
    }

    fn without(&self, name: &str) -> String {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name).unwrap();
        self.sign(&self.header("ES256"), &claims)
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header("ES256");
        header[name] = value;
        self.sign(&header, &claims())
    }

    fn without_header(&self, name: &str) -> String {
        let mut header = self.header("ES256");
        header.as_object_mut().unwrap().remove(name).unwrap();
        self.sign(&header, &claims())
    }

    /// A good proof whose key says more of itself.
    fn with_key(&self, name: &str, value: Value) -> String {
        let mut header = self.header("ES256");
        header["jwk"][name] = value;
        self.sign(&header, &claims())
    }
}

fn claims() -> Value {
    json!({
        "jti": "j-1", "htm": "POST", "htu": URL, "iat": NOW, "ath": token_hash(TOKEN),
    })
}

fn es256() -> Holder {
    install_crypto();
    Holder(Signer::es256())
}

fn verify(proof: &str) -> Result<Proof, Rejection> {
    own().verify(proof, &REQUESTED, now())
}

#[test]
fn a_proof_of_each_kind_of_key_holds() {
    install_crypto();
    for (signer, algorithm) in [
        (Signer::es256(), "ES256"),
        (Signer::es384(), "ES384"),
        (Signer::ed25519(), "EdDSA"),
        (Signer::ed25519(), "Ed25519"),
        (Signer::rsa(), "RS256"),
        (Signer::rsa(), "PS512"),
    ] {
        let holder = Holder(signer);
        let proof = holder.sign(&holder.header(algorithm), &claims());
        let proof = verify(&proof).unwrap_or_else(|error| panic!("{algorithm}: {error}"));
        let members = json::object(holder.jwk().to_string().as_bytes(), LIMITS).unwrap();
        assert_eq!(Some(proof.key), thumbprint(&Json::Object(members)), "{algorithm}");
    }
}

/// RFC 9449, section 4.1: the proof with which a token is asked for.
#[test]
fn the_published_proof_for_a_token_holds_where_it_was_made_for() {
    install_crypto();
    let proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaH\
                 gtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRs\
                 Y3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY\
                 2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiw\
                 iaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSs\
                 X0x7NVY-FNyJK70nfbV37xRZT3Lg";
    let listen = "0.0.0.0:443".parse().unwrap();
    let server =
        OwnAddress::new(Some(&"https://server.example.com".parse().unwrap()), listen, false);
    let requested = Requested { method: "POST", path: "/token", token: None };
    let made_at = Timestamp::from_seconds(1_562_262_616);
    let verified = server.verify(proof, &requested, made_at).unwrap();
    let expected = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    assert_eq!(BASE64URL_NOPAD.encode(&verified.key), expected);
    let late = server.verify(proof, &requested, now());
    assert_eq!(late, Err(Rejection::proof("it is too old")));
}

/// RFC 9449, section 7.1: the proof with which a resource is asked for.
#[test]
fn the_published_proof_for_a_resource_holds_with_its_token_alone() {
    install_crypto();
    let proof = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaH\
                 gtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRs\
                 Y3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljO\
                 C1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN\
                 0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXW\
                 G9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6\
                 -yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
    let listen = "0.0.0.0:443".parse().unwrap();
    let server =
        OwnAddress::new(Some(&"https://resource.example.org".parse().unwrap()), listen, false);
    let with = |token| Requested { method: "GET", path: "/protectedresource", token };
    let made_at = Timestamp::from_seconds(1_562_262_618);
    let token = Some("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU");
    assert!(server.verify(proof, &with(token), made_at).is_ok());
    for other in [Some("another"), Some(""), None] {
        let refused = server.verify(proof, &with(other), made_at);
        assert_eq!(refused, Err(Rejection::proof("it is for another token")), "{other:?}");
    }
}

#[test]
fn a_proof_for_another_request_is_refused() {
    let holder = es256();
    let url = |url: &str| holder.with("htu", json!(url));
    let cases = [
        ("another method", holder.with("htm", json!("GET")), "it is for another method"),
        (
            "a method in small letters",
            holder.with("htm", json!("post")),
            "it is for another method",
        ),
        ("no method", holder.without("htm"), "it is for another method"),
        ("two methods", holder.with("htm", json!(["POST"])), "it is for another method"),
        ("another path", url("https://dayfly.example/api/v1/tasks"), "it is for another URL"),
        ("another host", url("https://evil.example/api/v1/leases"), "it is for another URL"),
        ("no host", url("/api/v1/leases"), "it is for another URL"),
        ("no URL", holder.without("htu"), "it is for another URL"),
        ("another token", holder.with("ath", json!(token_hash("x"))), "it is for another token"),
        ("the token itself", holder.with("ath", json!(TOKEN)), "it is for another token"),
        ("a hash that is no text", holder.with("ath", json!(7)), "it is for another token"),
        ("no token", holder.without("ath"), "it names no token"),
    ];
    for (name, proof, why) in cases {
        assert_eq!(verify(&proof), Err(Rejection::proof(why)), "{name}");
    }
    let query = url("https://dayfly.example:443/api/v1/leases?limit=1#x");
    assert!(verify(&query).is_ok(), "query and fragment do not count");
}

#[test]
fn a_proof_of_another_time_is_refused() {
    let holder = es256();
    let at = |seconds: i64| verify(&holder.with("iat", json!(NOW + seconds)));
    for good in [-60, -1, 0, 5] {
        assert!(at(good).is_ok(), "{good}");
    }
    assert_eq!(at(-61), Err(Rejection::proof("it is too old")));
    assert_eq!(at(6), Err(Rejection::proof("it was made in the future")));
    let malformed = Err(Rejection::proof("`iat` is not a time in whole seconds"));
    for odd in [json!("1790000000"), json!(1.5), json!(-1), json!(null), json!(i64::MAX)] {
        assert_eq!(verify(&holder.with("iat", odd.clone())), malformed, "{odd}");
    }
    assert_eq!(verify(&holder.without("iat")), malformed);
}

#[test]
fn a_proof_without_an_id_of_its_own_is_refused() {
    let holder = es256();
    let refused = Err(Rejection::proof("`jti` is not a short string"));
    for odd in [json!(""), json!(5), json!(null), json!("x".repeat(257))] {
        assert_eq!(verify(&holder.with("jti", odd.clone())), refused, "{odd}");
    }
    assert_eq!(verify(&holder.without("jti")), refused);
}

#[test]
fn two_proofs_are_remembered_apart_and_one_is_itself() {
    let (holder, other) = (es256(), es256());
    let key = |proof: &str| verify(proof).unwrap().replay_key();
    let first = holder.with("jti", json!("a"));
    assert_eq!(key(&first), key(&first));
    let again = holder.with("jti", json!("a"));
    assert_eq!(key(&first), key(&again), "signed anew it is the same proof");
    assert_ne!(key(&first), key(&holder.with("jti", json!("b"))));
    assert_ne!(key(&first), key(&other.with("jti", json!("a"))), "of another key");
    assert!(key(&first).starts_with("dpop:") && key(&first).len() == 5 + 64);
    assert_eq!(verify(&first).unwrap().ends_at(), now().plus(AGE_MAX));
}

#[test]
fn a_header_that_is_not_a_proofs_is_refused() {
    let holder = es256();
    let unknown = "the header has an unknown member";
    let cases = [
        ("a token", holder.with_header("typ", json!("JWT")), "`typ` is not dpop+jwt"),
        ("another spelling", holder.with_header("typ", json!("DPoP+jwt")), "`typ` is not dpop+jwt"),
        ("no type", holder.without_header("typ"), "`typ` is not dpop+jwt"),
        ("no signature at all", holder.with_header("alg", json!("none")), ALGORITHM),
        ("a shared secret", holder.with_header("alg", json!("HS256")), ALGORITHM),
        ("no algorithm", holder.without_header("alg"), ALGORITHM),
        ("another curve's algorithm", holder.with_header("alg", json!("ES384")), NOT_THE_KEYS),
        ("another family's algorithm", holder.with_header("alg", json!("RS256")), NOT_THE_KEYS),
        ("no key", holder.without_header("jwk"), "it brings no key"),
        ("a key elsewhere", holder.with_header("jku", json!("https://evil.example/")), unknown),
        ("a certificate", holder.with_header("x5c", json!(["AA"])), unknown),
        ("a name of a key", holder.with_header("kid", json!("k")), unknown),
        ("an extension", holder.with_header("crit", json!(["b64"])), unknown),
    ];
    for (name, proof, why) in cases {
        assert_eq!(verify(&proof), Err(Rejection::proof(why)), "{name}");
    }
}

#[test]
fn a_key_that_is_not_good_enough_is_refused() {
    let holder = es256();
    let key = |jwk: Value| holder.with_header("jwk", jwk);
    let weak = json!({ "kty": "RSA", "n": BASE64URL_NOPAD.encode(&[0xc1; 128]), "e": "AQAB" });
    let small_order =
        json!({ "kty": "OKP", "crv": "Ed25519", "x": BASE64URL_NOPAD.encode(&[0; 32]) });
    let mut short = holder.jwk();
    short["x"] = json!("AAAA");
    let mut nowhere = holder.jwk();
    nowhere["x"] = json!(BASE64URL_NOPAD.encode(&[1; 32]));
    let cases = [
        ("a private key", holder.with_key("d", json!("AA")), "it shows a private key"),
        ("a prime of one", holder.with_key("p", json!("AA")), "it shows a private key"),
        ("a secret beside it", holder.with_key("k", json!("AA")), "it shows a private key"),
        ("a shared secret", key(json!({ "kty": "oct", "k": "AA" })), UNFIT),
        ("for encrypting", holder.with_key("use", json!("enc")), UNFIT),
        ("for signing alone", holder.with_key("key_ops", json!(["sign"])), UNFIT),
        ("of another algorithm", holder.with_key("alg", json!("ES384")), UNFIT),
        ("an unknown curve", holder.with_key("crv", json!("P-521")), UNFIT),
        ("an unknown type", holder.with_key("kty", json!("LMS")), UNFIT),
        ("a short coordinate", key(short), UNFIT),
        ("no object", key(json!("AA")), UNFIT),
        ("RSA of 1024 bits", key(weak), "its key is weak"),
        ("a point of small order", key(small_order), "its key is weak"),
        ("no point of the curve", key(nowhere), "the signature does not hold"),
        ("somebody else's", key(es256().jwk()), "the signature does not hold"),
    ];
    for (name, proof, why) in cases {
        assert_eq!(verify(&proof), Err(Rejection::proof(why)), "{name}");
    }
}

#[test]
fn what_has_two_readings_or_none_is_refused() {
    let holder = es256();
    let (header, good) = (holder.header("ES256").to_string(), claims().to_string());
    let twice = good.replacen('{', "{\"htm\":\"GET\",", 1);
    let header_twice = header.replacen('{', "{\"typ\":\"dpop+jwt\",", 1);
    let proof = holder.0.token(&header, &good);
    let (message, signature) = proof.rsplit_once('.').unwrap();
    let (first, rest) = signature.split_at(1);
    let forged = format!("{message}.{}{rest}", if first == "A" { "B" } else { "A" });
    let object = "the claims are not one JSON object";
    let three = "it is not three parts of base64url";
    let cases = [
        ("a claim twice", holder.0.token(&header, &twice), object),
        ("claims that are a list", holder.0.token(&header, "[]"), object),
        ("claims and more", holder.0.token(&header, &format!("{good} 1")), object),
        ("a header member twice", holder.0.token(&header_twice, &good), HEADER),
        ("a forged signature", forged, "the signature does not hold"),
        ("no signature", format!("{message}."), three),
        ("two parts", message.to_owned(), three),
        ("four parts", format!("{proof}.AA"), three),
        ("two proofs in one", format!("{proof}, {proof}"), three),
        ("padding", format!("{proof}=="), three),
        ("nothing", String::new(), three),
        ("too much", holder.with("jti", json!("x".repeat(9_000))), three),
    ];
    for (name, proof, why) in cases {
        assert_eq!(verify(&proof), Err(Rejection::proof(why)), "{name}");
    }
    assert!(verify(&proof).is_ok());
}

#[test]
fn a_caller_without_a_token_proves_its_key_without_one() {
    let holder = es256();
    let nobody = Requested { token: None, ..REQUESTED };
    assert!(own().verify(&holder.without("ath"), &nobody, now()).is_ok());
    let refused = own().verify(&holder.with("jti", json!("x")), &nobody, now());
    assert_eq!(refused, Err(Rejection::proof("it is for another token")));
}

#[test]
fn a_broker_that_does_not_know_its_url_takes_none() {
    let unknown = OwnAddress::default();
    let refused = unknown.verify(&es256().with("jti", json!("x")), &REQUESTED, now());
    assert_eq!(refused, Err(Rejection::proof("it is for another URL")));
}
