//! Requests with one thing wrong each. STS hears of none of them.

use super::*;

type Change = fn(&mut Value);

fn set(request: &mut Value, header: &str, value: impl Into<Value>) {
    request["headers"][header] = value.into();
}

fn remove(request: &mut Value, header: &str) {
    request["headers"].as_object_mut().unwrap().remove(header).unwrap();
}

/// Signs other headers than there are.
fn cover(request: &mut Value, signed: &str) {
    set(request, "Authorization", authorization("20260921/eu-central-1/sts/aws4_request", signed));
}

/// Signs in another scope.
fn scope(request: &mut Value, scope: &str) {
    set(request, "Authorization", authorization(scope, SIGNED));
}

async fn refuse(cases: &[(&str, Change, Rejection)]) {
    let desk = Desk::new().await;
    for (words, change, rejection) in cases {
        let mut request = request();
        change(&mut request);
        assert_eq!(desk.ask(&request).await, Err(*rejection), "{words}");
    }
    assert_eq!(desk.asked(), 0, "something was sent");
}

#[tokio::test]
async fn a_request_for_another_address_is_not_sent() {
    let host = Rejection::HostRefused;
    let cases: [(&str, Change, Rejection); 14] = [
        ("another host", |r| r["url"] = "https://sts.evil.example/".into(), host),
        (
            "a host that begins like ours",
            |r| r["url"] = "https://sts.eu-central-1.amazonaws.com.evil.example/".into(),
            host,
        ),
        (
            "a region that is not configured",
            |r| r["url"] = "https://sts.us-west-2.amazonaws.com/".into(),
            host,
        ),
        ("another service", |r| r["url"] = "https://iam.amazonaws.com/".into(), host),
        ("a port", |r| r["url"] = "https://sts.eu-central-1.amazonaws.com:443/".into(), host),
        (
            "our host as a user",
            |r| r["url"] = "https://sts.eu-central-1.amazonaws.com@evil.example/".into(),
            host,
        ),
        (
            "a user before our host",
            |r| r["url"] = "https://x@sts.eu-central-1.amazonaws.com/".into(),
            host,
        ),
        (
            "a query",
            |r| r["url"] = "https://sts.eu-central-1.amazonaws.com/?Action=AssumeRole".into(),
            host,
        ),
        ("an empty query", |r| r["url"] = "https://sts.eu-central-1.amazonaws.com/?".into(), host),
        ("a path", |r| r["url"] = "https://sts.eu-central-1.amazonaws.com/x".into(), host),
        ("no path", |r| r["url"] = "https://sts.eu-central-1.amazonaws.com".into(), host),
        ("no TLS", |r| r["url"] = "http://sts.eu-central-1.amazonaws.com/".into(), host),
        ("capitals", |r| r["url"] = "https://STS.eu-central-1.amazonaws.com/".into(), host),
        (
            "a line break in it",
            |r| r["url"] = "https://sts.eu-central-1.amazonaws.com/\r\nHost: evil.example".into(),
            host,
        ),
    ];
    refuse(&cases).await;
}

#[tokio::test]
async fn a_request_that_asks_for_something_else_is_not_sent() {
    let method = Rejection::malformed("the method is not POST");
    let body = Rejection::malformed("the body does not ask for the caller's identity");
    let cases: [(&str, Change, Rejection); 8] = [
        ("GET", |r| r["method"] = "GET".into(), method),
        ("a lower-case method", |r| r["method"] = "post".into(), method),
        ("no method", |r| r["method"] = Value::Null, method),
        (
            "another action",
            |r| r["body"] = "Action=GetSessionToken&Version=2011-06-15".into(),
            body,
        ),
        ("a second action", |r| r["body"] = format!("{BODY}&Action=GetSessionToken").into(), body),
        (
            "another order",
            |r| r["body"] = "Version=2011-06-15&Action=GetCallerIdentity".into(),
            body,
        ),
        ("no body", |r| r["body"] = "".into(), body),
        (
            "a member that nobody knows",
            |r| r["follow"] = true.into(),
            Rejection::malformed("the request has an unknown member"),
        ),
    ];
    refuse(&cases).await;
}

