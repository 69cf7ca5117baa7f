//! The fuzz target `aws_request`: signed requests, up to the moment at which STS would be asked,
//! and what could come back from there.

use super::*;
use crate::fuzz::{self, Dice, Node, Target, change_bytes};

/// The addresses that the configuration below names, and the region that each is asked for.
const HOSTS: [(&str, &str); 2] =
    [("sts.eu-central-1.amazonaws.com", "eu-central-1"), ("sts.amazonaws.com", "us-east-1")];
/// The youngest time of a signature that is too old, and the last one that is not in the future.
const TOO_OLD: &str = "20260921T140820Z";
const LAST: &str = "20260921T141420Z";

/// What would be sent, and to whom.
#[derive(Debug)]
struct Sent {
    host: String,
    region: String,
    server_id: String,
    signature: String,
    headers: BTreeMap<String, String>,
}

impl Sent {
    fn of(endpoint: &Endpoint, request: &AwsRequest) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self {
            host: endpoint.host.clone(),
            region: request.region().to_owned(),
            server_id: request.server_id().to_owned(),
            signature: request.signature().to_owned(),
            headers: request.headers().map(owned).collect(),
        }
    }
}

type Admit = fn(&AwsIdentities, &str) -> Result<Sent, Rejection>;

struct Requests {
    identities: AwsIdentities,
    /// Ours, or one with a planted weakness.
    admit: Admit,
}

impl Requests {
    fn new(admit: Admit) -> Self {
        let config =
            AwsIdentityConfig::new("aws", SERVER_ID, &[ACCOUNT], &["eu-central-1", "aws-global"]);
        let identities = AwsIdentities::new(vec![config], BTreeSet::new()).unwrap();
        Self { identities, admit }
    }
}

/// The request that a bearer holds, as anybody reads it.
fn read_elsewhere(bearer: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(bearer.strip_prefix("aws.")?.as_bytes()).ok()
}

/// The headers of a request, their names in lower case, in the order of their names.
fn headers_of(request: &Value) -> Vec<(String, String)> {
    let headers = request["headers"].as_object().unwrap().iter();
    let text = |(name, value): (&String, &Value)| {
        (name.to_ascii_lowercase(), value.as_str().unwrap().to_owned())
    };
    let mut headers: Vec<_> = headers.map(text).collect();
    headers.sort_unstable();
    headers
}

/// What must hold of a request that would be sent, checked without any of our code.
fn holds(bearer: &str, sent: &Sent) {
    let bytes = read_elsewhere(bearer).unwrap();
    assert_eq!(format!("aws.{}", BASE64URL_NOPAD.encode(&bytes)), bearer, "has another spelling");
    assert!(Node::read(&bytes).unwrap().is_unambiguous(), "has two readings");
    let request: Value = serde_json::from_slice(&bytes).unwrap();
    let names: BTreeSet<&str> = request.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["body", "headers", "method", "url"]));
    assert_eq!(request["method"], "POST");
    assert_eq!(request["body"], "Action=GetCallerIdentity&Version=2011-06-15");
    let host = HOSTS.into_iter().find(|(host, _)| request["url"] == format!("https://{host}/"));
    let (host, region) = host.unwrap_or_else(|| panic!("for a host that nobody named: {request}"));
    assert_eq!((sent.host.as_str(), sent.region.as_str()), (host, region), "for another host");

    let headers = headers_of(&request);
    let passed: Vec<_> = sent.headers.clone().into_iter().collect();
    assert_eq!(passed, headers, "what is passed on is not what came");
    for (name, value) in &headers {
        let plain = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        assert!(plain && value.trim() == value && !value.contains("  "), "{name}: {value:?}");
    }
    let authorization = &sent.headers["authorization"];
    let (_, rest) = authorization.split_once(" Credential=").unwrap();
    let (credential, rest) = rest.split_once(", SignedHeaders=").unwrap();
    let (signed, signature) = rest.split_once(", Signature=").unwrap();
    let signed: Vec<&str> = signed.split(';').collect();
    assert!(signed.contains(&"x-dayfly-server-id"), "nobody signed whom it is for: {signed:?}");
    assert_eq!(sent.headers["x-dayfly-server-id"], SERVER_ID, "it is for somebody else");
    assert_eq!(sent.server_id, SERVER_ID);
    let names = headers.iter().map(|(name, _)| name.as_str());
    let mut expected: Vec<&str> = names.filter(|name| *name != "authorization").collect();
    expected.push("host");
    expected.sort_unstable();
    assert_eq!(signed, expected, "not exactly what is passed on was signed");
    assert_eq!((signature, signature.len()), (sent.signature.as_str(), 64));

    let date = sent.headers["x-amz-date"].as_str();
    assert!(TOO_OLD < date && date <= LAST, "it is of {date}");
    let scope: Vec<&str> = credential.split('/').skip(1).collect();
    assert_eq!(scope, [date.get(..8).unwrap(), region, "sts", "aws4_request"]);
}

