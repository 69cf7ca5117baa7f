//! The proof that a run has its key: what reaches the broker, and what does not.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use crate::{
    broker::{Answer, Broker, Request, TASK_TOKEN, grant, heard, opened, postgres, problem},
    program::{ID_TOKEN, dayfly, run},
};

/// A broker that binds what it opens.
fn binding(request: &Request) -> Answer {
    if request.line() == "POST /api/v1/tasks" {
        let mut task = opened(&[postgres("r")]);
        task.token_type = "DPoP".into();
        task.binding = Some("key".into());
        return Answer::json(201, &task);
    }
    if request.line() == "POST /api/v1/tasks/tsk_1/heartbeat" {
        return Answer::json(200, &heard());
    }
    grant(request, &[postgres("r")])
}

/// The header and the claims of a request's proof.
fn proof(request: &Request) -> (Value, Value) {
    let mut parts = request.proof.split('.').map(|part| {
        serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).unwrap())
            .unwrap_or(Value::Null)
    });
    (parts.next().unwrap(), parts.next().unwrap())
}

fn hash(token: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, token.as_bytes());
    BASE64URL_NOPAD.encode(digest.as_ref())
}

#[test]
fn every_request_of_a_run_proves_the_one_key_of_the_run() {
    let broker = Broker::start(|request, _| binding(request));
    let words = ["exec", "--role", "r", "--heartbeat", "1s", "--", "sleep", "2"];
    let finished = run(dayfly(&broker.url, &words));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let requests = broker.requests();
    let (first, rest) = requests.split_first().unwrap();
    assert_eq!((first.scheme.as_str(), first.bearer.as_str()), ("Bearer", ID_TOKEN));
    assert!(rest.len() >= 2, "a beat and the completion: {requests:?}");
    let (header, _) = proof(first);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
    let mut ids = Vec::new();
    for request in &requests {
        let (its_header, claims) = proof(request);
        assert_eq!(its_header, header, "one key");
        assert_eq!(claims["htm"], request.method.as_str());
        let path = request.target.split('?').next().unwrap();
        assert_eq!(claims["htu"], format!("{}{path}", broker.url));
        assert_eq!(claims["ath"], hash(&request.bearer));
        ids.push(claims["jti"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), requests.len(), "each request has a proof of its own");
    for request in rest {
        assert_eq!((request.scheme.as_str(), request.bearer.as_str()), ("DPoP", TASK_TOKEN));
    }
}

#[test]
fn nothing_of_the_key_reaches_the_command() {
    let broker = Broker::start(|request, _| binding(request));
    let script = "env; tr '\\0' ' ' </proc/$PPID/cmdline; ls /proc/$$/fd";
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "sh", "-c", script]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let (header, _) = proof(&broker.requests()[0]);
    let x = header["jwk"]["x"].as_str().unwrap();
    let all = format!("{}{}", finished.out, finished.err);
    assert!(!all.contains(x) && !all.contains("DPoP") && !all.contains("dft_"), "{all}");
}

#[test]
fn two_runs_have_nothing_in_common() {
    let broker = Broker::start(|request, _| binding(request));
    for _ in 0..2 {
        run(dayfly(&broker.url, &["exec", "--role", "r", "--", "true"]));
    }
    let asked = broker.asked("POST /api/v1/tasks");
    assert_ne!(proof(&asked[0]).0["jwk"], proof(&asked[1]).0["jwk"]);
}

#[test]
fn runs_that_name_one_file_prove_one_key() {
    let broker = Broker::start(|request, _| binding(request));
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("key");
    let file = file.to_str().unwrap();
    let words = ["exec", "--proof-key-file", file, "--role", "r", "--", "env"];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(0));
    assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut command = dayfly(&broker.url, &["exec", "--role", "r", "--", "env"]);
    command.env("DAYFLY_PROOF_KEY_FILE", file);
    let named = run(command);
    assert_eq!(named.code, Some(0), "{named:?}");
    assert!(!named.out.contains("DAYFLY_PROOF_KEY_FILE"), "{}", named.out);
    let asked = broker.asked("POST /api/v1/tasks");
    assert_eq!(proof(&asked[0]).0["jwk"], proof(&asked[1]).0["jwk"]);
    assert!(asked[0].body.get("bind").is_none(), "{}", asked[0].body);

    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    let shared = run(dayfly(&broker.url, &words));
    assert_eq!(shared.code, Some(125), "{shared:?}");
    assert!(shared.err.contains("is not this user's alone"), "{}", shared.err);
    assert_eq!(broker.asked("POST /api/v1/tasks").len(), 2, "nothing was asked");
    let words = ["exec", "--no-proof", "--proof-key-file", file, "--role", "r", "--", "true"];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(125), "one of the two is meant");
}

