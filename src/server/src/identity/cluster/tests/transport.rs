//! What comes over the wire instead of an answer.

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};

use super::*;

fn refused<T>(why: &'static str) -> Result<T, Rejection> {
    Err(Rejection::AnswerRefused { why })
}

const DOWN: Result<Principal, Rejection> = Err(Rejection::ClusterUnavailable);

/// As an API server writes refusals.
fn status(code: u16) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "tokenreviews.authentication.k8s.io is forbidden", "reason": "Forbidden",
        "details": { "group": "authentication.k8s.io", "kind": "tokenreviews" }, "code": code,
    })
}

/// That the cluster does not answer us says nothing of the caller.
#[tokio::test]
async fn a_status_that_is_not_one_of_success_is_not_the_callers_fault() {
    let desk = Desk::new().await;
    for code in [400, 401, 403, 404, 409, 429, 500, 502, 503] {
        let code = StatusCode::from_u16(code).unwrap();
        desk.answers(move || (code, axum::Json(status(code.as_u16()))).into_response());
        assert_eq!(desk.ask(&claims()).await, DOWN, "{code}");
        desk.answers(move || (code, axum::Json(answer())).into_response());
        assert_eq!(desk.ask(&claims()).await, DOWN, "{code} with a yes");
    }
    assert!(Rejection::ClusterUnavailable.is_unavailable());
    // As API servers answer a review.
    desk.answers(|| (StatusCode::CREATED, axum::Json(answer())).into_response());
    assert!(desk.ask(&claims()).await.is_ok());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let desk = Desk::new().await;
    let (other, to) = Site::start().await;
    for code in [301, 302, 307, 308] {
        let (to, code) = (to.clone(), StatusCode::from_u16(code).unwrap());
        desk.answers(move || (code, [(header::LOCATION, to.clone())]).into_response());
        assert_eq!(desk.ask(&claims()).await, refused("it is a redirect"), "{code}");
    }
    assert_eq!(other.asked(), 0);
}

/// A login page, say, of what stands before the API server.
#[tokio::test]
async fn what_is_not_json_is_no_answer() {
    let desk = Desk::new().await;
    desk.answers(|| axum::response::Html("<h1>Sign in</h1>").into_response());
    assert_eq!(desk.ask(&claims()).await, refused("it is not JSON"));
    desk.answers(|| answer().to_string().into_response());
    assert_eq!(desk.ask(&claims()).await, refused("it is not JSON"), "text/plain");
    desk.answers(|| {
        let kind = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_ENCODING, "gzip")];
        (kind, answer().to_string()).into_response()
    });
    assert_eq!(desk.ask(&claims()).await, refused("it is not JSON"), "compressed");
    desk.says_text("{".to_owned());
    assert_eq!(desk.ask(&claims()).await, refused("it is not a review"));
}

#[tokio::test]
async fn a_huge_answer_is_cut_off() {
    let desk = Desk::new().await;
    desk.says_text(format!("{}{}", answer(), " ".repeat(review::ANSWER_LEN_MAX)));
    assert_eq!(desk.ask(&claims()).await, refused("it is too large"));
    desk.answers(|| {
        let endless = futures_util::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4_096]))
        });
        ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(endless)).into_response()
    });
    assert_eq!(desk.ask(&claims()).await, refused("it is too large"));
}

#[tokio::test]
async fn a_slow_cluster_is_not_waited_for() {
    let mut desk = Desk::new().await;
    desk.authenticator.clusters.0[0].timeout = Duration::from_millis(200);
    desk.site.delay_millis.store(10_000, Ordering::Relaxed);
    assert_eq!(desk.ask(&claims()).await, DOWN);
    desk.site.delay_millis.store(0, Ordering::Relaxed);
    assert!(desk.ask(&claims()).await.is_ok());
}

/// Also where another cluster, or an issuer, is there all the same.
#[tokio::test]
async fn an_unreachable_cluster_hurts_its_own_tokens_alone() {
    let desk = Desk::new().await;
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let eu = reviewed("eu", &desk.url, &desk.token_file, AUDIENCE);
    let us = reviewed("us", &gone, &desk.token_file, "us");
    let both = Desk::over(&desk.clock, vec![eu, us]).unwrap();
    let lost = desk.token(&with(claims(), "/aud", json!(["us"])));
    assert_eq!(both.authenticate(&lost).await, DOWN);
    assert!(both.authenticate(&desk.token(&claims())).await.is_ok());
}

/// A flood of tokens for a slow cluster is refused; it does not wait in line.
#[tokio::test]
async fn questions_at_a_time_are_bounded() {
    let desk = Desk::new().await;
    desk.site.delay_millis.store(500, Ordering::Relaxed);
    let claims = claims();
    let all = (0..70).map(|_| desk.ask(&claims));
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(answers.iter().filter(|answer| **answer == DOWN).count(), 6);
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 64);
    assert_eq!(desk.site.asked(), 64);
}
