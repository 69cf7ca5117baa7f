//! Bundles from a federation endpoint, over TLS.

use std::sync::Arc;

use axum::{http::StatusCode, response::IntoResponse};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tempfile::TempDir;

use super::{Authority, DOMAIN, WEB, Wanted};
use crate::identity::{
    Authenticator, BundleFrom, Rejection, TrustDomainConfig,
    keys::tests::server::{Handle, Site, Tls},
    tests::kit::FakeClock,
};

/// A desk whose bundle is at a site, and what keeps its CA file.
fn desk(site: &Site, tls: &Tls, clock: &Arc<FakeClock>) -> (Authenticator, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let ca_file = directory.path().join("ca.pem");
    std::fs::write(&ca_file, tls.pem()).unwrap();
    let bundle = BundleFrom::Url { url: format!("{}/jwks", site.url), ca_file: Some(ca_file) };
    let desk = Authenticator::new(Vec::new(), clock.clone()).unwrap();
    (desk.trusting(vec![TrustDomainConfig::new(DOMAIN, bundle)]).unwrap(), directory)
}

fn site(tls: &Tls) -> Handle {
    Site::open_tls(tls.server("localhost"))
}

fn svid(authority: &Authority) -> [CertificateDer<'static>; 1] {
    [authority.sign(&Wanted::workload(&[WEB]))]
}

#[tokio::test]
async fn a_bundle_is_fetched_kept_and_renewed() {
    let (tls, clock) = (Tls::authority(), FakeClock::new());
    let site = site(&tls);
    let (old, new) = (Authority::new("one"), Authority::new("one"));
    site.publish(&[old.jwk()]);
    let (desk, _directory) = desk(&site, &tls, &clock);
    for _ in 0..3 {
        assert!(desk.authenticate_certificate(&svid(&old)).await.is_ok());
    }
    assert_eq!((site.jwks_requests(), desk.key_fetches()[DOMAIN]), (1, 1));
    site.publish(&[new.jwk()]);
    clock.advance(299);
    desk.refresh().await;
    assert_eq!(site.jwks_requests(), 1, "it has no hint, so five minutes count");
    clock.advance(1);
    desk.refresh().await;
    assert_eq!(site.jwks_requests(), 2);
    assert!(desk.authenticate_certificate(&svid(&new)).await.is_ok());
    let answer = desk.authenticate_certificate(&svid(&old)).await;
    assert_eq!(answer, Err(Rejection::UnknownKey));
}

#[tokio::test]
async fn an_endpoint_that_misbehaves_gives_no_bundle() {
    let (tls, authority) = (Tls::authority(), Authority::new("one"));
    let chain = svid(&authority);
    let bundle = json!({ "keys": [authority.jwk()] }).to_string();
    let elsewhere = site(&tls);
    elsewhere.publish(&[authority.jwk()]);
    let target = format!("{}/jwks", elsewhere.url);
    for name in ["redirect", "error", "compressed", "too large", "no bundle", "other authority"] {
        let site = site(&tls);
        let (text, target) = (bundle.clone(), target.clone());
        site.answer(move || match name {
            "redirect" => (StatusCode::FOUND, [("location", target.clone())]).into_response(),
            "error" => (StatusCode::INTERNAL_SERVER_ERROR, text.clone()).into_response(),
            "compressed" => ([("content-encoding", "gzip")], text.clone()).into_response(),
            "too large" => format!("{text}{}", " ".repeat(512 * 1024)).into_response(),
            "no bundle" => "{}".into_response(),
            _ => text.clone().into_response(),
        });
        let trusted = if name == "other authority" { &Tls::authority() } else { &tls };
        let (desk, _directory) = desk(&site, trusted, &FakeClock::new());
        let answer = desk.authenticate_certificate(&chain).await;
        assert_eq!(answer, Err(Rejection::KeysUnavailable), "{name}");
    }
    assert_eq!(elsewhere.requests(), 0, "a redirect is not followed");
}
