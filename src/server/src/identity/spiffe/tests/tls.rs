//! What a handshake that failed says of the client's certificate.

use std::{io, sync::Arc};

use rustls::{CertificateError, Error, OtherError, PeerMisbehaved};

use crate::identity::{Rejection, certificate_refusal};

#[test]
fn a_handshake_fails_over_a_certificate_that_is_refused_or_that_is_anothers() {
    let because = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
    let ours = CertificateError::Other(OtherError(Arc::new(Rejection::UnknownTrustDomain)));
    let theirs = CertificateError::Other(OtherError(Arc::new(io::Error::other("else"))));
    let other = Rejection::certificate("the handshake does not hold");
    for (error, expected) in [
        (ours, Rejection::UnknownTrustDomain),
        // Whoever signs has another key than the certificate's.
        (CertificateError::BadSignature, Rejection::BadSignature),
        (CertificateError::BadEncoding, other),
        (theirs, other),
    ] {
        let error = because(Error::InvalidCertificate(error));
        assert_eq!(certificate_refusal(&error), Some(expected), "{error}");
    }
    for error in [
        because(Error::HandshakeNotComplete),
        because(PeerMisbehaved::MissingKeyShare.into()),
        io::Error::from(io::ErrorKind::UnexpectedEof),
        io::Error::other("else"),
    ] {
        assert_eq!(certificate_refusal(&error), None, "{error}");
    }
}
