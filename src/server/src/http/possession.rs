//! What a request proves to have besides its token: a key, by a `DPoP` proof (RFC 9449), and the
//! certificate of its connection (RFC 8705).
//!
//! Invariant: a token that is bound is accepted with what it is bound to and with nothing else,
//! and in the way that its binding is for.

use axum::http::{HeaderMap, header, request::Parts};
use data_encoding::BASE64URL_NOPAD;
use dayfly_lease::Binding;
use ring::digest;
use rustls::pki_types::CertificateDer;

use super::{caller::ShownCertificates, problem::Fault};
use crate::{
    broker::Broker,
    identity::{ClaimValue, Principal, Proof, Rejection, Requested},
};

/// Where a proof stands.
const PROOF_HEADER: &str = "dpop";

/// How a token is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Whoever has it may use it.
    Bearer,
    /// Who proves that he has the key to it.
    Dpop,
}

/// The token of a request.
#[derive(Clone, Copy)]
pub(super) struct Shown<'p> {
    pub(super) scheme: Scheme,
    pub(super) token: &'p str,
}

/// The token that a request shows, if it shows one that can be read.
pub(super) fn shown(headers: &HeaderMap) -> Option<Shown<'_>> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    // Two of them: which one another party looked at is anybody's guess.
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let known = [("bearer", Scheme::Bearer), ("dpop", Scheme::Dpop)];
    let scheme = known.into_iter().find(|(name, _)| scheme.eq_ignore_ascii_case(name))?.1;
    Some(Shown { scheme, token })
}

/// The certificates that the client of this connection showed in the handshake, its own first.
pub(super) fn certificates(parts: &Parts) -> &[CertificateDer<'static>] {
    let shown = parts.extensions.get::<ShownCertificates>();
    shown.map(|shown| &*shown.0).unwrap_or_default()
}

/// What a request proves to have.
#[derive(Debug)]
pub(crate) struct Possession {
    proof: Option<Proof>,
    certificate: Option<[u8; 32]>,
}

/// Why a token that is good was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// It is bound to a certificate that this connection does not have.
    Certificate,
    /// It is bound to a key that was not proven, or not in the way that such a token is shown.
    Key,
    /// It is shown as one that is bound to a key, and is not.
    NotBound,
}

impl Unproven {
    /// A stable name, for the audit log.
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::Certificate => "token_bound_to_certificate",
            Self::Key => "token_bound_to_key",
            Self::NotBound => "token_not_bound",
        }
    }

    /// What the client hears. That a token is bound is no secret to whoever has it, and without
    /// a word of it nobody would know what to do.
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Certificate | Self::Key => Fault::token_bound(),
            Self::NotBound => Fault::unauthenticated(),
        }
    }
}

impl Possession {
    /// Of a request that shows `token`. A broker that does not know its own URL can hold no proof
    /// against it, so it looks at none, and its answers say that nothing was bound.
    ///
    /// # Errors
    /// [`Rejection::Proof`]: there is a proof, and it does not hold.
    pub(super) fn of(
        parts: &Parts,
        broker: &Broker,
        token: Option<&str>,
    ) -> Result<Self, Rejection> {
        let certificate = certificates(parts).first().map(|leaf| sha256(leaf));
        let mut proofs = parts.headers.get_all(PROOF_HEADER).iter();
        let Some(proof) = proofs.next().filter(|_| broker.own_address.is_known()) else {
            return Ok(Self { proof: None, certificate });
        };
        if proofs.next().is_some() {
            return Err(Rejection::proof("there are two of them"));
        }
        let unreadable = |_| Rejection::proof("it is not printable");
        let proof = proof.to_str().map_err(unreadable)?;
        let requested = Requested { method: parts.method.as_str(), path: parts.uri.path(), token };
        let proof = broker.own_address.verify(proof, &requested, broker.clock.now())?;
        Ok(Self { proof: Some(proof), certificate })
    }

    /// The proof, which must not be accepted twice.
    pub(super) fn proof(&self) -> Option<&Proof> {
        self.proof.as_ref()
    }

