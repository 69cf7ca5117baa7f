//! Changes of bytes, whatever they mean, and of what means something to some reader.

use super::Dice;

/// What is put in, or in the place of something.
const WORDS: &[&[u8]] = &[
    // JSON: its marks, escapes, and texts that end elsewhere than they seem to.
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"true",
    b"\"\":",
    b"\\\"",
    b"\\n",
    b"\\/",
    b"\\u0000",
    b"\\u0061",
    b"\\u002e",
    b"\\ud800",
    b"\\udc00\\ud800",
    b"{}",
    b"[]",
    b"{\"a\":1,\"a\":2}",
    b"/*",
    b"//",
    b"NaN",
    b"'",
    b"\xef\xbb\xbf",
    b"\xc0\xaf",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xe2\x80\xa8",
    b"\xc3\xa9",
    // base64url and its neighbours.
    b"=",
    b"==",
    b"+",
    b"/",
    b"-",
    b"_",
    b".",
    b"..",
    b"A",
    b"AA",
    b"AAAA",
    b"B",
    b"9",
    b"eyJ",
    // DER: tags and lengths.
    b"\x00",
    b"\x01",
    b"\x02",
    b"\x04",
    b"\x05\x00",
    b"\x06",
    b"\x30",
    b"\x30\x80",
    b"\x30\x00",
    b"\x7f",
    b"\x80",
    b"\x81",
    b"\x82",
    b"\x83",
    b"\x84",
    b"\x84\xff\xff\xff\xff",
    b"\x86",
    b"\xa0",
    b"\xa3",
    b"\x88\x7f\xff\xff\xff\xff\xff\xff\xff",
    // URLs, paths and headers.
    b"%2e",
    b"%2F",
    b"%00",
    b"%",
    b"@",
    b"?",
    b"#",
    b"//",
    b"/./",
    b"/../",
    b"spiffe://",
    b"https://",
    b"\r\n",
    b"\n",
    b"\n\n",
    b"\0",
    b" ",
    b"  ",
    b"\t",
    b";",
    b"host",
    b"Host: x\r\n",
    b"authorization",
    b"content-length",
    b"transfer-encoding",
    b"x-dayfly-server-id",
    b"x-amz-date",
    b"x-hub-signature-256",
    b"x-gitlab-token",
    b"webhook-signature",
    b"sha256=",
    b"v1,",
    b", Signature=",
    b", SignedHeaders=",
    b"Credential=",
    // Algorithms and keys.
    b"none",
    b"None",
    b"HS256",
    b"RS256",
    b"ES256",
    b"EdDSA",
    b"oct",
    b"P-256",
    b"jwk",
    b"crit",
];

/// What is put in the place of a number.
const NUMBERS: &[&[u8]] = &[
    b"0",
    b"-0",
    b"-1",
    b"1",
    b"00",
    b"1.0",
    b"1e0",
    b"1e400",
    b"-1e-400",
    b"255",
    b"256",
    b"65536",
    b"2147483648",
    b"4294967296",
    b"9007199254740993",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775809",
    b"18446744073709551615",
    b"18446744073709551616",
    b"253402300799",
    b"253402300800",
    b"1790000000",
    b"1790000300",
    b"1789999699",
];

/// Changes one thing. `other` is another input, to take parts of.
pub(crate) fn change(bytes: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    let at = dice.below(bytes.len() + 1);
    let range = dice.range(bytes.len());
    match dice.below(13) {
        0 => {
            if let Some(byte) = bytes.get_mut(range.start) {
                *byte ^= 1_u8 << dice.below(8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(range.start) {
                *byte = dice.byte();
            }
        }
        2 => insert(bytes, at, &[dice.byte()]),
        3 => drop(bytes.drain(range)),
        4 => {
            let again = bytes[range].to_vec();
            insert(bytes, at, &again);
        }
        5 => {
            let from = dice.below(other.len() + 1);
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
        6 => insert(bytes, at, &other[dice.range(other.len())]),
        7 => bytes.truncate(at),
        8 => {
            // To beyond every limit on a text, and on most inputs.
            let times = 1_usize << dice.below(13);
            let again = bytes[range].repeat(times);
            insert(bytes, at, &again);
        }
        9 | 10 => {
            let word: &&[u8] = dice.pick(WORDS);
            insert(bytes, at, word);
        }
        11 => drop(bytes.splice(range, dice.pick(WORDS).iter().copied())),
        _ => change_number(bytes, dice),
    }
}

fn insert(bytes: &mut Vec<u8>, at: usize, more: &[u8]) {
    drop(bytes.splice(at..at, more.iter().copied()));
}

/// Puts another number in the place of one that stands there.
fn change_number(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let from = dice.below(bytes.len());
    let Some(start) = bytes[from..].iter().position(is_digit).map(|after| from + after) else {
        return;
    };
    let len = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
    drop(bytes.splice(start..start + len, dice.pick(NUMBERS).iter().copied()));
}
