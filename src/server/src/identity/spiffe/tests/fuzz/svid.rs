//! The fuzz target `x509_svid`: chains of certificates as somebody could show them, some of them
//! signed by whoever has the key.
//!
//! What is accepted is read again here, element by element and with none of the libraries that
//! decided.

use data_encoding::HEXLOWER;
use dayfly_backend_sdk::Timestamp;
use ring::{
    digest,
    signature::{ED25519, UnparsedPublicKey},
};
use rustls::pki_types::CertificateDer;

use super::{
    super::{
        DOMAIN, Desk, Wanted,
        pki::{CERT_SIGN, CRL_SIGN, DIGITAL_SIGNATURE, Seeded},
    },
    WEB, is_legal,
};
use crate::{
    fuzz::{self, Dice, Element, Target, change_der},
    identity::{
        Rejection, install_crypto,
        spiffe::x509::{Authority, UnverifiedSvid},
        tests::kit::NOW,
    },
};

/// [`NOW`], as a certificate writes it.
const NOW_TEXT: &str = "20260921141320Z";

type Admit = fn(&Authority, &[CertificateDer<'_>]) -> Result<UnverifiedSvid, Rejection>;

/// An authority, another one below it, and who is admitted.
struct Svids {
    top: Seeded,
    middle: Seeded,
    authority: Authority,
    /// Ours, or one with a planted weakness.
    admit: Admit,
}

impl Svids {
    fn new(admit: Admit) -> Self {
        install_crypto();
        let top = Seeded::new("top", 7);
        let middle = top.below("middle", 8);
        let authority = Authority::new(&top.certificate).unwrap();
        Self { top, middle, authority, admit }
    }

    /// What must hold of a chain that names a workload, checked without any of our code.
    fn holds(&self, chain: &[CertificateDer<'_>], svid: &UnverifiedSvid) {
        let leaf = Seen::read(&chain[0]).expect("the leaf is made of elements");
        let signed = |seen: &Seen<'_>, by: &Seeded| {
            let key = UnparsedPublicKey::new(&ED25519, by.key());
            key.verify(seen.signed, seen.signature).is_ok()
        };
        let signers: Vec<Seen<'_>> =
            chain[1..].iter().filter_map(|signer| Seen::read(signer)).collect();
        let by_middle = || {
            let vouched = |signer: &Seen<'_>| signed(signer, &self.top) && signer.may_sign();
            signed(&leaf, &self.middle) && signers.iter().any(vouched)
        };
        assert!(signed(&leaf, &self.top) || by_middle(), "nobody signed it");
        let id = svid.id.as_str();
        assert_eq!(leaf.uris(), [id.as_bytes()], "it has another URI, or several");
        assert!(!leaf.is_authority(), "it is an authority's");
        let [usage] = leaf.of(15)[..] else { panic!("it has not one key usage") };
        let bits = usage.bits();
        assert!(usage.critical, "its key usage is not critical");
        assert_eq!(bits & (DIGITAL_SIGNATURE | CERT_SIGN | CRL_SIGN), DIGITAL_SIGNATURE);
        let [from, until] = &leaf.times;
        assert!(from.as_str() <= NOW_TEXT && NOW_TEXT <= until.as_str(), "{from} to {until}");
        assert_eq!(Some(svid.expires_at), instant(until), "it ends at {until}");
        let hash = digest::digest(&digest::SHA256, &chain[0]);
        assert_eq!(svid.hash, HEXLOWER.encode(hash.as_ref()));
    }
}

/// A certificate, as its elements say.
struct Seen<'c> {
    signed: &'c [u8],
    signature: &'c [u8],
    /// From when until when, `20260921141320Z`.
    times: [String; 2],
    extensions: Vec<Extension<'c>>,
}

#[derive(Clone, Copy)]
struct Extension<'c> {
    id: &'c [u8],
    critical: bool,
    value: &'c [u8],
}

