//! The fuzz target `spiffe_id`, and what both targets on SPIFFE hold an ID against; `x509_svid`
//! is in `fuzz/svid.rs`.

mod svid;

use crate::{
    fuzz::{self, Dice, Target, change_bytes},
    identity::SpiffeId,
};

use super::WEB;

/// What stands between two slashes, or seems to.
const SEGMENTS: &[&str] = &[
    "",
    ".",
    "..",
    "...",
    ".a",
    "a.",
    "A",
    "ns",
    "web",
    "%2e%2e",
    "%61",
    "a b",
    "a:b",
    "a@b",
    "a?b",
    "a#b",
    "a\\b",
    "a\0",
    "a\n",
    "*",
    "\u{fc}",
    "\u{ff0e}",
    "\u{2025}",
    "\u{2044}",
    "spiffe:",
    "Spiffe:",
    "EXAMPLE.org",
    "example.org",
    "1.2.3.4",
    "[::1]",
];

/// Whether it is an ID, to the letter of the specification (SPIFFE-ID, section 2) and in other
/// words than the reader's. The scheme is in lower case, as ours are.
fn is_legal(text: &str) -> bool {
    let lower = |c: char| "abcdefghijklmnopqrstuvwxyz0123456789._-".contains(c);
    let any = |c: char| lower(c.to_ascii_lowercase());
    let parts: Vec<&str> = text.split('/').collect();
    let ["spiffe:", "", domain, path @ ..] = parts.as_slice() else { return false };
    let segment = |segment: &&str| !["", ".", ".."].contains(segment) && segment.chars().all(any);
    let domain = (1..=255).contains(&domain.len()) && domain.chars().all(lower);
    text.len() <= 2_048 && domain && path.iter().all(segment)
}

/// An ID that was read.
#[derive(Debug)]
struct Parts {
    text: String,
    trust_domain: String,
    segments: Vec<String>,
}

impl Parts {
    fn of(id: &SpiffeId) -> Self {
        Self {
            text: id.to_string(),
            trust_domain: id.trust_domain().to_owned(),
            segments: id.segments().to_vec(),
        }
    }
}

struct Ids {
    /// Ours, or one with a planted weakness.
    read: fn(&str) -> Option<Parts>,
}

impl Target for Ids {
    const NAME: &'static str = "spiffe_id";
    const ROUNDS: u64 = 40_000;

    fn corpus(&self) -> Vec<Vec<u8>> {
        let longest = format!("spiffe://{}/{}", "d".repeat(255), "x".repeat(2_048 - 255 - 10));
        let ids = [
            WEB,
            "spiffe://td",
            "spiffe://1.2.3.4/x/..y",
            "spiffe://a_b-c.d/.../A",
            "spiffe://EXAMPLE.org/web",
            "spiffe://td/web/",
            "spiffe://td/../web",
            "spiffe://user@td:443/web?q#f",
            &longest,
        ];
        ids.map(|id| id.as_bytes().to_vec()).to_vec()
    }

    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> =
            input.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let at = dice.below(parts.len());
        match dice.below(5) {
            0 => drop(parts.remove(at)),
            1 => parts.insert(at, dice.pick(SEGMENTS).as_bytes().to_vec()),
            2 => parts[at] = dice.pick(SEGMENTS).as_bytes().to_vec(),
            3 => {
                // To the lengths that count, and one beyond.
                let len = [0, 1, 254, 255, 256, 2_035, 2_036, 2_037][dice.below(8)];
                parts[at] = b"x".repeat(len);
            }
            _ => change_bytes(&mut parts[at], b"", dice),
        }
        Some(parts.join(&b'/'))
    }

    fn attempt(&self, input: &[u8]) -> String {
        let Ok(text) = std::str::from_utf8(input) else { return "not a text".to_owned() };
        let Some(parts) = (self.read)(text) else {
            assert!(!is_legal(text), "an ID that is one was refused: {text:?}");
            return format!("refused: {:?}", SpiffeId::parse(text).err());
        };
        assert_eq!(parts.text, text, "it is not printed as it came");
        let mut spelled = vec![format!("spiffe://{}", parts.trust_domain)];
        spelled.extend(parts.segments.iter().cloned());
        assert_eq!(spelled.join("/"), text, "its parts are not those that were written");
        assert!(is_legal(text), "what is no ID was read: {text:?}");
        let again = (self.read)(&parts.text).map(|parts| parts.text);
        assert_eq!(again.as_deref(), Some(text), "what was printed reads otherwise");
        format!("read: {} segments", parts.segments.len().min(4))
    }
}

fn ours(text: &str) -> Option<Parts> {
    SpiffeId::parse(text).ok().as_ref().map(Parts::of)
}

#[test]
fn what_is_read_as_an_id_is_one_and_prints_as_it_came() {
    let report = fuzz::run(&Ids { read: ours });
    for place in [
        "read: 0",
        "read: 4",
        "refused: Some(DotSegment)",
        "refused: Some(EmptySegment)",
        "refused: Some(PathCharacter)",
        "refused: Some(Scheme)",
        "refused: Some(TooLong)",
        "refused: Some(TrustDomainCharacter)",
        "refused: Some(TrustDomainLen)",
    ] {
        assert!(report.reached(place), "{place}: {report:?}");
    }
}

/// Cuts at slashes, and looks at nothing.
fn credulous(text: &str) -> Option<Parts> {
    let mut parts = text.strip_prefix("spiffe://")?.split('/').map(str::to_owned);
    let trust_domain = parts.next()?;
    Some(Parts { text: text.to_owned(), trust_domain, segments: parts.collect() })
}

#[test]
fn an_id_that_is_tidied_up_cut_short_or_not_looked_at_is_found() {
    type Reader = fn(&str) -> Option<Parts>;
    let planted: [(Reader, &str); 4] = [
        (|text| ours(&text.to_ascii_lowercase()), "not printed as it came"),
        (|text| ours(text.trim_end_matches('/')), "not printed as it came"),
        (credulous, "what is no ID was read"),
        (|text| ours(text).filter(|id| id.segments.len() < 3), "an ID that is one was refused"),
    ];
    for (read, expected) in planted {
        let found = fuzz::finding(&Ids { read }).unwrap_or_default();
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