#[tokio::test]
async fn a_request_that_was_signed_for_another_broker_or_for_none_is_not_sent() {
    let cover_fault = Rejection::malformed("the signature does not cover exactly the headers");
    let audience = Rejection::WrongAudience;
    let cases: [(&str, Change, Rejection); 9] = [
        (
            "the server id of another broker",
            |r| set(r, "X-Dayfly-Server-Id", "https://other.example"),
            audience,
        ),
        (
            "our server id with a slash",
            |r| set(r, "X-Dayfly-Server-Id", "https://dayfly.example/"),
            audience,
        ),
        (
            "our server id in capitals",
            |r| set(r, "X-Dayfly-Server-Id", "https://DAYFLY.example"),
            audience,
        ),
        (
            "no server id",
            |r| remove(r, "X-Dayfly-Server-Id"),
            Rejection::malformed("`x-dayfly-server-id` is missing"),
        ),
        (
            "a server id that is not signed",
            |r| cover(r, "content-type;host;x-amz-date;x-amz-security-token;x-dayfly-nonce"),
            cover_fault,
        ),
        (
            "a server id of another product",
            |r| set(r, "X-Vault-AWS-IAM-Server-ID", "https://dayfly.example"),
            Rejection::malformed("a header is not one that is passed on"),
        ),
        ("a host that is not signed", |r| cover(r, &SIGNED.replace("host;", "")), cover_fault),
        (
            "a date that is not signed",
            |r| cover(r, &SIGNED.replace("x-amz-date;", "")),
            cover_fault,
        ),
        (
            "a token that is not signed",
            |r| cover(r, &SIGNED.replace("x-amz-security-token;", "")),
            cover_fault,
        ),
    ];
    refuse(&cases).await;
}

#[tokio::test]
async fn a_signature_that_is_not_of_the_one_form_is_not_sent() {
    let form = Rejection::malformed("`authorization` is missing or not of Signature Version 4");
    let covers = Rejection::malformed("the signature does not cover exactly the headers");
    let change = |r: &mut Value, from: &str, to: &str| {
        let good = authorization("20260921/eu-central-1/sts/aws4_request", SIGNED);
        assert!(good.contains(from), "{from}");
        set(r, "Authorization", good.replace(from, to));
    };
    let cases: [(&str, &str, &str, Rejection); 14] = [
        ("another algorithm", "AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256", form),
        ("a bearer", "AWS4-HMAC-SHA256 Credential=", "Bearer ", form),
        ("another service", "/sts/", "/iam/", form),
        ("another end", "aws4_request", "aws4_request/x", form),
        ("no end", "/aws4_request", "", form),
        ("a short key", "ASIAEXAMPLEKEY000001", "ASIA", form),
        ("a key with a blank", "ASIAEXAMPLEKEY000001", "ASIA EXAMPLEKEY00001", form),
        ("a short signature", "0a0a0a", "0a0a", form),
        ("a signature in capitals", "0a", "0A", form),
        ("two signatures", ", Signature=", ", Signature=00, Signature=", form),
        ("other commas", ", Signature=", ",Signature=", form),
        ("a header more", "host;", "host;range;", covers),
        ("a header twice", "host;", "host;host;", covers),
        ("another order", "content-type;host;", "host;content-type;", covers),
    ];
    let desk = Desk::new().await;
    for (words, from, to, rejection) in cases {
        let mut request = request();
        change(&mut request, from, to);
        assert_eq!(desk.ask(&request).await, Err(rejection), "{words}");
    }
    let region = Rejection::malformed("the signature is for another region");
    let day = Rejection::malformed("the signature is of another day");
    let cases: [(&str, Change, Rejection); 5] = [
        ("another region", |r| scope(r, "20260921/us-east-1/sts/aws4_request"), region),
        (
            "a region's signature for the address of none",
            |r| r["url"] = "https://sts.amazonaws.com/".into(),
            region,
        ),
        ("another day", |r| scope(r, "20260920/eu-central-1/sts/aws4_request"), day),
        ("no day", |r| scope(r, "/eu-central-1/sts/aws4_request"), form),
        ("none at all", |r| remove(r, "Authorization"), form),
    ];
    refuse(&cases).await;
    assert_eq!(desk.asked(), 0, "something was sent");
}

