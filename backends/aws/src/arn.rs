//! ARNs of IAM, and what AWS lets into names.
//!
//! Invariant: a part of an ARN that is handed on has no character that means something in a
//! policy.

const ARN_LEN_MAX: usize = 2_048;
const PATH_LEN_MAX: usize = 512;

/// `arn:PARTITION:iam::ACCOUNT:KIND/PATH/NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arn<'a> {
    /// Twelve digits, or `aws` for what is AWS's own.
    pub(crate) account: &'a str,
    /// Without its path.
    pub(crate) name: &'a str,
}

/// The ARN of a `kind` (`role`, `policy`), if it is one.
pub(crate) fn parse<'a>(text: &'a str, kind: &str) -> Option<Arn<'a>> {
    let mut parts = text.splitn(6, ':');
    let mut next = || parts.next().unwrap_or_default();
    let (arn, partition, service, region, account) = (next(), next(), next(), next(), next());
    let resource = next();
    let legal = |c: u8| c.is_ascii_lowercase() || c == b'-';
    let head = arn == "arn" && partition.starts_with("aws") && partition.bytes().all(legal);
    if !head || service != "iam" || !region.is_empty() || text.len() > ARN_LEN_MAX {
        return None;
    }
    if !is_account(account) && account != "aws" {
        return None;
    }
    let path = resource.strip_prefix(kind)?.strip_prefix('/')?;
    let name = path.rsplit('/').next().filter(|name| is_name(name))?;
    path.split('/').all(is_name).then_some(Arn { account, name })
}

pub(crate) fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|c| c.is_ascii_digit())
}

/// A name of IAM: `[\w+=,.@-]+`.
pub(crate) fn is_name(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"_+=,.@-".contains(&c);
    (1..=128).contains(&text.len()) && text.bytes().all(legal)
}

/// A path of IAM; `/` alone, where everybody's users are, is none of ours.
pub(crate) fn is_path(text: &str) -> bool {
    let legal = |part: &str| is_name(part);
    let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
    text.len() <= PATH_LEN_MAX && inner.is_some_and(|inner| inner.split('/').all(legal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_arn_of_its_kind_is_one() {
        let role = parse("arn:aws:iam::123456789012:role/ci/deploy", "role");
        assert_eq!(role, Some(Arn { account: "123456789012", name: "deploy" }));
        let owned = parse("arn:aws-cn:iam::aws:policy/ReadOnlyAccess", "policy");
        assert_eq!(owned, Some(Arn { account: "aws", name: "ReadOnlyAccess" }));
        for bad in [
            "",
            "arn:aws:iam::123456789012:user/a",
            "arn:aws:sts::123456789012:role/a",
            "arn:aws:iam:eu:123456789012:role/a",
            "arn:aws:iam::12345678901:role/a",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:role/a*",
            "arn:aws:iam::123456789012:role//a",
            "arn:aws:iam::123456789012:role/a\"b",
            "arn:gcp:iam::123456789012:role/a",
        ] {
            assert_eq!(parse(bad, "role"), None, "{bad}");
        }
    }

    #[test]
    fn a_path_is_more_than_the_root() {
        assert!(is_path("/dayfly/df/"));
        for bad in ["/", "//", "", "/a", "a/", "/a b/", "/a//b/", "/*/"] {
            assert!(!is_path(bad), "{bad}");
        }
    }
}
