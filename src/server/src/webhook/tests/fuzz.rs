//! The fuzz target `webhook`: requests as strangers could send them, some of them signed by
//! whoever has the secret.
//!
//! An input is the word of a platform, the headers, an empty line and the body.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::*;
use crate::fuzz::{self, Dice, Node, Target, change_bytes};

/// GitLab's signing token, without what it begins with and out of its base64.
const SIGNING: [u8; 32] = [7; 32];
/// How far a signature's time may be off, in seconds.
const OFF_MAX: u64 = 300;
const BLANKS: &[u8] = b" \n\r\t\0";

/// A request, cut into its parts.
struct Request<'i> {
    kind: HookKind,
    headers: HeaderMap,
    body: &'i [u8],
}

impl<'i> Request<'i> {
    /// Nothing of what no server would hand to us.
    fn read(input: &'i [u8]) -> Option<Self> {
        let end = input.windows(2).position(|pair| pair == b"\n\n")?;
        let (head, body) = (&input[..end], &input[end + 2..]);
        let mut lines = head.split(|byte| *byte == b'\n');
        let word = lines.next()?;
        let kind = KINDS.into_iter().find(|kind| kind.as_str().as_bytes() == word)?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let colon = line.windows(2).position(|pair| pair == b": ")?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            headers.append(name, HeaderValue::from_bytes(&line[colon + 2..]).ok()?);
        }
        Some(Self { kind, headers, body })
    }

    /// The value of a header that is there once.
    fn one(&self, name: &str) -> Option<&str> {
        let all: Vec<&HeaderValue> = self.headers.get_all(name).iter().collect();
        match all.as_slice() {
            [one] => one.to_str().ok(),
            _ => None,
        }
    }
}

const KINDS: [HookKind; 3] = [HookKind::Buildkite, HookKind::Github, HookKind::Gitlab];