impl<'c> Seen<'c> {
    fn read(certificate: &'c [u8]) -> Option<Self> {
        let (outer, rest) = Element::first(certificate)?;
        let parts = Element::all(outer.content).filter(|_| rest.is_empty())?;
        let [body, _, signature] = <[_; 3]>::try_from(parts).ok()?;
        // A version, a serial number, an algorithm, an issuer, then the times.
        let parts = Element::all(body.content)?;
        let [from, until] = <[_; 2]>::try_from(Element::all(parts.get(4)?.content)?).ok()?;
        let mut extensions = Vec::new();
        if let Some(wrapped) = parts.iter().find(|part| part.tag == [0xa3]) {
            let (list, _) = Element::first(wrapped.content)?;
            for extension in Element::all(list.content)? {
                extensions.push(Extension::read(&extension)?);
            }
        }
        Some(Self {
            signed: body.whole,
            signature: signature.content.get(1..)?,
            times: [time(&from)?, time(&until)?],
            extensions,
        })
    }

    /// The extensions `2.5.29.last`.
    fn of(&self, last: u8) -> Vec<Extension<'c>> {
        let own = |extension: &&Extension<'c>| extension.id == [0x55, 0x1d, last];
        self.extensions.iter().filter(own).copied().collect()
    }

    /// The URIs of all alternative names.
    fn uris(&self) -> Vec<&'c [u8]> {
        let mut uris = Vec::new();
        for names in self.of(17) {
            let (list, _) = Element::first(names.value).expect("names");
            let names = Element::all(list.content).expect("names");
            uris.extend(names.iter().filter(|name| name.number() == 6).map(|name| name.content));
        }
        uris
    }

    fn is_authority(&self) -> bool {
        self.of(19).iter().any(|constraints| {
            let (list, _) = Element::first(constraints.value).expect("constraints");
            let says = Element::first(list.content);
            says.is_some_and(|(ca, _)| ca.tag == [0x01] && ca.content != [0])
        })
    }

    fn may_sign(&self) -> bool {
        self.is_authority() && self.of(15).iter().any(|usage| usage.bits() & CERT_SIGN != 0)
    }
}

impl<'c> Extension<'c> {
    fn read(extension: &Element<'c>) -> Option<Self> {
        let parts = Element::all(extension.content)?;
        match parts.as_slice() {
            [id, value] => Some(Self { id: id.content, critical: false, value: value.content }),
            [id, critical, value] => {
                let critical = critical.content != [0];
                Some(Self { id: id.content, critical, value: value.content })
            }
            _ => None,
        }
    }

    /// The first byte of the bits that it holds.
    fn bits(&self) -> u8 {
        let (bits, _) = Element::first(self.value).expect("bits");
        bits.content.get(1).copied().unwrap_or_default()
    }
}

/// `20260921141320Z`, also of a time that has two digits for its year.
fn time(element: &Element<'_>) -> Option<String> {
    let text = std::str::from_utf8(element.content).ok()?;
    let century = match (element.tag, text < "50") {
        ([0x17], true) => "20",
        ([0x17], false) => "19",
        _ => "",
    };
    Some(format!("{century}{text}"))
}

fn instant(text: &str) -> Option<Timestamp> {
    let part = |from: usize, until: usize| text.get(from..until);
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(8, 10)?, part(10, 12)?, part(12, 14)?);
    Timestamp::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z"))
}

/// The certificates that stand one behind the other; what is none is one all the same.
fn chain(input: &[u8]) -> Vec<CertificateDer<'_>> {
    match Element::all(input) {
        Some(all) if !all.is_empty() => {
            all.iter().map(|one| CertificateDer::from(one.whole)).collect()
        }
        Some(_) | None => vec![CertificateDer::from(input)],
    }
}

impl Target for Svids {
    const NAME: &'static str = "x509_svid";
    const ROUNDS: u64 = 6_000;

    fn corpus(&self) -> Vec<Vec<u8>> {
        let workload = Wanted::workload(&[WEB]);
        let past = Wanted {
            from: "20200101000000Z",
            until: "20200102000000Z",
            ..Wanted::workload(&[WEB])
        };
        let leaf = |wanted: &Wanted| self.top.sign(wanted).to_vec();
        let by_workload = self.middle.sign(&workload);
        vec![
            leaf(&workload),
            leaf(&Wanted { dns: Some("web.example.org".to_owned()), ..workload.clone() }),
            leaf(&Wanted::workload(&[WEB, "https://example.org"])),
            leaf(&Wanted::workload(&["spiffe://example.org"])),
            leaf(&Wanted { ca: true, usage: Some(CERT_SIGN), ..workload.clone() }),
            leaf(&Wanted { usage_critical: false, ..workload.clone() }),
            leaf(&past),
            [by_workload.as_ref(), self.middle.certificate.as_ref()].concat(),
            by_workload.to_vec(),
            self.top.certificate.to_vec(),
        ]
    }

