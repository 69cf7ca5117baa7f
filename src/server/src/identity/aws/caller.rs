//! Who a caller is, of what STS says of it.
//!
//! Invariant: account, ARN and user id tell of one caller, or there is none. What a subject says
//! is chosen by nobody but the account's administrators; what is given again after a deletion (a
//! role's name) stands in it with the id that never is.

use std::collections::BTreeMap;

use super::{
    super::{ClaimValue, Rejection},
    AwsCallerKind,
    config::is_account,
    sts::CallerIdentity,
};

/// A caller that STS knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) kind: AwsCallerKind,
    pub(super) account: String,
    /// The ARN without the session, and the unique id.
    pub(super) subject: String,
    pub(super) claims: BTreeMap<String, ClaimValue>,
}

impl Caller {
    /// Reads an answer of STS in `partition`.
    pub(super) fn of(identity: &CallerIdentity, partition: &str) -> Result<Self, Rejection> {
        Self::read(identity, partition).ok_or(Rejection::AnswerRefused {
            why: "its account, ARN and user id are not of one caller",
        })
    }

    fn read(identity: &CallerIdentity, partition: &str) -> Option<Self> {
        let CallerIdentity { account, arn, user_id } = identity;
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let ["arn", arn_partition, service, "", arn_account, resource] = parts.as_slice() else {
            return None;
        };
        if !is_account(account) || arn_account != account || *arn_partition != partition {
            return None;
        }
        let (kind, subject, named) = match (*service, resource.split_once('/')) {
            ("sts", Some(("assumed-role", rest))) => {
                let (role, session) = rest.split_once('/')?;
                let (unique, suffix) = user_id.split_once(':')?;
                if !is_name(role) || !is_name(session) || suffix != session || !is_id(unique) {
                    return None;
                }
                let of_role = format!("arn:{partition}:sts::{account}:assumed-role/{role}");
                let named = vec![("role", role), ("session", session), ("unique_id", unique)];
                (AwsCallerKind::AssumedRole, format!("{of_role}#{unique}"), named)
            }
            ("sts", Some(("federated-user", name))) => {
                if !is_name(name) || user_id.split_once(':') != Some((account.as_str(), name)) {
                    return None;
                }
                (AwsCallerKind::FederatedUser, arn.clone(), vec![("session", name)])
            }
            ("iam", Some(("user", path_and_name))) => {
                let name = path_and_name.rsplit('/').next()?;
                let path = path_and_name.strip_suffix(name)?;
                if !is_name(name) || !is_path(path) || !is_id(user_id) {
                    return None;
                }
                let named = vec![("user", name), ("unique_id", user_id.as_str())];
                (AwsCallerKind::User, format!("{arn}#{user_id}"), named)
            }
            ("iam", None) if *resource == "root" && user_id == account => {
                (AwsCallerKind::Root, arn.clone(), Vec::new())
            }
            _ => return None,
        };
        let always = [
            ("account", account.as_str()),
            ("arn", arn.as_str()),
            ("kind", kind.as_str()),
            ("partition", partition),
            ("user_id", user_id.as_str()),
        ];
        let claim =
            |(name, value): (&str, &str)| (name.to_owned(), ClaimValue::Text(value.to_owned()));
        let claims = always.into_iter().chain(named).map(claim).collect();
        Some(Self { kind, account: account.clone(), subject, claims })
    }
}

/// What IAM and STS take for the name of a role, a user or a session.
fn is_name(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"_+=,.@-".contains(&c);
    (1..=64).contains(&text.len()) && text.bytes().all(legal)
}

/// What stands before a user's name: nothing, or `division/team/`.
fn is_path(text: &str) -> bool {
    text.len() <= 512 && text.bytes().all(|c| c.is_ascii_graphic())
}

/// `AROA…`, `AIDA…`: never given twice.
fn is_id(text: &str) -> bool {
    (16..=128).contains(&text.len()) && text.bytes().all(|c| c.is_ascii_alphanumeric())
}