type Verify = fn(&Hook, &Request<'_>) -> Result<(), Unproven>;

struct Requests {
    hooks: [Hook; 3],
    /// Ours, or one with a planted weakness.
    verify: Verify,
}

impl Requests {
    fn new(verify: Verify) -> Self {
        let signing = format!("whsec_{}", BASE64.encode(&SIGNING));
        let hooks = [
            hook(HookKind::Buildkite, &[SECRET]),
            hook(HookKind::Github, &[SECRET]),
            hook(HookKind::Gitlab, &[SECRET, &signing]),
        ];
        Self { hooks, verify }
    }
}

/// Whether whoever has the secret sent exactly these bytes, in other words than the reader's.
fn is_proved(request: &Request<'_>) -> bool {
    let signed = |at: &str| hex(SECRET, &[at.as_bytes(), b".", request.body].concat());
    match request.kind {
        HookKind::Buildkite => match request.one("x-buildkite-signature") {
            Some(given) => {
                let rest = given.strip_prefix("timestamp=").unwrap_or_default();
                let at = rest.split(',').next().unwrap_or_default();
                given == format!("timestamp={at},signature={}", signed(at)) && is_fresh(at)
            }
            None => request.one("x-buildkite-token") == Some(SECRET),
        },
        HookKind::Github => {
            let expected = format!("sha256={}", hex(SECRET, request.body));
            request.one("x-hub-signature-256") == Some(expected.as_str())
        }
        HookKind::Gitlab => {
            let [id, at, given] = ["webhook-id", "webhook-timestamp", "webhook-signature"]
                .map(|name| request.one(name).unwrap_or_default());
            let message = [format!("{id}.{at}.").as_bytes(), request.body].concat();
            let expected = format!("v1,{}", BASE64.encode(&tag(&SIGNING, &message)));
            given.split(' ').any(|one| one == expected) && is_fresh(at)
                || request.one("x-gitlab-token") == Some(SECRET)
        }
    }
}

fn is_fresh(at: &str) -> bool {
    at.parse::<i64>().is_ok_and(|at| at.abs_diff(NOW) <= OFF_MAX)
}

/// The texts and numbers of a body, and what an id can be taken from: a URL's parts, a UUID.
fn words(body: &[u8]) -> Option<BTreeSet<String>> {
    let mut words = BTreeSet::new();
    for plain in Node::read(body)?.plain() {
        let Ok(text) = serde_json::from_str::<String>(plain) else {
            words.insert(plain.to_owned());
            continue;
        };
        words.extend(Uuid::parse_str(&text).ok().map(|id| id.to_string()));
        for part in text.split('/') {
            words.extend(part.parse::<u64>().ok().map(|number| number.to_string()));
            words.insert(part.to_owned());
        }
    }
    Some(words)
}

/// A proved request ends no job but those that its body names.
fn ended(hook: &Hook, request: &Request<'_>) -> String {
    let Ok(told) = hook.read(&request.headers, request.body) else {
        return "unreadable".to_owned();
    };
    // What is there and looked at by nobody need not be JSON to the letter.
    let Some(words) = words(request.body) else { return "read in part".to_owned() };
    assert!(told.ends.len() <= 200, "{} jobs end", told.ends.len());
    let begin = format!("ci|{}/", request.kind.as_str());
    for job in &told.ends {
        let ids = job.key.as_str().strip_prefix(&begin).expect("a key of its own platform");
        let unnamed = ids.split('/').find(|id| !words.contains(*id));
        assert_eq!(unnamed, None, "{ids} is not what its body says");
        assert_eq!(job.actor, "webhook|ci");
    }
    format!("{} jobs", told.ends.len().min(3))
}

/// A request of `kind` that is signed as of `at`. GitLab and Buildkite have two ways to.
fn signed(kind: HookKind, at: i64, second_way: bool, body: &[u8]) -> Vec<u8> {
    let dated = |before: &str| [before.as_bytes(), body].concat();
    let headers = match (kind, second_way) {
        (HookKind::Buildkite, false) => {
            let signature = hex(SECRET, &dated(&format!("{at}.")));
            format!("x-buildkite-signature: timestamp={at},signature={signature}")
        }
        (HookKind::Buildkite, true) => format!("x-buildkite-token: {SECRET}"),
        (HookKind::Github, second_way) => {
            let event = if second_way { "workflow_run" } else { "workflow_job" };
            format!("x-github-event: {event}\nx-hub-signature-256: sha256={}", hex(SECRET, body))
        }
        (HookKind::Gitlab, false) => {
            let signature = BASE64.encode(&tag(&SIGNING, &dated(&format!("msg_1.{at}."))));
            format!("webhook-id: msg_1\nwebhook-timestamp: {at}\nwebhook-signature: v1,{signature}")
        }
        (HookKind::Gitlab, true) => format!("x-gitlab-token: {SECRET}"),
    };
    [format!("{}\n{headers}\n\n", kind.as_str()).as_bytes(), body].concat()
}

impl Target for Requests {
    const NAME: &'static str = "webhook";
    const ROUNDS: u64 = 15_000;

    fn corpus(&self) -> Vec<Vec<u8>> {
        let pipeline = json!({
            "object_kind": "pipeline",
            "object_attributes": { "id": 574, "status": "failed" },
            "project": { "id": 20, "name": "app" },
            "builds": [{ "id": 302, "status": "success" }, { "id": 303, "status": "failed" }]
        });
        let build = json!({
            "object_kind": "build", "build_id": 302, "build_status": "success",
            "pipeline_id": 574, "project_id": 20
        });
        let finished = json!({
            "event": "job.finished",
            "job": { "id": "0184990a-4771-4d4a-9c48-000000000001", "state": "passed" },
            "build": { "number": 7 },
            "pipeline": { "slug": "app", "url": "https://b/v2/organizations/acme/pipelines/app" }
        });
        let requests = [
            (HookKind::Github, NOW, false, github_job("success")),
            (HookKind::Github, NOW, true, github_run(1, "cancelled")),
            (HookKind::Gitlab, NOW, false, pipeline),
            (HookKind::Gitlab, NOW, true, build),
            (HookKind::Buildkite, NOW, false, finished.clone()),
            (HookKind::Buildkite, NOW, true, finished.clone()),
            (HookKind::Buildkite, NOW - 301, false, finished),
        ];
        let of = |(kind, at, second_way, body): &(HookKind, i64, bool, Value)| {
            signed(*kind, *at, *second_way, body.to_string().as_bytes())
        };
        let mut corpus: Vec<Vec<u8>> = requests.iter().map(of).collect();
        // Signed, and with a line's end more on its way.
        corpus.push([corpus[0].as_slice(), b"\n"].concat());
        corpus.push(b"github\nx-hub-signature: sha1=00\n\n{}".to_vec());
        corpus
    }

    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        let request = Request::read(input)?;
        let mut body = request.body.to_vec();
        if dice.one_in(4) {
            change_bytes(&mut body, b"", dice);
        } else {
            body = Node::changed(&body, dice)?;
        }
        let at = NOW + [0, 0, 0, 0, -300, 300, -301, 301][dice.below(8)];
        let mut request = signed(request.kind, at, dice.one_in(2), &body);
        match dice.below(10) {
            0 => request.push(*dice.pick(BLANKS)),
            1 => request.truncate(request.len() - 1),
            2 => {
                let first = request.iter().position(|byte| *byte == b'\n')?;
                let again = request.split(|byte| *byte == b'\n').nth(1)?;
                let again = [b"\n".as_slice(), again].concat();
                drop(request.splice(first..first, again));
            }
            _ => {}
        }
        Some(request)
    }

    fn attempt(&self, input: &[u8]) -> String {
        let Some(request) = Request::read(input) else { return "no request".to_owned() };
        let kind = request.kind.as_str();
        let hook = self.hooks.iter().find(|hook| hook.kind == request.kind).expect("a hook");
        match (self.verify)(hook, &request) {
            Ok(()) => {
                assert!(is_proved(&request), "nobody who has the secret sent it");
                assert!(proves_something(&request.headers), "it would not have been read");
                format!("proved: {kind}, {}", ended(hook, &request))
            }
            Err(unproven) => format!("refused: {kind}, {unproven:?}"),
        }
    }
}

