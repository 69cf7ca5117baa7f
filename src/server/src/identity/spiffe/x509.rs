//! X.509-SVIDs: which certificate names a workload, and which may sign for it.
//!
//! Invariant: the library that reads names and uses decides nothing about signatures, and the
//! one that verifies chains (rustls) nothing about names. Both must read a certificate, and
//! what either cannot read is a refusal.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use dayfly_backend_sdk::Timestamp;
use ring::digest;
use rustls::{
    CertificateError, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, KeyUsage, ParsedExtension},
    parse_x509_certificate,
    public_key::PublicKey,
};

use super::{
    super::{Rejection, strength},
    config::TrustDomainConfig,
    id::SpiffeId,
};

/// The most certificates that are looked at: a workload's own and those above it. Whoever has
/// got no further than a handshake decides how many signatures we verify.
const CHAIN_LEN_MAX: usize = 4;

/// What a certificate says of its workload. Nobody has verified the chain yet.
#[derive(Debug)]
pub(crate) struct UnverifiedSvid {
    pub(crate) id: SpiffeId,
    /// `notBefore`: it says nothing else of when it was issued. Authorities date it back, by
    /// minutes at most, so that it seems older than it is and never younger.
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    /// Hex SHA-256 of the certificate.
    pub(crate) hash: String,
}

impl UnverifiedSvid {
    /// Reads the first certificate as a workload's and the others as signing ones, by the
    /// rules of the X.509-SVID specification (sections 2 to 5).
    pub(crate) fn read(chain: &[CertificateDer<'_>]) -> Result<Self, Rejection> {
        let none = Rejection::certificate("there is none");
        let (leaf, signers) = chain.split_first().ok_or(none)?;
        if chain.len() > CHAIN_LEN_MAX {
            return Err(Rejection::certificate("the chain is too long"));
        }
        let mut names = BTreeSet::new();
        for signer in signers {
            let signer = parsed(signer)?;
            check_signer(&signer)?;
            // With names told apart there is one way up, and no signature is tried twice.
            if !names.insert(signer.subject().as_raw().to_vec()) {
                return Err(Rejection::certificate("two signing ones have one name"));
            }
        }
        let certificate = parsed(leaf)?;
        check_leaf(&certificate)?;
        let id = id_of(&certificate)?;
        let hash = digest::digest(&digest::SHA256, leaf);
        let validity = certificate.validity();
        Ok(Self {
            id,
            issued_at: Timestamp::from_seconds(validity.not_before.timestamp()),
            expires_at: Timestamp::from_seconds(validity.not_after.timestamp()),
            hash: HEXLOWER.encode(hash.as_ref()),
        })
    }

    /// Holds it against the trust domain's rules. Call it after the chain held: a cut-off is
    /// remembered for as long as a certificate from before it could be shown.
    pub(crate) fn check(&self, rules: &TrustDomainConfig) -> Result<(), Rejection> {
        if self.expires_at.since(self.issued_at) > rules.certificate_life_max() {
            return Err(Rejection::certificate(
                "it is valid for longer than its trust domain's `certificate_age_max`",
            ));
        }
        Ok(())
    }
}

/// One that a trust domain's bundle lets sign.
#[derive(Debug)]
pub(crate) struct Authority {
    not_before: Timestamp,
    not_after: Timestamp,
    /// As the certificate has it.
    name: Vec<u8>,
    /// How many others may stand between it and a workload, if it says so.
    signers_max: Option<u32>,
    /// Knows this authority and no other.
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Authority {
    /// Reads a certificate of a bundle.
    pub(crate) fn new(der: &CertificateDer<'_>) -> Result<Self, Rejection> {
        let certificate = parsed(der)?;
        check_signer(&certificate)?;
        let validity = certificate.validity();
        let mut roots = RootCertStore::empty();
        let unreadable = Rejection::certificate("it cannot be read");
        roots.add(der.clone()).map_err(|_| unreadable)?;
        let provider = Arc::new(default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self {
            not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
            not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
            name: certificate.subject().as_raw().to_vec(),
            signers_max: signers_max(&certificate)?,
            verifier: verifier.build().map_err(|_| unreadable)?,
        })
    }

    /// Whether it signed the first of `chain`, directly or through others of it, with each of
    /// them valid `now`.
    pub(crate) fn vouches(
        &self,
        chain: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<(), Rejection> {
        // The library takes an authority on trust and does not look at its times.
        if now < self.not_before || now > self.not_after {
            return Err(Rejection::UnknownKey);
        }
        let (leaf, signers) = chain.split_first().ok_or(Rejection::UnknownKey)?;
        let seconds = u64::try_from(now.seconds()).unwrap_or(0);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        self.verifier.verify_client_cert(leaf, signers, at).map_err(|error| why(&error))?;
        self.check_len(signers)
    }

    /// The library does not look at how long a chain an authority allows either. Sent along, the
    /// authority itself does not count.
    fn check_len(&self, signers: &[CertificateDer<'_>]) -> Result<(), Rejection> {
        let Some(most) = self.signers_max else { return Ok(()) };
        let mut between = 0;
        for signer in signers {
            between += u32::from(parsed(signer)?.subject().as_raw() != self.name.as_slice());
        }
        if between > most {
            return Err(Rejection::certificate("the chain is longer than its authority allows"));
        }
        Ok(())
    }
}

/// Authorities keep their subject when their key changes, so a signature that does not hold
/// means, as often as not, an authority that we do not know yet.
fn why(error: &rustls::Error) -> Rejection {
    let rustls::Error::InvalidCertificate(error) = error else {
        return Rejection::certificate("the chain does not hold");
    };
    if matches!(error, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
        Rejection::UnknownKey
    } else if matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }) {
        Rejection::Expired
    } else if matches!(
        error,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }
    ) {
        Rejection::NotYetValid
    } else if matches!(
        error,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. }
    ) {
        Rejection::certificate("it is not for clients")
    } else {
        Rejection::certificate("the chain does not hold")
    }
}

