//! Finding an edit, a gap, a reordering or a truncation, and naming the record.
//!
//! Invariant: the verifier believes nothing that the store says about itself; a chain holds
//! if its hashes, its signatures and the head that somebody else kept agree.

use ring::signature::{ED25519, UnparsedPublicKey};

use super::{Head, Record, hash_of};
use crate::ReplicaId;

/// What is wrong with a chain, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The record's bytes do not have the hash that stands in it.
    #[error("record {chain}/{seq} was changed")]
    Edited {
        /// The chain.
        chain: ReplicaId,
        /// The record.
        seq: u64,
    },
    /// Records are missing, or in another order.
    #[error("chain {chain} has record {found} where {expected} must stand")]
    Gap {
        /// The chain.
        chain: ReplicaId,
        /// The place that should come.
        expected: u64,
        /// The place that came.
        found: u64,
    },
    /// The record does not continue the one before it.
    #[error("record {chain}/{seq} does not follow the record before it")]
    Forked {
        /// The chain.
        chain: ReplicaId,
        /// The record.
        seq: u64,
    },
    /// The record's signature is missing or is not the installation's.
    #[error("record {chain}/{seq} is not signed by this installation")]
    Unsigned {
        /// The chain.
        chain: ReplicaId,
        /// The record.
        seq: u64,
    },
    /// The chain ends before a head that was kept elsewhere.
    #[error("chain {chain} ends at record {found}, and record {expected} existed")]
    Truncated {
        /// The chain.
        chain: ReplicaId,
        /// The last record that existed.
        expected: u64,
        /// The last record that is there.
        found: u64,
    },
    /// The chain's record at a kept head is another one.
    #[error("record {chain}/{seq} is not the one that was anchored")]
    Replaced {
        /// The chain.
        chain: ReplicaId,
        /// The record.
        seq: u64,
    },
}

/// Checks one chain, record by record, in constant memory.
#[derive(Debug)]
pub struct ChainVerifier<'a> {
    head: Head,
    public_key: &'a [u8],
    anchors: Vec<Head>,
}

impl<'a> ChainVerifier<'a> {
    /// A verifier of `chain`. `anchors` are heads of it that were kept elsewhere: in other
    /// chains, in the store's table of heads, by an operator.
    pub fn new(chain: ReplicaId, public_key: &'a [u8], anchors: Vec<Head>) -> Self {
        Self { head: Head { chain, seq: 0, hash: [0; 32] }, public_key, anchors }
    }

    /// Takes the next record.
    pub fn record(&mut self, record: &Record) -> Result<(), Fault> {
        let Head { chain, seq, hash } = self.head;
        if record.seq != seq + 1 || record.chain != chain {
            return Err(Fault::Gap { chain, expected: seq + 1, found: record.seq });
        }
        if record.hash != hash_of(record) {
            return Err(Fault::Edited { chain, seq: record.seq });
        }
        if record.prev != hash {
            return Err(Fault::Forked { chain, seq: record.seq });
        }
        let must_be_signed =
            matches!(record.event.as_str(), "lease.revoked" | "audit.opened" | "audit.checkpoint");
        let signed = record.signature.as_deref().is_some_and(|signature| {
            UnparsedPublicKey::new(&ED25519, self.public_key)
                .verify(&record.hash, signature)
                .is_ok()
        });
        if must_be_signed != signed || (!must_be_signed && record.signature.is_some()) {
            return Err(Fault::Unsigned { chain, seq: record.seq });
        }
        let replaced = |anchor: &Head| anchor.seq == record.seq && anchor.hash != record.hash;
        if self.anchors.iter().any(replaced) {
            return Err(Fault::Replaced { chain, seq: record.seq });
        }
        self.head = Head { chain, seq: record.seq, hash: record.hash };
        Ok(())
    }

