//! The deny belt: the names of sessions that must be dead, in managed policies of ours.
//!
//! Invariant: what is written has all that was there. IAM has no compare-and-set, but it never
//! gives a version's number twice: a gap between the version that was read and the one that was
//! made is somebody else's, and is read and taken in.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_sdk_iam::Client;
use tokio::sync::Mutex;

use crate::{clock::Clock, error::Failure};

use policy::{Policy, number};
use roll::Roll;

mod policy;
mod roll;

/// IAM keeps five versions of a policy.
const VERSIONS_MAX: usize = 5;
/// How often a write is repeated that crossed another's.
const WRITES_MAX: u32 = 6;
/// How often a policy is looked at that IAM does not show as it was last written.
const LOOKS_MAX: u32 = 12;
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// The policies, and what we wrote to them last.
pub(crate) struct Belt {
    iam: Client,
    arns: Vec<String>,
    clock: Clock,
    /// One writer at a time in this process; others are found by the gaps they make.
    written: Mutex<BTreeMap<String, (u64, Roll)>>,
}

/// A session that must be dead.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) name: String,
    /// When it has ended by itself at the latest, in seconds since 1970 by AWS's clock.
    pub(crate) end: i64,
    pub(crate) target: Target,
}

/// What a policy must be attached to, to deny anything to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Its plan does not say.
    Anything,
    Role(String),
    User(String),
}

impl Belt {
    pub(crate) fn new(iam: Client, arns: Vec<String>, clock: Clock) -> Self {
        Self { iam, arns, clock, written: Mutex::default() }
    }

    /// The policy that carries the marker.
    pub(crate) fn first(&self) -> Option<&str> {
        self.arns.first().map(String::as_str)
    }

    /// Denies everything to each of `wanted` that has not ended. The answer has one entry for
    /// each, in its order: whether it had to be written.
    pub(crate) async fn deny(&self, wanted: &[Wanted]) -> Vec<Result<bool, Failure>> {
        // Many have just ended by themselves: what is past stays past.
        if wanted.iter().all(|one| self.has_ended(one)) {
            return wanted.iter().map(|_| Ok(false)).collect();
        }
        let mut written = self.written.lock().await;
        let mut policies = match self.read().await {
            Ok(policies) => policies,
            Err(failure) => return wanted.iter().map(|_| Err(failure.clone())).collect(),
        };
        for policy in &mut policies {
            // A read may be older than our last write.
            if let Some((version, roll)) = written.get(&policy.arn)
                && *version > policy.version
            {
                policy.version = *version;
                policy.versions.insert(*version);
                policy.roll = roll.clone();
            }
            policy.roll.prune(self.clock.seconds());
        }
        let mut outcome: Vec<_> = wanted.iter().map(|one| self.place(&mut policies, one)).collect();
        for policy in policies.iter_mut().filter(|policy| !policy.fresh.is_empty()) {
            let fresh = policy.fresh.clone();
            let failure = self.write(policy).await.err();
            if failure.is_none() {
                written.insert(policy.arn.clone(), (policy.version, policy.roll.clone()));
            }
            for (one, outcome) in wanted.iter().zip(&mut outcome) {
                if !fresh.contains(&one.name) || outcome.is_err() {
                    continue;
                }
                match &failure {
                    Some(failure) => *outcome = Err(failure.clone()),
                    None if !policy.roll.has(&one.name) => *outcome = Err(Failure::BeltFull),
                    None => {}
                }
            }
        }
        outcome
    }

