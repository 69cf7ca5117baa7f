//! What a secret may look like in some output, and where it begins.
//!
//! Invariant: nothing shorter than [`SECRET_BYTES_MIN`] is looked for, and the longest form that
//! begins at a place is what is found there.

use std::collections::BTreeMap;

use aho_corasick::{AhoCorasick, MatchKind};
use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD};

use super::SECRET_BYTES_MIN;

/// Finds secrets.
pub(super) struct Matcher {
    automaton: Option<AhoCorasick>,
    needles: Vec<Needle>,
}

/// One form of a secret.
struct Needle {
    bytes: Vec<u8>,
    /// For each beginning of `bytes`, how long its longest end is that is a beginning as well.
    borders: Vec<usize>,
    /// What is shown in its place.
    mask: String,
}

/// A secret that was found.
pub(super) struct Found<'a> {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) mask: &'a str,
}

impl Matcher {
    /// Of labels and values. The first label of a form counts.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = (&'a str, &'a str)>) -> Self {
        let mut masks: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for (label, value) in secrets {
            for form in forms(value) {
                masks.entry(form).or_insert_with(|| format!("[masked:{label}]"));
            }
        }
        let mut builder = AhoCorasick::builder();
        let builder = builder.match_kind(MatchKind::LeftmostLongest);
        // It fails only beyond two thousand million bytes of secrets.
        let automaton = builder.build(masks.keys()).ok();
        let needles = masks.into_iter().map(|(bytes, mask)| {
            let borders = borders(&bytes);
            Needle { bytes, borders, mask }
        });
        Self { automaton, needles: needles.collect() }
    }

    /// The first secret in `text`.
    pub(super) fn find(&self, text: &[u8]) -> Option<Found<'_>> {
        let found = self.automaton.as_ref()?.find(text)?;
        let needle = self.needles.get(found.pattern().as_usize())?;
        Some(Found { start: found.start(), end: found.end(), mask: &needle.mask })
    }

    /// From where on `text` could be the beginning of a secret whose rest has yet to come; its
    /// length if nowhere.
    pub(super) fn live_from(&self, text: &[u8]) -> usize {
        let longest = self.needles.iter().map(|needle| needle.begun_by(text)).max();
        text.len() - longest.unwrap_or(0)
    }
}

impl Needle {
    /// The longest end of `text` that is a beginning of this, and not all of it.
    fn begun_by(&self, text: &[u8]) -> usize {
        let window = text.len().min(self.bytes.len().saturating_sub(1));
        let (_, end) = text.split_at(text.len() - window);
        end.iter().fold(0, |length, byte| extend(&self.bytes, &self.borders, length, *byte))
    }
}

/// How much of `bytes` is begun when `byte` follows on `length` bytes of it.
fn extend(bytes: &[u8], borders: &[usize], mut length: usize, byte: u8) -> usize {
    loop {
        if bytes.get(length) == Some(&byte) {
            return length + 1;
        }
        let Some(shorter) = length.checked_sub(1) else { return 0 };
        length = borders.get(shorter).copied().unwrap_or(0);
    }
}

fn borders(bytes: &[u8]) -> Vec<usize> {
    let mut borders = Vec::with_capacity(bytes.len());
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 {
            length = extend(bytes, &borders, length, *byte);
        }
        borders.push(length);
    }
    borders
}

/// Every form that is looked for.
fn forms(value: &str) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    let whole = [value, value.trim()];
    for text in whole.into_iter().chain(value.lines().map(str::trim)) {
        forms.push(text.as_bytes().to_vec());
        forms.push(percent(text, b"0123456789ABCDEF"));
        forms.push(percent(text, b"0123456789abcdef"));
        forms.push(json(text));
        forms.push(text.replace('\'', r"'\''").into_bytes());
        forms.push(backslashed(text, |c| !is_plain(c)));
        forms.push(backslashed(text, |c| matches!(c, '"' | '$' | '\\' | '`')));
    }
    for alignment in 0..3 {
        forms.extend(base64(value.as_bytes(), alignment));
    }
    forms.retain(|form| form.len() >= SECRET_BYTES_MIN);
    forms
}

/// As in a URL, with these digits.
fn percent(text: &str, digits: &[u8; 16]) -> Vec<u8> {
    let digit = |value: u8| digits.get(usize::from(value)).copied().unwrap_or(b'0');
    text.bytes()
        .flat_map(|byte| {
            let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let coded = [b'%', digit(byte >> 4), digit(byte & 15)];
            if plain { vec![byte] } else { coded.to_vec() }
        })
        .collect()
}