fn parsed<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Rejection> {
    let unreadable = Rejection::certificate("it cannot be read");
    let (rest, certificate) = parse_x509_certificate(der).map_err(|_| unreadable)?;
    // The library answers that a constraint is not there when it cannot read it.
    let is_unread = certificate.iter_extensions().any(|extension| {
        matches!(extension.parsed_extension(), ParsedExtension::ParseError { .. })
    });
    if !rest.is_empty() || is_unread {
        return Err(unreadable);
    }
    if !has_strong_key(&certificate) {
        return Err(Rejection::certificate("its key is weak"));
    }
    Ok(certificate)
}

/// Other keys than RSA ones are of the few curves that rustls verifies with.
fn has_strong_key(certificate: &X509Certificate<'_>) -> bool {
    let Ok(key) = certificate.public_key().parsed() else { return false };
    let PublicKey::RSA(key) = key else { return true };
    let [modulus, exponent] = [key.modulus, key.exponent].map(without_zeros);
    strength::rsa_is_strong(&modulus, &exponent)
}

fn without_zeros(integer: &[u8]) -> Vec<u8> {
    integer.iter().copied().skip_while(|byte| *byte == 0).collect()
}

fn check_leaf(certificate: &X509Certificate<'_>) -> Result<(), Rejection> {
    if is_ca(certificate)? {
        return Err(Rejection::certificate("it is an authority's"));
    }
    let usage = usage(certificate)?;
    if !usage.critical {
        return Err(Rejection::certificate("its key usage is not critical"));
    }
    if !usage.value.digital_signature() {
        return Err(Rejection::certificate("its key is not for signing"));
    }
    if usage.value.key_cert_sign() || usage.value.crl_sign() {
        return Err(Rejection::certificate("its key may sign for others"));
    }
    Ok(())
}

fn check_signer(certificate: &X509Certificate<'_>) -> Result<(), Rejection> {
    if !is_ca(certificate)? {
        return Err(Rejection::certificate("a signing one is not an authority's"));
    }
    if !usage(certificate)?.value.key_cert_sign() {
        return Err(Rejection::certificate("the key of a signing one is not for that"));
    }
    Ok(())
}

fn is_ca(certificate: &X509Certificate<'_>) -> Result<bool, Rejection> {
    let twice = Rejection::certificate("it has an extension twice");
    let constraints = certificate.basic_constraints().map_err(|_| twice)?;
    Ok(constraints.is_some_and(|constraints| constraints.value.ca))
}

fn signers_max(certificate: &X509Certificate<'_>) -> Result<Option<u32>, Rejection> {
    let twice = Rejection::certificate("it has an extension twice");
    let constraints = certificate.basic_constraints().map_err(|_| twice)?;
    Ok(constraints.and_then(|constraints| constraints.value.path_len_constraint))
}

/// Its key usage and whether that is critical.
struct Usage {
    critical: bool,
    value: KeyUsage,
}

fn usage(certificate: &X509Certificate<'_>) -> Result<Usage, Rejection> {
    let twice = Rejection::certificate("it has an extension twice");
    let usage = certificate.key_usage().map_err(|_| twice)?;
    let usage = usage.ok_or(Rejection::certificate("it has no key usage"))?;
    Ok(Usage { critical: usage.critical, value: *usage.value })
}

/// The SPIFFE ID of a workload's certificate: its one URI, which must be one. With two, each
/// reader could see another workload.
fn id_of(certificate: &X509Certificate<'_>) -> Result<SpiffeId, Rejection> {
    let twice = Rejection::certificate("it has an extension twice");
    let names = certificate.subject_alternative_name().map_err(|_| twice)?;
    let names = names.ok_or(Rejection::certificate("it has no URI"))?;
    let mut uris = Vec::new();
    for name in &names.value.general_names {
        if matches!(name, GeneralName::Invalid(..)) {
            return Err(Rejection::certificate("a name cannot be read"));
        }
        if let GeneralName::URI(uri) = name {
            uris.push(*uri);
        }
    }
    let uri = match uris.as_slice() {
        [] => return Err(Rejection::certificate("it has no URI")),
        [uri] => *uri,
        [..] => return Err(Rejection::certificate("it has several URIs")),
    };
    let not_an_id = Rejection::certificate("its URI is not a SPIFFE ID");
    let id = SpiffeId::parse(uri).map_err(|_| not_an_id)?;
    if id.segments().is_empty() {
        return Err(Rejection::certificate("its SPIFFE ID names no workload"));
    }
    Ok(id)
}