#[tokio::test]
async fn headers_that_have_two_readings_are_not_sent() {
    let unknown = Rejection::malformed("a header is not one that is passed on");
    let value = Rejection::malformed("a header's value has not one reading");
    let form = Rejection::malformed("`content-type` is missing or not a form's");
    let deep = Rejection::malformed("JSON nested too deeply");
    let cases: [(&str, Change, Rejection); 15] = [
        ("a header of ours", |r| set(r, "Host", "sts.eu-central-1.amazonaws.com"), unknown),
        ("a length", |r| set(r, "Content-Length", "43"), unknown),
        ("chunks", |r| set(r, "Transfer-Encoding", "chunked"), unknown),
        ("another action", |r| set(r, "X-Amz-Target", "AssumeRole"), unknown),
        ("a name with a line break", |r| set(r, "X-Amz-Date\r\nHost", "x"), unknown),
        ("a name with a blank", |r| set(r, "X-Amz-Date ", "20260921T141320Z"), unknown),
        (
            "a value with a line break",
            |r| set(r, "X-Dayfly-Nonce", "n\r\nHost: evil.example"),
            value,
        ),
        ("a value with a NUL", |r| set(r, "X-Dayfly-Nonce", "n\0"), value),
        ("a value that is not ASCII", |r| set(r, "X-Dayfly-Nonce", "n\u{e4}"), value),
        ("a value with blanks around it", |r| set(r, "X-Dayfly-Server-Id", " x "), value),
        ("a value with two blanks", |r| set(r, "X-Dayfly-Nonce", "a  b"), value),
        ("an empty value", |r| set(r, "X-Dayfly-Nonce", ""), value),
        ("an object for a value", |r| set(r, "X-Dayfly-Nonce", json!({"a": "b"})), deep),
        ("JSON", |r| set(r, "Content-Type", "application/json"), form),
        ("no type", |r| remove(r, "Content-Type"), form),
    ];
    refuse(&cases).await;
}

#[tokio::test]
async fn what_is_written_twice_is_not_sent() {
    let desk = Desk::new().await;
    let good = request().to_string();
    let twice = Rejection::malformed("a member appears twice");
    for (words, from, to, rejection) in [
        ("a URL", "\"url\":", "\"url\":\"https://evil.example/\",\"url\":", twice),
        ("a URL, escaped", "\"url\":", "\"u\\u0072l\":\"https://evil.example/\",\"url\":", twice),
        (
            "a header",
            "\"X-Dayfly-Server-Id\":",
            "\"X-Dayfly-Server-Id\":\"https://other.example\",\"X-Dayfly-Server-Id\":",
            twice,
        ),
        (
            "a header in another case",
            "\"X-Dayfly-Server-Id\":",
            "\"x-dayfly-server-id\":\"https://other.example\",\"X-Dayfly-Server-Id\":",
            Rejection::malformed("a header appears twice"),
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let text = good.replacen(from, to, 1);
        assert_eq!(desk.ask_text(&text).await, Err(rejection), "{words}");
    }
    assert_eq!(desk.asked(), 0, "something was sent");
}

#[tokio::test]
async fn what_is_too_large_or_no_request_is_not_sent() {
    let desk = Desk::new().await;
    let mut large = request();
    large["headers"]["X-Amz-Security-Token"] = "x".repeat(6_000).into();
    assert_eq!(desk.ask(&large).await, Err(Rejection::TooLarge));
    // What a session token can be at most passes.
    large["headers"]["X-Amz-Security-Token"] = "x".repeat(4_096).into();
    assert!(desk.ask(&large).await.is_ok());
    assert_eq!(desk.asked(), 1);
    let now = Timestamp::from_seconds(NOW);
    let encoded = bearer(&request().to_string());
    for bad in [
        PREFIX.to_owned(),
        format!("{encoded}="),
        format!("{encoded}\n"),
        format!("{encoded}.x"),
        encoded.to_uppercase(),
        bearer("[]"),
        bearer("{}"),
        bearer("null"),
        bearer(&format!("{} ", "{".repeat(2_000))),
        bearer(&format!("{}{{}}", request())),
    ] {
        let refused = desk.identities.authenticate(&bad, now).await;
        assert!(matches!(refused, Err(Rejection::Malformed { .. })), "{bad}: {refused:?}");
    }
    assert_eq!(desk.asked(), 1, "something was sent");
}

#[tokio::test]
async fn a_request_has_its_time() {
    let desk = Desk::new().await;
    let good = request().to_string();
    for (seconds, expected) in [
        (299, None),
        (300, Some(Rejection::Expired)),
        (86_400, Some(Rejection::Expired)),
        (-60, None),
        (-61, Some(Rejection::IssuedInFuture)),
    ] {
        assert_eq!(desk.ask_at(&good, NOW + seconds).await.err(), expected, "{seconds}");
    }
    let asked = desk.asked();
    let time = Rejection::malformed("`x-amz-date` is not a time");
    for bad in [
        "20260921T141320",
        "20260921T141320z",
        "20260921141320Z",
        "2026-09-21T14:13:20Z",
        "20261321T141320Z",
        "20260921T251320Z",
        "20260921T14132\u{b2}Z",
        "+0260921T141320Z",
        "Mon, 21 Sep 2026 14:13:20 GMT",
    ] {
        let mut request = request();
        set(&mut request, "X-Amz-Date", bad);
        let value = Rejection::malformed("a header's value has not one reading");
        let expected = if bad.is_ascii() { time } else { value };
        assert_eq!(desk.ask(&request).await, Err(expected), "{bad}");
    }
    assert_eq!(desk.asked(), asked, "something was sent");
}