    /// The key that was proven.
    pub(in crate::http) fn key(&self) -> Option<[u8; 32]> {
        self.proof.as_ref().map(|proof| proof.key)
    }

    /// The SHA-256 of the connection's client certificate.
    pub(in crate::http) fn certificate(&self) -> Option<[u8; 32]> {
        self.certificate
    }

    /// The same for a token that the request does not show in its header, so that nothing says
    /// how it is shown but what it is bound to.
    pub(super) fn confirms_beside(&self, principal: &Principal) -> Result<(), Unproven> {
        let bound = principal.claims.contains_key("cnf.jkt");
        self.confirms(principal, if bound { Scheme::Dpop } else { Scheme::Bearer })
    }

    /// Whether a task's token that is bound like this may be shown like that.
    pub(super) fn holds(&self, bound: Option<Binding>, scheme: Scheme) -> Result<(), Unproven> {
        match (bound, scheme) {
            (None, Scheme::Bearer) => Ok(()),
            (Some(Binding::Key(key)), Scheme::Dpop) if self.key() == Some(key) => Ok(()),
            (Some(Binding::Certificate(hash)), Scheme::Bearer)
                if self.certificate == Some(hash) =>
            {
                Ok(())
            }
            (None, Scheme::Dpop) => Err(Unproven::NotBound),
            (Some(Binding::Key(_)), Scheme::Bearer | Scheme::Dpop) => Err(Unproven::Key),
            (Some(Binding::Certificate(_)), Scheme::Bearer | Scheme::Dpop) => {
                Err(Unproven::Certificate)
            }
        }
    }

    /// The same for an identity token, whose issuer may have bound it (`cnf`, RFC 7800). Of one
    /// that it has not, the proof is for what is opened with it.
    pub(super) fn confirms(&self, principal: &Principal, scheme: Scheme) -> Result<(), Unproven> {
        let is_own = |name: &str, own: Option<[u8; 32]>| {
            let confirmed = principal.claims.get(name)?;
            let own = own.map(|hash| ClaimValue::Text(BASE64URL_NOPAD.encode(&hash)));
            Some(own.as_ref() == Some(confirmed))
        };
        if is_own("cnf.x5t#S256", self.certificate) == Some(false) {
            return Err(Unproven::Certificate);
        }
        match (is_own("cnf.jkt", self.key()), scheme) {
            (None, Scheme::Bearer) | (Some(true), Scheme::Dpop) => Ok(()),
            (None, Scheme::Dpop) => Err(Unproven::NotBound),
            (Some(true), Scheme::Bearer) | (Some(false), Scheme::Bearer | Scheme::Dpop) => {
                Err(Unproven::Key)
            }
        }
    }
}

