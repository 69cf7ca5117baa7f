//! AWS IAM: whoever can sign for AWS has an identity.
//!
//! A caller signs the request that asks STS who signed it, and sends it to us instead. We hold
//! it against what it must be, send it on, and believe STS's answer. The secret key stays with
//! the caller; what it gives away is good for this one question, at this one broker.
//!
//! Invariant: nothing is sent before the request was found to be for us (the signed server id),
//! for STS (an address of the configuration), fresh, and the one that we expect. No answer is
//! kept: each identity was confirmed for this very request.

mod caller;
mod config;
mod endpoint;
mod request;
mod sts;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use data_encoding::HEXLOWER;
use dayfly_backend_sdk::Timestamp;
use ring::digest;

pub use config::{AwsCallerKind, AwsIdentityConfig};
pub use request::{AWS_REQUEST_LEN_MAX, AwsRequest};

pub(crate) use request::PREFIX;

use super::{Kind, Principal, Rejection, SetupError};
use caller::Caller;
use endpoint::Endpoint;
use sts::Sts;

/// How old a signature may be. AWS takes them for as long.
const AGE_MAX: Duration = Duration::from_mins(5);
/// How far a caller's clock may be ahead of ours.
const LEEWAY: Duration = Duration::from_mins(1);

/// All `[[aws_identity]]`.
#[derive(Debug, Default)]
pub(crate) struct AwsIdentities {
    /// By server id, byte for byte.
    by_server_id: BTreeMap<String, AwsIdentity>,
}

#[derive(Debug)]
struct AwsIdentity {
    rules: AwsIdentityConfig,
    /// By their URL, byte for byte.
    endpoints: BTreeMap<String, Endpoint>,
    sts: Sts,
}

impl AwsIdentities {
    /// Sets them up; asks nobody yet. `taken` are the names that issuers have.
    pub(crate) fn new(
        configs: Vec<AwsIdentityConfig>,
        mut taken: BTreeSet<String>,
    ) -> Result<Self, SetupError> {
        let mut by_server_id = BTreeMap::new();
        for rules in configs {
            let faults = rules.faults();
            let Some(server_id) = rules.server_id.clone().filter(|_| faults.is_empty()) else {
                return Err(SetupError::Faults { name: rules.name, faults });
            };
            if !taken.insert(rules.name.clone()) {
                return Err(SetupError::Duplicate(rules.name));
            }
            let endpoints = rules.regions.iter().filter_map(|region| Endpoint::parse(region));
            let endpoints = endpoints.map(|endpoint| (endpoint.url(), endpoint)).collect();
            let sts = Sts::new(&rules)?;
            let identity = AwsIdentity { rules, endpoints, sts };
            if by_server_id.insert(server_id.clone(), identity).is_some() {
                return Err(SetupError::Duplicate(server_id));
            }
        }
        Ok(Self { by_server_id })
    }

    /// Their names in the configuration.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_server_id.values().map(|identity| identity.rules.name.as_str())
    }

    /// Decides who signed the request that `bearer` holds.
    pub(crate) async fn authenticate(
        &self,
        bearer: &str,
        now: Timestamp,
    ) -> Result<Principal, Rejection> {
        if self.by_server_id.is_empty() {
            return Err(Rejection::UnknownIssuer);
        }
        let (identity, endpoint, request) = self.admitted(bearer, now)?;
        let said = identity.sts.ask(endpoint, &request).await?;
        let caller = Caller::of(&said, endpoint.partition)?;
        if !identity.rules.accounts.contains(&caller.account) {
            return Err(Rejection::AccountRefused);
        }
        if !identity.rules.kinds.contains(&caller.kind) {
            return Err(Rejection::CallerRefused);
        }
        Ok(identity.principal(caller, &request))
    }

    /// The request that `bearer` holds, if STS may be asked about it, with where that is. Asks
    /// nobody.
    fn admitted(
        &self,
        bearer: &str,
        now: Timestamp,
    ) -> Result<(&AwsIdentity, &Endpoint, AwsRequest), Rejection> {
        let request = AwsRequest::parse(bearer)?;
        // Nobody has verified it yet: good for finding the section, and nothing else. What STS
        // verifies covers it.
        let identity = self.by_server_id.get(request.server_id());
        let identity = identity.ok_or(Rejection::WrongAudience)?;
        let endpoint = identity.endpoints.get(request.url()).ok_or(Rejection::HostRefused)?;
        if request.region() != endpoint.region {
            return Err(Rejection::malformed("the signature is for another region"));
        }
        request.check_time(now)?;
        Ok((identity, endpoint, request))
    }
}

impl AwsIdentity {
    fn principal(&self, caller: Caller, request: &AwsRequest) -> Principal {
        let hash = digest::digest(&digest::SHA256, request.signature().as_bytes());
        Principal {
            kind: Kind::Workload,
            issuer: self.rules.name.clone(),
            subject: caller.subject,
            claims: caller.claims,
            token_hash: HEXLOWER.encode(hash.as_ref()),
            token_id: None,
            token_expires_at: request.expires_at(),
            single_use: true,
            first_key_binds: false,
        }
    }
}

#[cfg(test)]
mod tests;