    /// No record follows.
    pub fn finish(self) -> Result<Head, Fault> {
        let Head { chain, seq: found, .. } = self.head;
        match self.anchors.iter().map(|anchor| anchor.seq).max() {
            Some(expected) if expected > found => Err(Fault::Truncated { chain, expected, found }),
            Some(_) | None => Ok(self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use dayfly_backend_sdk::Timestamp;

    use super::*;
    use crate::{
        SystemEntropy,
        audit::{Chain, Entry, Signer},
    };

    fn records() -> (Vec<Record>, Signer, Head) {
        let signer = Signer::from_seed(&[7; 32]).unwrap();
        let id = ReplicaId::new(Timestamp::from_seconds(1), &SystemEntropy::new());
        let mut chain = Chain::empty(id, signer.clone());
        let events = ["audit.opened", "lease.intended", "lease.active", "lease.revoked"];
        let records = events
            .into_iter()
            .map(|event| {
                let entry = Entry::new(event, "github|repo").with("role", "reader");
                chain.seal(entry, Timestamp::from_seconds(2))
            })
            .collect();
        (records, signer, chain.head())
    }

    fn verify(records: &[Record], signer: &Signer, anchors: Vec<Head>) -> Result<Head, Fault> {
        let mut verifier = ChainVerifier::new(records[0].chain, signer.public_key(), anchors);
        for record in records {
            verifier.record(record)?;
        }
        verifier.finish()
    }

    #[test]
    fn an_untouched_chain_holds() {
        let (records, signer, head) = records();
        assert_eq!(verify(&records, &signer, vec![head]), Ok(head));
    }

    #[test]
    fn a_change_of_any_field_names_the_record() {
        let (records, signer, head) = records();
        let changes: [fn(&mut Record); 5] = [
            |r| r.detail = r.detail.replace("reader", "writer"),
            |r| r.actor.push(' '),
            |r| r.at = Timestamp::from_seconds(3),
            |r| r.event.push('x'),
            |r| r.task = Some(crate::TaskId::from_uuid(uuid::Uuid::nil())),
        ];
        for change in changes {
            let mut changed = records.clone();
            change(&mut changed[2]);
            let fault = verify(&changed, &signer, vec![head]).unwrap_err();
            assert_eq!(fault, Fault::Edited { chain: head.chain, seq: 3 });
        }
    }

    /// Whoever can write the table can also recompute the hashes; the signatures and the
    /// anchored head still give him away.
    #[test]
    fn a_recomputed_chain_fails_at_the_signature_or_the_anchor() {
        let (records, signer, head) = records();
        let forger = Signer::from_seed(&[8; 32]).unwrap();
        let mut chain = Chain::empty(head.chain, forger);
        let forged: Vec<Record> = ["audit.opened", "lease.intended"]
            .into_iter()
            .map(|event| chain.seal(Entry::new(event, "nobody"), Timestamp::from_seconds(2)))
            .collect();
        assert_eq!(
            verify(&forged, &signer, vec![]),
            Err(Fault::Unsigned { chain: head.chain, seq: 1 })
        );
        let anchor = Head { seq: 2, hash: [9; 32], ..head };
        assert_eq!(
            verify(&records, &signer, vec![anchor]),
            Err(Fault::Replaced { chain: head.chain, seq: 2 })
        );
    }

    #[test]
    fn a_gap_a_swap_and_a_truncation_are_found() {
        let (records, signer, head) = records();
        let chain = head.chain;
        let gap = [&records[..1], &records[2..]].concat();
        assert_eq!(verify(&gap, &signer, vec![]), Err(Fault::Gap { chain, expected: 2, found: 3 }));
        let mut swapped = records.clone();
        swapped.swap(1, 2);
        assert_eq!(
            verify(&swapped, &signer, vec![]),
            Err(Fault::Gap { chain, expected: 2, found: 3 })
        );
        assert_eq!(
            verify(&records[..3], &signer, vec![head]),
            Err(Fault::Truncated { chain, expected: 4, found: 3 })
        );
    }
}