/// What must hold of a caller that an answer names.
fn names(answer: &[u8], caller: &Caller) {
    assert!(Node::read(answer).unwrap().is_unambiguous(), "has two readings");
    let answer: Value = serde_json::from_slice(answer).unwrap();
    let result = &answer["GetCallerIdentityResponse"]["GetCallerIdentityResult"];
    assert_eq!(result["Account"].as_str(), Some(caller.account.as_str()));
    assert!(caller.account.len() == 12 && caller.account.bytes().all(|c| c.is_ascii_digit()));
    let arn = result["Arn"].as_str().unwrap();
    assert!(arn.starts_with("arn:aws:") && arn.contains(&format!("::{}:", caller.account)));
    let begin = format!("arn:aws:{}::{}:", arn.split(':').nth(2).unwrap(), caller.account);
    assert!(caller.subject.starts_with(&begin), "{caller:?} of {arn}");
}

fn answered(bytes: &[u8]) -> String {
    let Some(identity) = sts::parse(bytes) else { return "no answer".to_owned() };
    match Caller::of(&identity, "aws") {
        Ok(caller) => {
            names(bytes, &caller);
            format!("caller: {:?}", caller.kind)
        }
        Err(rejection) => format!("no caller: {rejection:?}"),
    }
}

impl Target for Requests {
    const NAME: &'static str = "aws_request";
    const ROUNDS: u64 = 20_000;

