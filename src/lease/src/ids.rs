//! Ids that cannot be mistaken for each other.
//!
//! Invariant: an id is a version 7 UUID made from the injected clock and entropy, so ids sort by time
//! and a simulated run makes the same ones again.

use std::{fmt, str::FromStr};

use data_encoding::{Encoding, Specification};
use dayfly_backend_sdk::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;
use uuid::Uuid;

use crate::Entropy;

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.encoding().unwrap_or(data_encoding::BASE32_NOPAD)
});

/// A text that is not an id of the kind that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form `{prefix}…`")]
pub struct IdError {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, ordered by `now`.
            pub fn new(now: Timestamp, entropy: &dyn Entropy) -> Self {
                let mut random = [0_u8; 10];
                entropy.fill(&mut random);
                let millis = u64::try_from(now.micros() / 1_000).unwrap_or(0);
                Self(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
            }

            /// From a store's column.
            pub fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// For a store's column.
            pub fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, BASE32.encode(self.0.as_bytes()))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($prefix)
                    .and_then(|rest| BASE32.decode(rest.as_bytes()).ok())
                    .and_then(|bytes| Uuid::from_slice(&bytes).ok())
                    .map(Self)
                    .ok_or(IdError { prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A lease, written `lse_…`.
    LeaseId,
    "lse_"
);
id!(
    /// A task, written `tsk_…`.
    TaskId,
    "tsk_"
);
id!(
    /// One incarnation of a replica, from its start to its end, written `rep_…`. Also names
    /// the replica's audit chain.
    ReplicaId,
    "rep_"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SystemEntropy;

    #[test]
    fn an_id_goes_there_and_back_and_not_into_another_kind() {
        let id = LeaseId::new(Timestamp::from_seconds(1_790_000_000), &SystemEntropy::new());
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().parse::<TaskId>().is_err());
        assert!("lse_".parse::<LeaseId>().is_err());
        assert!(format!("{id}a").parse::<LeaseId>().is_err());
    }

    #[test]
    fn ids_sort_by_time() {
        let entropy = SystemEntropy::new();
        let early = LeaseId::new(Timestamp::from_seconds(1), &entropy);
        let late = LeaseId::new(Timestamp::from_seconds(2), &entropy);
        assert!(early.to_string() < late.to_string());
    }
}
