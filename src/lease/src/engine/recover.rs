//! Recovery of a store that lost commits or was restored: what the backends have against what
//! the rows say.
//!
//! Invariant: a survey changes nothing. Reconciling lengthens a row to what the backend's own
//! expiry proves, ends what no row covers, and condemns what is not there; it may be repeated
//! after a crash at any point.

use std::collections::BTreeMap;

use dayfly_backend_sdk::{Doomed, Handle, Liveness, Plan, Revocation, Timestamp};

use super::{Engine, Line};
use crate::{
    Cause, Lease, LeaseId, State, StoreError, Write,
    audit::Entry,
    planted::{self, Bug},
};

/// Credentials that are listed or rows that are read at once.
const PAGE: u32 = 1_000;

/// What one backend has, against the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// Credentials under our prefix.
    pub listed: u64,
    /// How far the backend's marker says that the sweeps had come; zero without a marker.
    pub turn: u64,
    /// Rows that end before the credential's own expiry says: a renewal or an activation was
    /// lost.
    pub longer: Vec<(LeaseId, Timestamp)>,
    /// Credentials that no row covers.
    pub unknown: Vec<Handle>,
    /// Credentials whose row says that they are dead.
    pub dead: Vec<Handle>,
    /// Credentials whose lease two people gave up: known to be there, and the sweep's.
    pub abandoned: Vec<Handle>,
    /// Rows that may live and whose credential is not there.
    pub missing: Vec<LeaseId>,
}

impl Survey {
    /// Whether rows and backend agree, but for what was given up.
    pub fn is_clean(&self) -> bool {
        self.longer.is_empty()
            && self.unknown.is_empty()
            && self.dead.is_empty()
            && self.missing.is_empty()
    }
}

