//! When the broker's certificate ends.
//!
//! Invariant: it is read for people alone. That it holds was found out by the TLS library.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
/// The tag of a certificate's version, which those of the first version don't have.
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// This machine's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment(pub(super) OffsetDateTime);

impl Moment {
    #[expect(clippy::disallowed_methods, reason = "it is this machine's clock that is looked at")]
    pub(super) fn now() -> Self {
        Self(OffsetDateTime::from(std::time::SystemTime::now()))
    }
}

/// The end of a certificate's validity (RFC 5280 §4.1); none if it can't be read.
pub(super) fn not_after(der: &[u8]) -> Option<OffsetDateTime> {
    let certificate = expected(Reader(der).read(), SEQUENCE)?;
    let mut fields = Reader(expected(Reader(certificate).read(), SEQUENCE)?);
    let (first, _) = fields.read()?;
    if first == VERSION {
        // The serial number.
        fields.read()?;
    }
    // The algorithm, and the issuer.
    fields.read()?;
    fields.read()?;
    let mut validity = Reader(expected(fields.read(), SEQUENCE)?);
    validity.read()?;
    let (kind, text) = validity.read()?;
    instant(kind, text)
}

fn expected(found: Option<(u8, &[u8])>, tag: u8) -> Option<&[u8]> {
    found.filter(|(found, _)| *found == tag).map(|(_, content)| content)
}

fn instant(kind: u8, text: &[u8]) -> Option<OffsetDateTime> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (kind, text.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i32 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let two = |place: usize| rest.get(place..place + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
    let time = Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc())
}

/// Values of DER, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Its tag and its content.
    fn read(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, rest) = self.0.split_first()?;
        let (first, mut rest) = rest.split_first()?;
        let length = match *first {
            short @ 0..=0x7f => usize::from(short),
            long @ 0x81..=0x83 => {
                let (bytes, after) = rest.split_at_checked(usize::from(long & 0x7f))?;
                rest = after;
                bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte))
            }
            _ => return None,
        };
        let (content, after) = rest.split_at_checked(length)?;
        self.0 = after;
        Some((*tag, content))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn value(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match u8::try_from(content.len()) {
            Ok(length) if length < 0x80 => bytes.push(length),
            Ok(length) => bytes.extend([0x81, length]),
            Err(_) => {
                bytes.push(0x82);
                bytes.extend(u16::try_from(content.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(content);
        bytes
    }

    fn certificate(version: bool, end: (u8, &str)) -> Vec<u8> {
        let validity = [value(UTC_TIME, b"260101000000Z"), value(end.0, end.1.as_bytes())].concat();
        let mut fields = if version { value(VERSION, &value(2, &[2])) } else { Vec::new() };
        fields.extend(value(2, &[7; 20]));
        fields.extend(value(SEQUENCE, &[5; 10]));
        fields.extend(value(SEQUENCE, &[0x31; 300]));
        fields.extend(value(SEQUENCE, &validity));
        value(SEQUENCE, &[value(SEQUENCE, &fields), value(3, &[0; 70])].concat())
    }

    #[test]
    fn the_end_is_found_in_both_forms_of_time() {
        let end = datetime!(2027-03-01 12:30:59 UTC);
        for version in [true, false] {
            let utc = certificate(version, (UTC_TIME, "270301123059Z"));
            assert_eq!(not_after(&utc), Some(end));
            let general = certificate(version, (GENERALIZED_TIME, "20270301123059Z"));
            assert_eq!(not_after(&general), Some(end));
        }
        let old = certificate(true, (UTC_TIME, "990301123059Z"));
        assert_eq!(not_after(&old), Some(datetime!(1999-03-01 12:30:59 UTC)));
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let good = certificate(true, (UTC_TIME, "270301123059Z"));
        for length in 0..400 {
            assert_eq!(not_after(&good[..length]), None, "{length}");
        }
        for bad in ["270301123059", "27030112305Z", "271301123059Z", "2703011230+9Z", "\u{e9}Z"] {
            assert_eq!(not_after(&certificate(true, (UTC_TIME, bad))), None, "{bad}");
        }
    }
}
