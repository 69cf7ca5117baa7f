//! How what was minted ends, and whether it has.
//!
//! Invariant: one answer for each that was asked for, in its order; and nothing is gone before
//! IAM has had the time to tell all of AWS.

use dayfly_backend_sdk::{Backend as _, Doomed, Revocation};
use futures_util::future::join_all;

use crate::{
    backend::AwsBackend,
    belt::{Belt, Wanted},
    error::Failure,
    session, user,
};

/// Users that are ended or looked for at a time: IAM answers few requests a second.
const SIDE_BY_SIDE: usize = 8;
const DENYING: &str = "the session could not be denied";

impl AwsBackend {
    async fn wanted(&self, doomed: &[Doomed]) -> Result<Vec<Wanted>, Failure> {
        let user = if session::is_federated(doomed) {
            self.account().identity().await?.user()
        } else {
            None
        };
        Ok(doomed.iter().map(|one| session::wanted(self.prefix(), one, user)).collect())
    }

    pub(crate) async fn deny(&self, belt: &Belt, doomed: &[Doomed]) -> Vec<Revocation> {
        let wanted = match self.wanted(doomed).await {
            Ok(wanted) => wanted,
            Err(failure) => {
                let failed = |_| Revocation::Failed(failure.clone().into_error(DENYING));
                return doomed.iter().map(failed).collect();
            }
        };
        let outcome = belt.deny(&wanted).await;
        if outcome.iter().any(|one| matches!(one, Ok(true))) {
            // What IAM has just been told is not everywhere yet.
            tokio::time::sleep(self.propagation()).await;
        }
        let revocation = |one: Result<bool, Failure>| match one {
            Ok(_) => Revocation::Gone,
            Err(failure) => Revocation::Failed(failure.into_error(DENYING)),
        };
        outcome.into_iter().map(revocation).collect()
    }

    pub(crate) async fn end_users(&self, doomed: &[Doomed]) -> Vec<Revocation> {
        let mut outcome = Vec::with_capacity(doomed.len());
        let mut ended = false;
        for some in doomed.chunks(SIDE_BY_SIDE) {
            let mut ends = Vec::with_capacity(SIDE_BY_SIDE);
            for one in some {
                ends.push(user::end(&self.account().iam, &one.handle));
            }
            for end in join_all(ends).await {
                outcome.push(match end {
                    Ok(there) => {
                        ended |= there;
                        Revocation::Gone
                    }
                    Err(failure) => {
                        Revocation::Failed(failure.into_error("the user could not be ended"))
                    }
                });
            }
        }
        if ended {
            tokio::time::sleep(self.propagation()).await;
        }
        outcome
    }

    pub(crate) async fn users_alive(&self, doomed: &[Doomed]) -> Result<Vec<bool>, Failure> {
        let mut alive = Vec::with_capacity(doomed.len());
        for some in doomed.chunks(SIDE_BY_SIDE) {
            let mut asked = Vec::with_capacity(SIDE_BY_SIDE);
            for one in some {
                asked.push(user::exists(&self.account().iam, &one.handle));
            }
            for exists in join_all(asked).await {
                alive.push(exists?);
            }
        }
        Ok(alive)
    }

    pub(crate) async fn sessions_alive(
        &self,
        belt: &Belt,
        doomed: &[Doomed],
    ) -> Result<Vec<bool>, Failure> {
        let denied = belt.denies(&self.wanted(doomed).await?).await?;
        Ok(denied.into_iter().map(|denied| !denied).collect())
    }
}