    /// Whether each of `asked` has ended or is denied everything, as IAM itself shows it.
    pub(crate) async fn denies(&self, asked: &[Wanted]) -> Result<Vec<bool>, Failure> {
        if asked.iter().all(|one| self.has_ended(one)) {
            return Ok(vec![true; asked.len()]);
        }
        let written = self.written.lock().await.clone();
        let older = |policy: &Policy| {
            written.get(&policy.arn).is_some_and(|(version, _)| *version > policy.version)
        };
        let mut policies = self.read().await?;
        for _ in 0..LOOKS_MAX {
            if !policies.iter().any(older) {
                break;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            policies = self.read().await?;
        }
        let denied = |one: &Wanted| {
            let holds = |policy: &Policy| policy.roll.has(&one.name) && policy.reaches(&one.target);
            self.has_ended(one) || policies.iter().any(holds)
        };
        Ok(asked.iter().map(denied).collect())
    }

    /// Roles and users that no policy, or not every policy, of the belt is attached to.
    pub(crate) async fn loose(&self, targets: &BTreeSet<String>) -> Result<Vec<String>, Failure> {
        let policies = self.read().await?;
        let reached = |name: &String| {
            policies.iter().all(|policy| policy.roles.contains(name) || policy.users.contains(name))
        };
        Ok(targets.iter().filter(|name| !reached(name)).cloned().collect())
    }

    fn has_ended(&self, one: &Wanted) -> bool {
        one.end <= self.clock.seconds()
    }

    /// Adds a name where it denies something and there is room.
    fn place(&self, policies: &mut [Policy], one: &Wanted) -> Result<bool, Failure> {
        if self.has_ended(one) {
            return Ok(false);
        }
        let mut reaching: Vec<_> =
            policies.iter_mut().filter(|policy| policy.reaches(&one.target)).collect();
        if reaching.is_empty() {
            let (Target::Role(name) | Target::User(name)) = &one.target else {
                return Err(Failure::BeltLoose("anything".to_owned()));
            };
            return Err(Failure::BeltLoose(format!("`{name}`")));
        }
        if reaching.iter().any(|policy| policy.roll.has(&one.name)) {
            return Ok(false);
        }
        for policy in &mut reaching {
            if policy.roll.add(&one.name, one.end) {
                policy.fresh.insert(one.name.clone());
                return Ok(true);
            }
        }
        Err(Failure::BeltFull)
    }

    /// Puts a policy's names in force. Names that found no room beside another writer's are
    /// taken out of its roll again.
    async fn write(&self, policy: &mut Policy) -> Result<(), Failure> {
        for _ in 0..WRITES_MAX {
            self.make_room(policy).await?;
            let made = self
                .iam
                .create_policy_version()
                .policy_arn(&policy.arn)
                .policy_document(policy.roll.text())
                .set_as_default(true)
                .send()
                .await?;
            let made = made.policy_version.and_then(|made| number(made.version_id.as_deref()));
            let made = made.ok_or(Failure::Strange("version of the policy"))?;
            let unseen = policy.version.saturating_add(1)..made;
            policy.version = made;
            policy.versions.insert(made);
            let before = policy.roll.clone();
            // Of more than there can be, the last ones: each has what was before it.
            for version in unseen.rev().take(VERSIONS_MAX) {
                if let Some(other) = self.document(&policy.arn, version).await? {
                    policy.fresh.retain(|name| !other.has(name));
                    policy.roll.absorb(other);
                }
            }
            policy.roll.prune(self.clock.seconds());
            if policy.roll == before {
                return Ok(());
            }
            if !policy.roll.fits() {
                // The other's names come first: somebody was told already that they are gone.
                policy.roll.take_back(&policy.fresh);
            }
        }
        Err(Failure::Survived("others write to the deny belt all the time"))
    }

    /// Deletes the oldest versions that are not in force, so that another fits.
    async fn make_room(&self, policy: &mut Policy) -> Result<(), Failure> {
        while policy.versions.len() >= VERSIONS_MAX {
            let oldest = policy.versions.iter().copied().find(|one| *one != policy.version);
            let Some(oldest) = oldest else { return Ok(()) };
            policy.versions.remove(&oldest);
            let deleted = self
                .iam
                .delete_policy_version()
                .policy_arn(&policy.arn)
                .version_id(format!("v{oldest}"))
                .send()
                .await;
            match deleted.map_err(Failure::from) {
                Err(failure) if !failure.is_not_found() => return Err(failure),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }
}
