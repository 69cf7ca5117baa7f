//! GitHub's installation tokens.

use std::time::Duration;

use axum::http::Method;
use data_encoding::BASE64URL_NOPAD;
use dayfly_backend_sdk::Secret;
use ring::{
    rsa::KeyPair,
    signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use rustls::pki_types::{PrivatePkcs1KeyDer, pem::PemObject};
use serde_json::{Value, json};

use super::{Asked, Stage, Told, told};

pub(crate) const APP: &str = "Iv23liTest";
const INSTALLATION: &str = "12345678";

pub(super) fn public_key(key: &Secret) -> Vec<u8> {
    let der = PrivatePkcs1KeyDer::from_pem_slice(key.expose().as_bytes()).unwrap();
    let pair = KeyPair::from_der(der.secret_pkcs1_der()).unwrap();
    pair.public_key().as_ref().to_vec()
}

pub(super) fn answer(stage: &mut Stage, asked: &Asked<'_>) -> Told {
    let bad = || told(401, json!({ "message": "Bad credentials", "status": "401" }));
    match (asked.method, asked.segments) {
        (&Method::HEAD, _) => told(200, Value::Null),
        (&Method::POST, ["app", "installations", installation, "access_tokens"]) => {
            if !is_the_app(stage, asked) {
                let what = "A JSON web token could not be decoded";
                return told(401, json!({ "message": what }));
            }
            if *installation != INSTALLATION {
                return told(404, json!({ "message": "Not Found" }));
            }
            // To the second, as GitHub has it.
            let expires = stage.now().plus(Duration::from_hours(1)).rfc3339();
            let expires = format!("{}Z", expires.split_once('.').unwrap().0);
            let at = dayfly_backend_sdk::Timestamp::parse_rfc3339(&expires).unwrap();
            let (_, token) = stage.make("github", installation, "", at);
            let permissions = asked.body.get("permissions").cloned();
            told(
                201,
                json!({ "token": token, "expires_at": expires, "permissions": permissions,
                "repository_selection": "selected" }),
            )
        }
        (&Method::DELETE, ["installation", "token"]) => {
            match stage.bearer("github", asked.bearer()) {
                Some(token) => {
                    token.revoked = true;
                    told(204, Value::Null)
                }
                None => bad(),
            }
        }
        (&Method::GET, ["installation", "repositories"]) => {
            match stage.bearer("github", asked.bearer()) {
                Some(_) => told(200, json!({ "total_count": 0, "repositories": [] })),
                None => bad(),
            }
        }
        _ => told(404, json!({ "message": "Not Found" })),
    }
}

/// The App's token: its signature, who it is of, and its times.
fn is_the_app(stage: &Stage, asked: &Asked<'_>) -> bool {
    let Some((message, signature)) = asked.bearer().rsplit_once('.') else { return false };
    let Ok(signature) = BASE64URL_NOPAD.decode(signature.as_bytes()) else { return false };
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, asked.public);
    if key.verify(message.as_bytes(), &signature).is_err() {
        return false;
    }
    let (header, claims) = message.split_once('.').unwrap();
    let part = |part: &str| -> Value {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap()).unwrap()
    };
    let (header, claims, now) = (part(header), part(claims), stage.now().seconds());
    let (issued, expires) = (claims["iat"].as_i64().unwrap(), claims["exp"].as_i64().unwrap());
    header["alg"] == "RS256"
        && claims["iss"] == APP
        && issued <= now
        && now < expires
        && expires <= now + 600
}