    fn corpus(&self) -> Vec<Vec<u8>> {
        let with = |place: &str, value: Value| {
            let mut request = request();
            *request.pointer_mut(place).unwrap() = value;
            request
        };
        let global = authorization("20260921/us-east-1/sts/aws4_request", SIGNED);
        let mut elsewhere = with("/url", json!("https://sts.amazonaws.com/"));
        elsewhere["headers"]["Authorization"] = json!(global);
        let without = SIGNED.replace(";x-dayfly-server-id", "");
        let unsigned = authorization("20260921/eu-central-1/sts/aws4_request", &without);
        let requests = [
            request(),
            elsewhere,
            with("/headers/Authorization", json!(unsigned)),
            with("/headers/X-Dayfly-Server-Id", json!("https://other.example")),
            with("/headers/X-Amz-Date", json!("20260921T140819Z")),
            with("/url", json!("https://sts.eu-central-1.amazonaws.com.evil.example/")),
            with("/url", json!("https://sts.eu-central-1.amazonaws.com@evil.example/")),
        ];
        let user = json!({ "GetCallerIdentityResponse": { "GetCallerIdentityResult": {
            "Account": ACCOUNT,
            "Arn": "arn:aws:iam::123456789012:user/division/alice",
            "UserId": "AIDAEXAMPLEUSER00001",
        } } });
        let mut corpus: Vec<Vec<u8>> =
            requests.iter().map(|request| bearer(&request.to_string()).into_bytes()).collect();
        corpus.extend([answer(), user].map(|answer| answer.to_string().into_bytes()));
        corpus
    }

    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        let Some(mut request) = read_elsewhere(std::str::from_utf8(input).ok()?) else {
            return Node::changed(input, dice);
        };
        if dice.one_in(4) {
            change_bytes(&mut request, b"", dice);
        } else {
            request = Node::changed(&request, dice)?;
        }
        Some(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&request)).into_bytes())
    }

    fn attempt(&self, input: &[u8]) -> String {
        let Ok(bearer) = std::str::from_utf8(input) else { return "not a text".to_owned() };
        if !bearer.starts_with(PREFIX) {
            return answered(input);
        }
        match (self.admit)(&self.identities, bearer) {
            Ok(sent) => {
                holds(bearer, &sent);
                format!("admitted: {}, {} headers", sent.host, sent.headers.len())
            }
            Err(rejection) => format!("refused: {rejection:?}"),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_seconds(NOW)
}

fn ours(identities: &AwsIdentities, bearer: &str) -> Result<Sent, Rejection> {
    let (_, endpoint, request) = identities.admitted(bearer, now())?;
    Ok(Sent::of(endpoint, &request))
}

#[test]
fn a_request_goes_where_it_was_signed_for_and_nowhere_else() {
    let report = fuzz::run(&Requests::new(ours));
    for place in [
        "admitted: sts.eu-central-1.amazonaws.com",
        "admitted: sts.amazonaws.com",
        "refused: Expired",
        "refused: HostRefused",
        "refused: WrongAudience",
        "refused: TooLarge",
        "refused: Malformed { why: \"the signature does not cover exactly the headers\" }",
        "caller: AssumedRole",
        "caller: User",
        "no caller",
    ] {
        assert!(report.reached(place), "{place}: {report:?}");
    }
}

/// What the broker would make of a bearer if one thing in it were right.
fn righted(
    identities: &AwsIdentities,
    bearer_text: &str,
    right: fn(&mut Value),
) -> Result<Sent, Rejection> {
    let unreadable = Rejection::malformed("unreadable");
    let bytes = read_elsewhere(bearer_text).ok_or(unreadable)?;
    let unambiguous = Node::read(&bytes).is_some_and(|request| request.is_unambiguous());
    let mut request: Value = serde_json::from_slice(&bytes).map_err(|_| unreadable)?;
    if !unambiguous || !request["headers"].is_object() {
        return Err(unreadable);
    }
    right(&mut request);
    ours(identities, &bearer(&request.to_string()))
}

/// Asks wherever a request says.
fn goes_anywhere(identities: &AwsIdentities, bearer: &str) -> Result<Sent, Rejection> {
    righted(identities, bearer, |request| {
        request["url"] = json!("https://sts.eu-central-1.amazonaws.com/");
    })
}

/// Takes it that all headers were signed.
fn believes_headers(identities: &AwsIdentities, bearer: &str) -> Result<Sent, Rejection> {
    let sent = righted(identities, bearer, |request| {
        request["headers"]["Authorization"] =
            json!(authorization("20260921/eu-central-1/sts/aws4_request", SIGNED));
    })?;
    let bytes = read_elsewhere(bearer).unwrap_or_default();
    let request: Value = serde_json::from_slice(&bytes).unwrap();
    Ok(Sent { headers: headers_of(&request).into_iter().collect(), ..sent })
}

/// Is not careful about whom it was signed for.
fn speaks_for_others(identities: &AwsIdentities, bearer: &str) -> Result<Sent, Rejection> {
    let sent = righted(identities, bearer, |request| {
        request["headers"]["X-Dayfly-Server-Id"] = json!(SERVER_ID);
    })?;
    let bytes = read_elsewhere(bearer).unwrap_or_default();
    let request: Value = serde_json::from_slice(&bytes).unwrap();
    Ok(Sent { headers: headers_of(&request).into_iter().collect(), ..sent })
}

#[test]
fn a_broker_that_does_not_look_at_host_headers_or_server_id_is_found() {
    let planted: [(Admit, &str); 3] = [
        (goes_anywhere, "for a host that nobody named"),
        (believes_headers, "nobody signed whom it is for"),
        (speaks_for_others, "it is for somebody else"),
    ];
    for (admit, expected) in planted {
        let found = fuzz::finding(&Requests::new(admit)).unwrap_or_default();
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