/// For tokens and certificates alike.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dayfly_backend_sdk::Timestamp;

    use super::*;
    use crate::identity::Kind;

    const MINE: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn certified(certificate: Option<[u8; 32]>) -> Possession {
        Possession { proof: None, certificate }
    }

    fn holder(key: [u8; 32]) -> Possession {
        Possession { proof: Some(Proof::of(key)), certificate: None }
    }

    fn confirmed(claims: &[(&str, ClaimValue)]) -> Principal {
        let claims = claims.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Principal {
            kind: Kind::Workload,
            issuer: "ci".to_owned(),
            subject: "job".to_owned(),
            claims: claims.collect::<BTreeMap<_, _>>(),
            token_hash: String::new(),
            token_id: None,
            token_expires_at: Timestamp::MAX,
            single_use: true,
            first_key_binds: false,
        }
    }

    #[test]
    fn a_bound_task_token_is_accepted_with_what_it_is_bound_to_alone() {
        let (mine, other, nobody) = (holder(MINE), holder(OTHER), certified(None));
        let key = Some(Binding::Key(MINE));
        let certificate = Some(Binding::Certificate(MINE));
        let (bearer, dpop) = (Scheme::Bearer, Scheme::Dpop);
        let cases = [
            ("the key", &mine, key, dpop, Ok(())),
            ("the key, as a bearer", &mine, key, bearer, Err(Unproven::Key)),
            ("another key", &other, key, dpop, Err(Unproven::Key)),
            ("no proof", &nobody, key, dpop, Err(Unproven::Key)),
            ("no proof, as a bearer", &nobody, key, bearer, Err(Unproven::Key)),
            ("a certificate for a key", &certified(Some(MINE)), key, dpop, Err(Unproven::Key)),
            ("the certificate", &certified(Some(MINE)), certificate, bearer, Ok(())),
            (
                "the certificate, as a key's",
                &certified(Some(MINE)),
                certificate,
                dpop,
                Err(Unproven::Certificate),
            ),
            (
                "another certificate",
                &certified(Some(OTHER)),
                certificate,
                bearer,
                Err(Unproven::Certificate),
            ),
            ("no certificate", &nobody, certificate, bearer, Err(Unproven::Certificate)),
            ("a key for a certificate", &mine, certificate, dpop, Err(Unproven::Certificate)),
            ("a token that is not bound", &nobody, None, bearer, Ok(())),
            ("the same with a proof", &mine, None, bearer, Ok(())),
            ("the same as a key's", &mine, None, dpop, Err(Unproven::NotBound)),
        ];
        for (name, possession, bound, scheme, expected) in cases {
            assert_eq!(possession.holds(bound, scheme), expected, "{name}");
        }
    }

    #[test]
    fn what_an_issuer_bound_is_accepted_with_that_alone() {
        let (mine, other) = (holder(MINE), holder(OTHER));
        let text = |hash: [u8; 32]| ClaimValue::Text(BASE64URL_NOPAD.encode(&hash));
        let key = text(MINE);
        let list = ClaimValue::List(vec![BASE64URL_NOPAD.encode(&MINE)]);
        let of_key = confirmed(&[("cnf.jkt", key)]);
        let of_list = confirmed(&[("cnf.jkt", list)]);
        let of_certificate = confirmed(&[("cnf.x5t#S256", text(MINE))]);
        let of_nothing = confirmed(&[]);
        let (bearer, dpop) = (Scheme::Bearer, Scheme::Dpop);
        let cases = [
            ("the key", &mine, &of_key, dpop, Ok(())),
            ("the key, as a bearer", &mine, &of_key, bearer, Err(Unproven::Key)),
            ("another key", &other, &of_key, dpop, Err(Unproven::Key)),
            ("no proof", &certified(None), &of_key, dpop, Err(Unproven::Key)),
            ("a list of keys", &mine, &of_list, dpop, Err(Unproven::Key)),
            ("the certificate", &certified(Some(MINE)), &of_certificate, bearer, Ok(())),
            (
                "another certificate",
                &certified(Some(OTHER)),
                &of_certificate,
                bearer,
                Err(Unproven::Certificate),
            ),
            ("no certificate", &mine, &of_certificate, bearer, Err(Unproven::Certificate)),
            ("a proof for what is opened", &mine, &of_nothing, bearer, Ok(())),
            ("a plain bearer", &certified(None), &of_nothing, bearer, Ok(())),
            ("a token that is not bound", &mine, &of_nothing, dpop, Err(Unproven::NotBound)),
        ];
        for (name, possession, principal, scheme, expected) in cases {
            assert_eq!(possession.confirms(principal, scheme), expected, "{name}");
        }
        for (name, possession, principal, expected) in [
            ("the key", &mine, &of_key, Ok(())),
            ("another key", &other, &of_key, Err(Unproven::Key)),
            ("no proof", &certified(None), &of_key, Err(Unproven::Key)),
            ("the certificate", &certified(Some(MINE)), &of_certificate, Ok(())),
            ("no certificate", &mine, &of_certificate, Err(Unproven::Certificate)),
            ("nothing", &certified(None), &of_nothing, Ok(())),
            ("somebody's proof", &mine, &of_nothing, Ok(())),
        ] {
            assert_eq!(possession.confirms_beside(principal), expected, "beside: {name}");
        }
    }
}
