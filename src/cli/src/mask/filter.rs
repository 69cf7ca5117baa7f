//! Replaces secrets in a stream that comes in pieces.
//!
//! Invariant: the pieces make no difference: what comes out is what would come out if all of the
//! stream were one piece. Only what may be the beginning of a secret is ever held back.

use super::needles::Matcher;

/// One stream's state.
#[derive(Debug, Default)]
pub(super) struct Filter {
    held: Vec<u8>,
}

impl Filter {
    /// Whether something waits for what follows.
    pub(super) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes a piece, and appends to `out` what is certain.
    pub(super) fn push(&mut self, matcher: &Matcher, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        self.release(matcher, false, out);
    }

    /// Appends all of the rest: nothing follows, or it takes too long.
    pub(super) fn flush(&mut self, matcher: &Matcher, out: &mut Vec<u8>) {
        self.release(matcher, true, out);
    }

    fn release(&mut self, matcher: &Matcher, is_last: bool, out: &mut Vec<u8>) {
        let text = std::mem::take(&mut self.held);
        let rest = |from: usize| text.get(from..).unwrap_or_default();
        let live_from = |at: usize| {
            if is_last { text.len() } else { at + matcher.live_from(rest(at)) }
        };
        let (mut at, mut live) = (0, live_from(0));
        loop {
            // A longer secret could begin where the end may be the beginning of one; before that
            // place, what is found is final.
            let found = matcher.find(rest(at)).filter(|found| at + found.start < live);
            let until = found.as_ref().map_or(live, |found| at + found.start);
            out.extend_from_slice(text.get(at..until).unwrap_or_default());
            let Some(found) = found else { break };
            out.extend_from_slice(found.mask.as_bytes());
            at += found.end;
            if at > live {
                live = live_from(at);
            }
        }
        self.held.extend_from_slice(rest(live));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRETS: [(&str, &str); 5] = [
        ("r/password", "hunter2-secret"),
        ("r/url", "pg://u:hunter2-secret@h/d"),
        ("r/border", "ababababc"),
        ("r/inner", "babababa"),
        ("r/overlap", "secret@h/dababab"),
    ];

    fn matcher() -> Matcher {
        Matcher::new(SECRETS.into_iter())
    }

    fn filtered(pieces: &[&[u8]]) -> Vec<u8> {
        let (matcher, mut filter, mut out) = (matcher(), Filter::default(), Vec::new());
        for piece in pieces {
            filter.push(&matcher, piece, &mut out);
        }
        filter.flush(&matcher, &mut out);
        assert!(!filter.holds());
        out
    }

    /// Text in which secrets overlap, are cut, repeat, and stand at both ends.
    const TEXTS: [&str; 9] = [
        "hunter2-secret",
        "a hunter2-secret b hunter2-secre hunter2-secret",
        "pg://u:hunter2-secret@h/d pg://u:hunter2-secret@h/x",
        "pg://u:hunter2-secret@h/dababab",
        "xabababababc ababababab abababab",
        "hunter2-hunter2-secretabababababc",
        "aHVudGVyMi1zZWNyZXQ= hunter2%2Dsecret",
        "nothing at all\nto hide\n",
        "",
    ];

    #[test]
    fn secrets_are_replaced_by_their_labels() {
        let shown = |text: &str| String::from_utf8(filtered(&[text.as_bytes()])).unwrap();
        assert_eq!(shown(TEXTS[1]), "a [masked:r/password] b hunter2-secre [masked:r/password]");
        assert_eq!(shown(TEXTS[2]), "[masked:r/url] pg://u:[masked:r/password]@h/x");
        assert_eq!(shown(TEXTS[3]), "[masked:r/url]ababab");
        assert_eq!(shown(TEXTS[5]), "hunter2-[masked:r/password]a[masked:r/inner]bc");
        assert_eq!(shown(TEXTS[7]), TEXTS[7]);
    }

    #[test]
    fn no_secret_comes_out_of_any_of_it() {
        for text in TEXTS {
            let out = String::from_utf8(filtered(&[text.as_bytes()])).unwrap();
            for (_, secret) in SECRETS {
                assert!(!out.contains(secret), "{secret} in {out}");
            }
        }
    }

    #[test]
    fn two_cuts_anywhere_make_no_difference() {
        for text in TEXTS {
            let whole = filtered(&[text.as_bytes()]);
            for first in 0..=text.len() {
                for second in first..=text.len() {
                    let (a, rest) = text.as_bytes().split_at(first);
                    let (b, c) = rest.split_at(second - first);
                    assert_eq!(filtered(&[a, b, c]), whole, "{text}: {first}, {second}");
                }
            }
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(filtered(&bytes), whole, "{text}: byte by byte");
        }
    }

    /// Streams made of the secrets' own pieces, cut at random.
    #[test]
    fn random_streams_in_random_pieces_come_out_the_same() {
        let mut state = 0x9e37_79b9_u32;
        let mut next = |below: usize| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            usize::try_from(state).unwrap() % below
        };
        for _ in 0..400 {
            let mut text = Vec::new();
            for _ in 0..next(12) {
                let secret = SECRETS[next(SECRETS.len())].1.as_bytes();
                let (from, to) = (next(secret.len()), next(secret.len() + 1));
                text.extend(if next(3) == 0 { secret } else { &secret[from.min(to)..to] });
            }
            let whole = filtered(&[&text]);
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = text.as_slice();
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(1 + next(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            assert_eq!(filtered(&pieces), whole, "{pieces:?}");
        }
    }

    #[test]
    fn what_is_no_secret_passes_byte_for_byte_and_at_once() {
        let binary: Vec<u8> = (0..=255_u8).cycle().take(100_000).collect();
        let (matcher, mut filter, mut out) = (matcher(), Filter::default(), Vec::new());
        for piece in binary.chunks(777) {
            filter.push(&matcher, piece, &mut out);
        }
        filter.flush(&matcher, &mut out);
        assert!(out == binary);
        out.clear();
        filter.push(&matcher, b"Password: ", &mut out);
        assert_eq!((out.as_slice(), filter.holds()), (b"Password: ".as_slice(), false));
        filter.push(&matcher, b"hunt", &mut out);
        assert!(filter.holds());
    }
}