    fn reshaped(&self, input: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
        let all = Element::all(input)?;
        let at = if dice.one_in(3) { dice.below(all.len()) } else { 0 };
        let parts = Element::all(all.get(at)?.content)?;
        let body = change_der(parts.first()?.whole, dice)?;
        let below = at == 0 && all.len() > 1 && !dice.one_in(8);
        let signer = if below { &self.middle } else { &self.top };
        let mut sealed = signer.seal(&body).to_vec();
        if let Some(last) = sealed.last_mut().filter(|_| dice.one_in(8)) {
            *last ^= 1;
        }
        let mut chain: Vec<&[u8]> = all.iter().map(|one| one.whole).collect();
        chain[at] = &sealed;
        Some(chain.concat())
    }

    fn attempt(&self, input: &[u8]) -> String {
        let chain = chain(input);
        if let Ok(svid) = UnverifiedSvid::read(&chain) {
            let id = svid.id.as_str();
            assert!(is_legal(id) && !svid.id.segments().is_empty(), "{id:?} is no workload");
        }
        match (self.admit)(&self.authority, &chain) {
            Ok(svid) => {
                self.holds(&chain, &svid);
                let segments = svid.id.segments().len().min(4);
                format!("accepted: {} certificates, {segments} segments", chain.len())
            }
            Err(rejection) => format!("refused: {rejection:?}"),
        }
    }
}

fn ours(authority: &Authority, chain: &[CertificateDer<'_>]) -> Result<UnverifiedSvid, Rejection> {
    let svid = UnverifiedSvid::read(chain)?;
    authority.vouches(chain, Timestamp::from_seconds(NOW))?;
    Ok(svid)
}

#[test]
fn a_certificate_names_a_workload_only_if_it_was_signed_for_it() {
    let report = fuzz::run(&Svids::new(ours));
    for place in [
        "accepted: 1 certificates, 4",
        "accepted: 2 certificates, 4",
        "refused: UnknownKey",
        "refused: Expired",
        "refused: Certificate { why: \"it has several URIs\" }",
        "refused: Certificate { why: \"it is an authority's\" }",
        "refused: Certificate { why: \"its key usage is not critical\" }",
    ] {
        assert!(report.reached(place), "{place}: {report:?}");
    }
}

/// Takes every signature for a good one of the authority's.
fn unsigned(
    authority: &Authority,
    chain: &[CertificateDer<'_>],
) -> Result<UnverifiedSvid, Rejection> {
    let svid = UnverifiedSvid::read(chain)?;
    let leaf = Seen::read(&chain[0]).ok_or(Rejection::BadSignature)?;
    let signed = Seeded::new("top", 7).seal(leaf.signed);
    authority.vouches(&[signed], Timestamp::from_seconds(NOW))?;
    Ok(svid)
}

/// Asks whether a certificate was good in its first second.
fn timeless(
    authority: &Authority,
    chain: &[CertificateDer<'_>],
) -> Result<UnverifiedSvid, Rejection> {
    let svid = UnverifiedSvid::read(chain)?;
    let from = Seen::read(&chain[0]).and_then(|seen| instant(&seen.times[0]));
    authority.vouches(chain, from.unwrap_or(svid.expires_at))?;
    Ok(svid)
}

#[test]
fn a_certificate_that_is_not_verified_or_not_of_today_is_found() {
    let planted: [(Admit, &str); 2] =
        [(unsigned, "nobody signed it"), (timeless, "20200101000000Z to 20200102000000Z")];
    for (admit, expected) in planted {
        let found = fuzz::finding(&Svids::new(admit)).unwrap_or_default();
        assert!(found.contains(expected), "{expected}: {found}");
    }
}

/// One bit is enough for a signature not to hold: what is still accepted is the same workload.
#[tokio::test]
async fn a_changed_certificate_is_never_another_workload() {
    let desk = Desk::new().await;
    let good = desk.authority.sign(&Wanted::workload(&[WEB]));
    for at in 0..good.len() {
        let mut bytes = good.to_vec();
        bytes[at] ^= 1;
        if let Ok(principal) = desk.show(&[bytes.into()]).await {
            assert_eq!((principal.issuer.as_str(), principal.subject.as_str()), (DOMAIN, WEB));
        }
    }
}