/// As within a JSON string.
fn json(text: &str) -> Vec<u8> {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let bare = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    bare.unwrap_or_default().as_bytes().to_vec()
}

fn backslashed(text: &str, escaped: impl Fn(char) -> bool) -> Vec<u8> {
    let chars = text.chars().flat_map(|c| escaped(c).then_some('\\').into_iter().chain([c]));
    chars.collect::<String>().into_bytes()
}

/// What `printf %q` leaves as it is.
fn is_plain(c: char) -> bool {
    c.is_alphanumeric() || "_-./:=@%+~".contains(c)
}

/// The part that is the same in whatever base64 has `bytes` in it, `alignment` bytes after a
/// multiple of three.
fn base64(bytes: &[u8], alignment: usize) -> [Vec<u8>; 2] {
    let mut padded = vec![0; alignment];
    padded.extend(bytes);
    // The first characters mix in what comes before, the last one what comes after.
    let skipped = (alignment * 8).div_ceil(6);
    let whole = padded.len() * 8 / 6;
    let part = |text: String| text.as_bytes().get(skipped..whole).unwrap_or_default().to_vec();
    [part(BASE64_NOPAD.encode(&padded)), part(BASE64URL_NOPAD.encode(&padded))]
}

#[cfg(test)]
mod tests {
    use data_encoding::{BASE64, BASE64URL};

    use super::*;

    const SECRET: &str = "p@ss/w0rd+'\"\\x y?~";

    fn finds(text: &str) -> bool {
        Matcher::new([("r/f", SECRET)].into_iter()).find(text.as_bytes()).is_some()
    }

    #[test]
    fn the_usual_encodings_are_found() {
        for text in [
            SECRET.to_owned(),
            "url=p%40ss%2Fw0rd%2B%27%22%5Cx%20y%3F~&".to_owned(),
            "url=p%40ss%2fw0rd%2b%27%22%5cx%20y%3f~&".to_owned(),
            serde_json::json!({ "key": SECRET }).to_string(),
            format!("export KEY='{}'", SECRET.replace('\'', r"'\''")),
            r#"p@ss/w0rd+\'\"\\x\ y\?~"#.to_owned(),
            r#"echo "p@ss/w0rd+'\"\\x y?~""#.to_owned(),
        ] {
            assert!(finds(&text), "{text}");
        }
        assert!(!finds("p@ss/w0rd"));
    }

    #[test]
    fn base64_is_found_whatever_stands_around_it() {
        for before in ["", "a", "ab", "abc", "user:"] {
            for after in ["", "z", "zz", "\n"] {
                let text = format!("{before}{SECRET}{after}");
                assert!(finds(&BASE64.encode(text.as_bytes())), "{text}");
                assert!(finds(&BASE64URL.encode(text.as_bytes())), "{text}");
            }
        }
    }

    #[test]
    fn each_line_of_a_key_is_a_secret_unless_it_is_short() {
        let matcher =
            Matcher::new([("r/key", "-----BEGIN-----\nMIIBVgIBADANBg\nabc\n")].into_iter());
        let found = matcher.find(b"xx MIIBVgIBADANBg yy").unwrap();
        assert_eq!((found.start, found.end, found.mask), (3, 17, "[masked:r/key]"));
        assert!(matcher.find(b"abc").is_none());
    }

    #[test]
    fn the_longest_form_at_a_place_is_found() {
        let pairs = [("r/short", "abcdefgh"), ("r/long", "abcdefghij")];
        let matcher = Matcher::new(pairs.into_iter());
        assert_eq!(matcher.find(b"abcdefghij").unwrap().mask, "[masked:r/long]");
        assert_eq!(matcher.find(b"abcdefghi").unwrap().mask, "[masked:r/short]");
    }

    #[test]
    fn a_beginning_at_the_end_is_live() {
        let matcher = Matcher::new([("r/f", "abababac")].into_iter());
        assert_eq!(matcher.live_from(b"xxabab"), 2);
        assert_eq!(matcher.live_from(b"xxababax"), 8);
        assert_eq!(matcher.live_from(b"ababababa"), 2);
        assert_eq!(matcher.live_from(b"xxa"), 2);
        assert_eq!(matcher.live_from(b""), 0);
        assert_eq!(Matcher::new(std::iter::empty()).live_from(b"abc"), 3);
    }
}
