//! Client certificates in the handshake of our own listener.
//!
//! Invariant: a connection with a certificate is made only if the bundle of the trust domain
//! that it names vouches for it now. That is asked again at every request, since connections
//! outlive certificates and bundles.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{
        WebPkiSupportedAlgorithms, ring::default_provider, verify_tls12_signature,
        verify_tls13_signature,
    },
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{super::Rejection, TrustDomains};

/// Asks clients for an X.509-SVID, and lets those in that show none: they have a bearer.
#[derive(Debug)]
pub(crate) struct SvidVerifier {
    trust: Arc<TrustDomains>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl SvidVerifier {
    pub(crate) fn new(trust: Arc<TrustDomains>) -> Self {
        Self { trust, algorithms: default_provider().signature_verification_algorithms }
    }
}

impl ClientCertVerifier for SvidVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: which authorities there are changes while we run, and clients send what they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        signers: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let chain: Vec<_> = std::iter::once(leaf).chain(signers).cloned().collect();
        match self.trust.vouch_now(&chain) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(rejection) => Err(CertificateError::Other(OtherError(Arc::new(rejection))).into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a handshake failed, when that was the client's certificate: it was refused, or whoever
/// showed it has not the key to it.
pub fn certificate_refusal(error: &io::Error) -> Option<Rejection> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(why) = error else { return None };
    if let CertificateError::Other(OtherError(why)) = why
        && let Some(rejection) = why.downcast_ref::<Rejection>()
    {
        return Some(*rejection);
    }
    // What the verifier above refuses has a reason of ours, so this is of the client's
    // signature over the handshake.
    let is_forged = matches!(why, CertificateError::BadSignature);
    let other = Rejection::certificate("the handshake does not hold");
    Some(if is_forged { Rejection::BadSignature } else { other })
}
