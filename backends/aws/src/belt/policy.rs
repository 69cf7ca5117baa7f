//! The policies of the belt as IAM has them.
//!
//! Invariant: what cannot be read as ours is an error, and never a policy without names.

use std::collections::BTreeSet;

use aws_sdk_iam::types::PolicyUsageType;

use super::{Belt, Target, roll::Roll};
use crate::error::Failure;

/// A policy as it was read.
pub(super) struct Policy {
    pub(super) arn: String,
    /// The version in force.
    pub(super) version: u64,
    pub(super) versions: BTreeSet<u64>,
    pub(super) roll: Roll,
    pub(super) roles: BTreeSet<String>,
    pub(super) users: BTreeSet<String>,
    /// What was added since.
    pub(super) fresh: BTreeSet<String>,
}

impl Policy {
    pub(super) fn reaches(&self, target: &Target) -> bool {
        match target {
            Target::Anything => true,
            Target::Role(name) => self.roles.contains(name),
            Target::User(name) => self.users.contains(name),
        }
    }
}

impl Belt {
    pub(super) async fn read(&self) -> Result<Vec<Policy>, Failure> {
        let mut policies = Vec::with_capacity(self.arns.len());
        for arn in &self.arns {
            policies.push(self.read_one(arn).await?);
        }
        Ok(policies)
    }

    async fn read_one(&self, arn: &str) -> Result<Policy, Failure> {
        let listed = self.iam.list_policy_versions().policy_arn(arn).send().await?;
        let listed = listed.versions.unwrap_or_default();
        let versions =
            listed.iter().filter_map(|version| number(version.version_id.as_deref())).collect();
        let in_force = listed.iter().find(|version| version.is_default_version);
        let version = in_force.and_then(|version| number(version.version_id.as_deref()));
        let version = version.ok_or(Failure::Strange("default version of the policy"))?;
        let roll = self.document(arn, version).await?;
        let roll = roll.ok_or(Failure::Survived("the deny belt changed while it was read"))?;
        let (mut roles, mut users) = (BTreeSet::new(), BTreeSet::new());
        let mut pages = self
            .iam
            .list_entities_for_policy()
            .policy_arn(arn)
            // As a boundary it would deny everything else as well, and is nobody's belt.
            .policy_usage_filter(PolicyUsageType::PermissionsPolicy)
            .into_paginator()
            .send();
        while let Some(page) = pages.next().await {
            let page = page?;
            roles.extend(page.policy_roles.into_iter().flatten().filter_map(|one| one.role_name));
            users.extend(page.policy_users.into_iter().flatten().filter_map(|one| one.user_name));
        }
        let fresh = BTreeSet::new();
        Ok(Policy { arn: arn.to_owned(), version, versions, roll, roles, users, fresh })
    }

    /// A version's names; none when there is no such version.
    pub(super) async fn document(&self, arn: &str, version: u64) -> Result<Option<Roll>, Failure> {
        let request = self.iam.get_policy_version().policy_arn(arn);
        let found = match request.version_id(format!("v{version}")).send().await {
            Ok(found) => found,
            Err(error) => {
                let failure = Failure::from(error);
                return if failure.is_not_found() { Ok(None) } else { Err(failure) };
            }
        };
        let text = found.policy_version.and_then(|version| version.document);
        let text = text.ok_or(Failure::Strange("document of the policy"))?;
        let roll = decoded(&text).and_then(|text| Roll::parse(&text));
        roll.map(Some).ok_or_else(|| Failure::BeltStrange(arn.to_owned()))
    }
}

pub(super) fn number(version: Option<&str>) -> Option<u64> {
    version?.strip_prefix('v')?.parse().ok()
}

/// IAM gives documents percent-encoded (RFC 3986).
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_encoded_or_not() {
        assert_eq!(decoded("%7B%22a%22%3A%20%22*%22%7D").as_deref(), Some(r#"{"a": "*"}"#));
        assert_eq!(decoded(r#"{"a":"*"}"#).as_deref(), Some(r#"{"a":"*"}"#));
        assert_eq!(decoded("%7"), None);
        assert_eq!(decoded("%zz"), None);
        assert_eq!(number(Some("v12")), Some(12));
        assert_eq!(number(Some("12")), None);
    }
}