fn ours(hook: &Hook, request: &Request<'_>) -> Result<(), Unproven> {
    hook.verify(&request.headers, request.body, moment())
}

#[test]
fn a_request_is_believed_only_for_the_bytes_that_were_signed() {
    let report = fuzz::run(&Requests::new(ours));
    for place in [
        "proved: buildkite, 1 jobs",
        "proved: github, 1 jobs",
        "proved: gitlab, 1 jobs",
        "proved: gitlab, 2 jobs",
        "proved: github, unreadable",
        "refused: buildkite, Stale",
        "refused: gitlab, Stale",
        "refused: github, Missing",
        "refused: github, Wrong",
        "refused: gitlab, Wrong",
    ] {
        assert!(report.reached(place), "{place}: {report:?}");
    }
}

/// Signs what it would rather have been sent.
fn trims(hook: &Hook, request: &Request<'_>) -> Result<(), Unproven> {
    hook.verify(&request.headers, request.body.trim_ascii(), moment())
}

/// Takes the time of a signature for the time of day.
fn takes_its_time(hook: &Hook, request: &Request<'_>) -> Result<(), Unproven> {
    let given = request.one("x-buildkite-signature").unwrap_or_default();
    let digits: String = given.chars().filter(char::is_ascii_digit).take(10).collect();
    let at = digits.parse().map_or(moment(), Timestamp::from_seconds);
    hook.verify(&request.headers, request.body, at)
}

/// Has one header where there are two.
fn takes_the_first(hook: &Hook, request: &Request<'_>) -> Result<(), Unproven> {
    let mut headers = HeaderMap::new();
    for name in request.headers.keys() {
        headers.extend(request.headers.get(name).map(|value| (name.clone(), value.clone())));
    }
    hook.verify(&headers, request.body, moment())
}

#[test]
fn a_webhook_that_trims_waits_or_takes_the_first_header_is_found() {
    for verify in [trims as Verify, takes_its_time, takes_the_first] {
        let found = fuzz::finding(&Requests::new(verify)).unwrap_or_default();
        assert!(found.contains("nobody who has the secret sent it"), "{found}");
    }
}