#[test]
fn a_task_that_is_left_to_a_script_is_bound_only_to_a_key_that_the_script_has() {
    let broker = Broker::start(|request, _| match request.proof.as_str() {
        "" => grant(request, &[postgres("r")]),
        _ => binding(request),
    });
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    let (plain, bound, file) = (at("plain"), at("bound"), at("key"));
    let words = ["task", "open", "--role", "r", "--directory"];
    assert_eq!(run(dayfly(&broker.url, &[&words[..], &[plain.as_str()]].concat())).code, Some(0));
    let key = ["--proof-key-file", file.as_str()];
    let opened = run(dayfly(&broker.url, &[&words[..], &[bound.as_str()], &key].concat()));
    assert_eq!(opened.code, Some(0), "{opened:?}");
    let asked = broker.asked("POST /api/v1/tasks");
    assert_eq!((asked[0].proof.as_str(), asked[0].body.get("bind")), ("", None));
    assert_eq!((asked[1].scheme.as_str(), &asked[1].body["bind"]), ("Bearer", &json!("key")));

    let token = format!("{bound}/token");
    let complete = ["task", "complete", "tsk_1", "--token-file", token.as_str()];
    assert_eq!(run(dayfly(&broker.url, &[&complete[..], &key].concat())).code, Some(0));
    let done = &broker.asked("POST /api/v1/tasks/tsk_1/complete")[0];
    assert_eq!((done.scheme.as_str(), done.bearer.as_str()), ("DPoP", TASK_TOKEN));
    assert_eq!(proof(done).0["jwk"], proof(&asked[1]).0["jwk"]);
    let none = at("none");
    let away = ["--proof-key-file", none.as_str()];
    let without = run(dayfly(&broker.url, &[&complete[..], &away].concat()));
    assert_eq!(without.code, Some(2), "no key is made that proves nothing: {without:?}");
}

#[test]
fn a_broker_that_takes_no_proofs_is_shown_a_bearer() {
    let broker = Broker::granting(vec![postgres("r")]);
    assert_eq!(run(dayfly(&broker.url, &["exec", "--role", "r", "--", "true"])).code, Some(0));
    let completion = &broker.asked("POST /api/v1/tasks/tsk_1/complete")[0];
    assert_eq!((completion.scheme.as_str(), completion.proof.as_str()), ("Bearer", ""));
}

#[test]
fn who_wants_no_proof_sends_none() {
    let broker = Broker::granting(vec![postgres("r")]);
    let words = ["exec", "--no-proof", "--role", "r", "--", "true"];
    assert_eq!(run(dayfly(&broker.url, &words)).code, Some(0));
    for request in broker.requests() {
        assert_eq!((request.scheme.as_str(), request.proof.as_str()), ("Bearer", ""));
    }
}

#[test]
fn a_broker_with_another_clock_is_followed() {
    // 2100-01-01T00:00:00Z.
    let there: i64 = 4_102_444_800;
    let broker = Broker::start(|request, before| {
        if request.line() == "POST /api/v1/tasks" && before == 0 {
            let refused = problem(401, "invalid_dpop_proof", "not accepted");
            return Answer::json(401, &refused).with("date", "Fri, 01 Jan 2100 00:00:00 GMT");
        }
        binding(request)
    });
    let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "true"]));
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let requests = broker.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    let minute = i64::try_from(Duration::from_mins(1).as_secs()).unwrap();
    for request in &requests[1..] {
        let issued_at = proof(request).1["iat"].as_i64().unwrap();
        assert!((there..there + minute).contains(&issued_at), "{issued_at}");
    }
}

#[test]
fn what_is_amiss_with_a_key_is_said_in_words_that_help() {
    for (code, words) in
        [("token_bound", "a token of its own"), ("invalid_dpop_proof", "public_url")]
    {
        let broker = Broker::start(move |_, _| Answer::json(401, &problem(401, code, "no")));
        let finished = run(dayfly(&broker.url, &["exec", "--role", "r", "--", "true"]));
        assert_eq!(finished.code, Some(125), "{finished:?}");
        assert!(finished.err.contains(words) && finished.err.contains("req_1"), "{}", finished.err);
        assert_eq!(broker.requests().len(), 1, "nothing is tried again without a clock to go by");
    }
}

#[test]
fn a_bound_token_of_the_environment_is_shown_as_it_is_and_the_answer_told() {
    let said = "the token is bound to a key or a certificate";
    let broker = Broker::start(move |_, _| Answer::json(401, &problem(401, "token_bound", said)));
    let mut command = dayfly(&broker.url, &["task", "show", "tsk_1"]);
    command.env("DAYFLY_TOKEN", "dft_mine");
    let finished = run(command);
    assert_eq!(finished.code, Some(5), "{finished:?}");
    assert!(finished.err.contains(said), "{}", finished.err);
    assert_eq!(
        (broker.requests()[0].scheme.as_str(), broker.requests()[0].proof.as_str()),
        ("Bearer", "")
    );
}