/// Why a survey or a reconciliation stopped.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The backend failed.
    #[error("the backend could not be asked")]
    Backend(#[source] dayfly_backend_sdk::Error),
    /// The prefix belongs to another installation.
    #[error("the prefix belongs to installation {0}")]
    Another(uuid::Uuid),
    /// Something that must be dead is not.
    #[error("`{0}` could not be ended")]
    Alive(Handle),
    /// The store failed.
    #[error("the store could not be asked")]
    Store(#[from] StoreError),
    /// No such backend.
    #[error("no backend of this name is configured")]
    UnknownBackend,
}

impl Engine {
    /// What `backend` has against the rows. The backend is listed first, the rows read after.
    pub async fn survey(&self, backend: &str) -> Result<Survey, SurveyError> {
        let line = self.lines.get(backend).ok_or(SurveyError::UnknownBackend)?;
        let mut survey = Survey::default();
        if let Some(marker) = line.backend.marker().await.map_err(SurveyError::Backend)? {
            if marker.installation != self.store.installation().await? {
                return Err(SurveyError::Another(marker.installation));
            }
            survey.turn = marker.turn;
        }
        if !line.backend.capabilities().list {
            return Ok(survey);
        }
        let listed = listing(line).await?;
        survey.listed = listed.len() as u64;
        let mut covered = BTreeMap::new();
        let mut after = None;
        loop {
            let rows = self.store.living_of(backend, after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            for row in rows {
                compare(&mut survey, &row, listed.get(&row.handle));
                covered.insert(row.handle.clone(), row.id);
            }
        }
        for handle in listed.into_keys().filter(|handle| !covered.contains_key(handle)) {
            self.sort_uncovered(&mut survey, line, handle).await?;
        }
        Ok(survey)
    }

    async fn sort_uncovered(
        &self,
        survey: &mut Survey,
        line: &Line,
        handle: Handle,
    ) -> Result<(), SurveyError> {
        let Some(id) = line.backend.prefix().lease_of(handle.as_str()) else { return Ok(()) };
        let id = LeaseId::from_uuid(id);
        let seen = self.store.sightings(&[id]).await?;
        match seen.first() {
            Some(seen) if seen.backend == line.name && seen.may_live => {}
            Some(seen) if seen.backend == line.name => match self.readable(id).await? {
                Some(row) if matches!(row.state, State::Abandoned { .. }) => {
                    survey.abandoned.push(handle);
                }
                Some(_) | None => survey.dead.push(handle),
            },
            Some(_) | None => survey.unknown.push(handle),
        }
        Ok(())
    }

    /// A lease, unless its row is missing or cannot be read.
    async fn readable(&self, id: LeaseId) -> Result<Option<Lease>, StoreError> {
        match self.store.lease(id).await {
            Err(StoreError::Corrupt { .. }) => Ok(None),
            read => read,
        }
    }

    /// Makes rows and backend agree. What could not be ended is an error, and nothing is
    /// resumed by it; the rest is done.
    pub async fn reconcile(
        &self,
        backend: &str,
        survey: &Survey,
        actor: &str,
    ) -> Result<(), SurveyError> {
        let line = self.lines.get(backend).ok_or(SurveyError::UnknownBackend)?;
        let longer = survey.longer.iter().filter(|_| !planted::is(Bug::KeptForgotten));
        for (lease, expires_at) in longer {
            let (lease, expires_at, actor) = (*lease, *expires_at, actor.to_owned());
            self.store.write(Write::Adopt { lease, expires_at, actor }).await?;
        }
        for lease in &survey.missing {
            let reason = Some("not at its backend".to_owned());
            let (cause, actor) = (Cause::Requested, actor.to_owned());
            self.store.write(Write::Condemn { lease: *lease, cause, actor, reason }).await?;
        }
        let mut alive = None;
        for handle in survey.unknown.iter().chain(&survey.dead) {
            if !self.end_uncovered(backend, line, handle, actor).await? {
                alive = Some(handle.clone());
            }
        }
        alive.map_or(Ok(()), |handle| Err(SurveyError::Alive(handle)))
    }

    async fn end_uncovered(
        &self,
        backend: &str,
        line: &Line,
        handle: &Handle,
        actor: &str,
    ) -> Result<bool, SurveyError> {
        let id = line.backend.prefix().lease_of(handle.as_str()).map(LeaseId::from_uuid);
        let entry = |event| {
            let entry = Entry::new(event, actor).with("backend", backend);
            let entry = entry.with("handle", handle.as_str());
            match id {
                Some(id) => entry.lease(id),
                None => entry,
            }
        };
        self.store.write(Write::Note(entry("orphan.found"))).await?;
        // A row's own plan says what its end needs; without a row there is only the name.
        let row = match id {
            Some(id) => self.readable(id).await?,
            None => None,
        };
        let plan =
            row.filter(|row| row.backend == backend).map_or_else(Plan::default, |row| row.plan);
        let doomed = [Doomed::new(handle.clone(), plan)];
        let revoked = line.backend.revoke(&doomed).await;
        if let Some(Revocation::Failed(error)) = revoked.first() {
            tracing::error!(backend, %handle, %error, "orphan.revoke_failed");
        }
        let found = line.backend.verify(&doomed).await.map_err(SurveyError::Backend)?;
        if found.first() != Some(&Liveness::Gone) {
            return Ok(false);
        }
        self.store.write(Write::Note(entry("orphan.revoked"))).await?;
        Ok(true)
    }

    /// Lets minting go on. `turns` are the surveys'.
    pub async fn resume(&self, actor: &str, turns: Vec<(String, u64)>) -> Result<(), StoreError> {
        self.store.write(Write::Resume { actor: actor.to_owned(), turns }).await.map(drop)
    }
}

/// Everything that a backend has under our prefix, with the lease's expiry where it tells one.
async fn listing(line: &Line) -> Result<BTreeMap<Handle, Option<Timestamp>>, SurveyError> {
    let mut all = BTreeMap::new();
    let mut after: Option<Handle> = None;
    loop {
        let page = line.backend.list(after.as_ref(), PAGE).await.map_err(SurveyError::Backend)?;
        after = page.credentials.last().map(|listed| listed.handle.clone());
        all.extend(page.credentials.into_iter().map(|one| (one.handle, one.expires_at)));
        if !page.more || after.is_none() {
            return Ok(all);
        }
    }
}

fn compare(survey: &mut Survey, row: &Lease, listed: Option<&Option<Timestamp>>) {
    let alive = row.state.cause().is_none();
    match listed {
        // What is to die anyway is the reaper's.
        Some(_) | None if !alive => {}
        Some(Some(until))
            if row.renewable && *until > row.expires_at && row.expires_at < row.max_expires_at =>
        {
            survey.longer.push((row.id, *until));
        }
        // Whether a renewal was lost cannot be told: the row's expiry stands.
        Some(_) => {}
        // A mint may be on its way; its own deadline ends it.
        None if matches!(row.state, State::Pending) => {}
        None => survey.missing.push(row.id),
    }
}
