//! Where STS is.
//!
//! Invariant: an address is made by us of a region in the configuration. What a caller sends is
//! compared with it as a whole and becomes no part of it, so that no two readers of a URL can
//! disagree about its host (CVE-2020-16250 began with a host of the caller's choice).

/// The name that AWS's own tools have for the address that belongs to no region.
const GLOBAL: &str = "aws-global";
/// Where a request for that address is signed for.
const GLOBAL_REGION: &str = "us-east-1";
/// As AWS's tools mark the addresses with validated cryptography: `us-east-1-fips`.
const FIPS: &str = "-fips";
const GOV: &str = "aws-us-gov";
const REGION_LEN_MAX: usize = 32;

/// How a partition's regions begin, its name, and its domain. The last takes what is left.
const PARTITIONS: [(&str, &str, &str); 4] = [
    ("cn-", "aws-cn", "amazonaws.com.cn"),
    ("eusc-", "aws-eusc", "amazonaws.eu"),
    ("us-gov-", GOV, "amazonaws.com"),
    ("", "aws", "amazonaws.com"),
];

/// One address of STS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// What a signature for it names.
    pub(super) region: String,
    /// What the ARNs of its callers name.
    pub(super) partition: &'static str,
    pub(super) host: String,
}

impl Endpoint {
    /// Of an entry of `regions`; nothing if that is not one.
    pub(super) fn parse(entry: &str) -> Option<Self> {
        if entry == GLOBAL {
            let host = "sts.amazonaws.com".to_owned();
            return Some(Self { region: GLOBAL_REGION.to_owned(), partition: "aws", host });
        }
        let (region, fips) = match entry.strip_suffix(FIPS) {
            Some(region) => (region, true),
            None => (entry, false),
        };
        if !is_region(region) {
            return None;
        }
        let of_region = |(begin, ..): &&(&str, &str, &str)| region.starts_with(begin);
        let (_, partition, domain) = *PARTITIONS.iter().find(of_region)?;
        // In GovCloud the plain address is the validated one.
        let service = if fips && partition != GOV { "sts-fips" } else { "sts" };
        let host = format!("{service}.{region}.{domain}");
        Some(Self { region: region.to_owned(), partition, host })
    }

    /// The one spelling of its URL that is accepted.
    pub(super) fn url(&self) -> String {
        format!("https://{}/", self.host)
    }
}

/// `eu-central-1`: at least three words, the last one a number. The isolated partitions
/// (`us-iso-east-1`) have domains of their own, and no broker outside reaches them.
fn is_region(text: &str) -> bool {
    let words: Vec<&str> = text.split('-').collect();
    let (Some(last), Some(first)) = (words.last(), words.first()) else { return false };
    let word = |word: &&str| {
        !word.is_empty() && word.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    text.len() <= REGION_LEN_MAX
        && words.len() >= 3
        && words.iter().all(word)
        && first.bytes().all(|c| c.is_ascii_lowercase())
        && last.bytes().all(|c| c.is_ascii_digit())
        && !words.iter().any(|word| word.starts_with("iso"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_its_domain() {
        for (entry, region, partition, url) in [
            ("eu-central-1", "eu-central-1", "aws", "https://sts.eu-central-1.amazonaws.com/"),
            ("aws-global", "us-east-1", "aws", "https://sts.amazonaws.com/"),
            ("us-east-1-fips", "us-east-1", "aws", "https://sts-fips.us-east-1.amazonaws.com/"),
            ("cn-north-1", "cn-north-1", "aws-cn", "https://sts.cn-north-1.amazonaws.com.cn/"),
            (
                "us-gov-west-1",
                "us-gov-west-1",
                "aws-us-gov",
                "https://sts.us-gov-west-1.amazonaws.com/",
            ),
            (
                "us-gov-west-1-fips",
                "us-gov-west-1",
                "aws-us-gov",
                "https://sts.us-gov-west-1.amazonaws.com/",
            ),
            (
                "eusc-de-east-1",
                "eusc-de-east-1",
                "aws-eusc",
                "https://sts.eusc-de-east-1.amazonaws.eu/",
            ),
        ] {
            let endpoint = Endpoint::parse(entry).unwrap();
            let found = (endpoint.region.as_str(), endpoint.partition, endpoint.url());
            assert_eq!(found, (region, partition, url.to_owned()), "{entry}");
        }
    }

    #[test]
    fn what_is_no_region_makes_no_host() {
        for bad in [
            "",
            "eu",
            "eu-central",
            "eu-central-",
            "eu--central-1",
            "EU-central-1",
            "eu-central-1.evil.example",
            "eu-central-1/x",
            "eu-central-1@evil-host-1",
            "evil.example#-a-1",
            "1-a-1",
            "us-iso-east-1",
            "us-isob-east-1",
            "aws-global-fips",
            "-fips",
            "a-very-long-name-that-no-region-has-1",
        ] {
            assert_eq!(Endpoint::parse(bad), None, "{bad}");
        }
    }
}
