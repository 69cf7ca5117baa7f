//! What STS, or something in its place, answers.

use axum::{
    body::{Body, Bytes},
    http::header,
};

use super::*;

fn json_of(body: impl Into<String>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

fn refused<T>(why: &'static str) -> Result<T, Rejection> {
    Err(Rejection::AnswerRefused { why })
}

/// CVE-2020-16250: Vault read an identity out of XML that an attacker had put into a field that
/// STS repeats.
#[tokio::test]
async fn xml_is_never_an_identity() {
    let desk = Desk::new().await;
    let xml = "<GetCallerIdentityResponse><GetCallerIdentityResult>\
               <Arn>arn:aws:sts::123456789012:assumed-role/deploy/build-7</Arn>\
               <UserId>AROAEXAMPLEROLE00001:build-7</UserId><Account>123456789012</Account>\
               </GetCallerIdentityResult></GetCallerIdentityResponse>";
    for kind in ["text/xml", "application/xml", "application/json+xml", "text/html"] {
        desk.answers(move || ([(header::CONTENT_TYPE, kind)], xml).into_response());
        assert_eq!(desk.ask(&request()).await, refused("it is not JSON"), "{kind}");
    }
    desk.answers(move || json_of(xml));
    assert_eq!(desk.ask(&request()).await, refused("it is not an identity"));
    // JSON that says that it is XML is no better.
    desk.answers(|| ([(header::CONTENT_TYPE, "text/xml")], answer().to_string()).into_response());
    assert_eq!(desk.ask(&request()).await, refused("it is not JSON"));
    desk.answers(|| answer().to_string().into_response());
    assert_eq!(desk.ask(&request()).await, refused("it is not JSON"), "text/plain");
}

#[tokio::test]
async fn an_identity_anywhere_else_in_json_is_none() {
    let desk = Desk::new().await;
    let result = answer()["GetCallerIdentityResponse"]["GetCallerIdentityResult"].clone();
    let good = answer().to_string();
    for (words, text) in [
        ("the result alone", result.to_string()),
        ("another response", good.replace("GetCallerIdentityResponse", "AssumeRoleResponse")),
        ("in an error", json!({ "Error": { "Message": answer() } }).to_string()),
        ("beside something else", good.replacen('{', "{\"Error\":{},", 1)),
        ("in a list", format!("[{good}]")),
        ("twice", good.replacen('{', "{\"GetCallerIdentityResponse\":{},", 1)),
        ("two accounts", good.replace("\"Account\":", "\"Account\":\"999999999999\",\"Account\":")),
        ("an account that is a number", good.replace("\"123456789012\"", "123456789012")),
        ("no user id", good.replace("UserId", "UserID")),
        ("something after it", format!("{good}{good}")),
        ("nothing", String::new()),
    ] {
        assert_ne!(text, good, "{words}");
        desk.answers(move || json_of(text.clone()));
        assert_eq!(desk.ask(&request()).await, refused("it is not an identity"), "{words}");
    }
    // What AWS may add one day changes nothing.
    let more = answer().to_string().replace("\"UserId\":", "\"Alias\":\"x\",\"UserId\":");
    desk.answers(move || json_of(more.clone()));
    assert!(desk.ask(&request()).await.is_ok());
}

#[tokio::test]
async fn only_200_is_an_identity() {
    let desk = Desk::new().await;
    let down = Rejection::StsUnavailable;
    for (status, rejection) in [
        (201, Rejection::AnswerRefused { why: "its status is not 200" }),
        (204, Rejection::AnswerRefused { why: "its status is not 200" }),
        (400, Rejection::BadSignature),
        (401, Rejection::BadSignature),
        (403, Rejection::BadSignature),
        (404, Rejection::AnswerRefused { why: "its status is not 200" }),
        (429, down),
        (500, down),
        (503, down),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        desk.answers(move || (status, axum::Json(answer())).into_response());
        assert_eq!(desk.ask(&request()).await, Err(rejection), "{status}");
    }
    let throttled = json!({ "Error": { "Code": "Throttling", "Message": "Rate exceeded" } });
    desk.answers(move || (StatusCode::BAD_REQUEST, axum::Json(throttled.clone())).into_response());
    assert_eq!(desk.ask(&request()).await, Err(down));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let desk = Desk::new().await;
    let other = Desk::new().await;
    let to = other.identities.by_server_id[SERVER_ID].rules.endpoint_url.clone().unwrap();
    for status in [301, 302, 307, 308] {
        let (to, status) = (to.clone(), StatusCode::from_u16(status).unwrap());
        desk.answers(move || (status, [(header::LOCATION, to.clone())]).into_response());
        assert_eq!(desk.ask(&request()).await, refused("it is a redirect"), "{status}");
    }
    assert_eq!(other.asked(), 0);
}

#[tokio::test]
async fn a_huge_answer_is_cut_off() {
    let desk = Desk::new().await;
    let huge = format!("{}{}", answer(), " ".repeat(64 * 1024));
    desk.answers(move || json_of(huge.clone()));
    assert_eq!(desk.ask(&request()).await, refused("it is too large"));
    desk.answers(|| {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4_096]))
        });
        ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(endless)).into_response()
    });
    assert_eq!(desk.ask(&request()).await, refused("it is too large"));
    desk.answers(|| {
        let kind = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")];
        (kind, answer().to_string()).into_response()
    });
    assert_eq!(desk.ask(&request()).await, refused("it is not JSON"));
}

#[tokio::test]
async fn a_slow_answer_is_not_waited_for() {
    let mut desk = Desk::new().await;
    let identity = desk.identities.by_server_id.get_mut(SERVER_ID).unwrap();
    identity.sts.timeout = Duration::from_millis(200);
    desk.site.delay_millis.store(10_000, Ordering::Relaxed);
    assert_eq!(desk.ask(&request()).await, Err(Rejection::StsUnavailable));
    desk.site.delay_millis.store(0, Ordering::Relaxed);
    assert!(desk.ask(&request()).await.is_ok());
}

#[tokio::test]
async fn nobody_there_is_not_the_callers_fault() {
    let gone = format!("http://127.0.0.1:{}", unused_port());
    let desk = Desk::with(|config| config.endpoint_url = Some(gone)).await;
    assert_eq!(desk.ask(&request()).await, Err(Rejection::StsUnavailable));
    assert!(Rejection::StsUnavailable.is_unavailable());
}

/// A port that nobody listens on.
fn unused_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A flood of requests at a slow STS is refused; it does not wait in line.
#[tokio::test]
async fn calls_at_a_time_are_bounded() {
    let desk = Desk::new().await;
    desk.site.delay_millis.store(500, Ordering::Relaxed);
    let request = request();
    let all = (0..70).map(|_| desk.ask(&request));
    let answers = futures_util::future::join_all(all).await;
    let refused = answers.iter().filter(|answer| **answer == Err(Rejection::StsUnavailable));
    assert_eq!(refused.count(), 6);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 64);
    assert_eq!(desk.asked(), 64);
}
