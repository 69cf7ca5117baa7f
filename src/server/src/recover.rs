//! `dayfly-server recover`: a store that lost commits or was restored, held against the
//! backends, mended, and opened again.
//!
//! Invariant: nothing is ended or changed before a person has seen what and said yes, and
//! minting goes on only after a second look in which nothing differs.

mod say;

use std::{collections::BTreeMap, io::Write as Output, sync::Arc, time::Duration};

use anyhow::Context;
use dayfly_api::Suspension;
use dayfly_backend_api_key::KeyStore;
use dayfly_lease::{
    Clock, Engine, Entropy, ReplicaId, StoreError, Survey, SurveyError, SystemClock, SystemEntropy,
    Write, audit::Entry,
};
use dayfly_store::{AnyStore, Incarnation, Living};

pub(crate) use self::say::chain;
use crate::{
    StoredKeys,
    config::{Config, Faults},
    preflight, root, serve,
};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who asks, as the audit log will name them.
    pub actor: String,
    /// Go on without asking.
    pub yes: bool,
    /// One JSON object instead of text.
    pub json: bool,
    /// Backends that may be left out if they do not answer.
    pub without: Vec<String>,
}

/// How long a backend may take to be looked through.
const SURVEY_WITHIN: Duration = Duration::from_mins(2);
/// What looks wrong is looked at again after this: a mint that was under way may have landed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Mending and looking again; what is never still after so many rounds needs somebody.
const ROUNDS_MAX: u32 = 3;

/// What each backend has against the rows, or why it could not be asked.
pub(crate) type Surveys = BTreeMap<String, Result<Survey, String>>;

/// Everything that is known before anything is changed.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) suspended: Option<Suspension>,
    pub(crate) surveys: Surveys,
    /// Leases of backends that the configuration lacks.
    pub(crate) stranded: Vec<Living>,
}

/// Compares, asks `confirm`, mends and resumes. True when minting goes on.
///
/// # Errors
/// The store cannot be opened or does not answer, or the configuration is wrong.
pub async fn recover(
    config: &Config,
    options: &Options,
    out: &mut dyn Output,
    confirm: &dyn Fn() -> std::io::Result<bool>,
) -> anyhow::Result<bool> {
    let (store, engine) = open(config).await?;
    let result = Recovery { store: &store, engine: &engine, options }.run(out, confirm).await;
    store.close().await;
    result
}

/// The store for writing, beside replicas or alone, and an engine whose loops do not run.
async fn open(config: &Config) -> anyhow::Result<(AnyStore, Arc<Engine>)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let replica = ReplicaId::new(clock.now(), entropy.as_ref());
    let signer = serve::signer(config, entropy.as_ref())?;
    let incarnation = Incarnation { replica, signer };
    let opened = serve::open(&config.store, incarnation, &clock).await;
    let store = opened.context("the store cannot be opened")?;
    let keys: Arc<dyn KeyStore> = Arc::new(StoredKeys::new(store.clone()));
    let mut backends = preflight::backends(&config.backends, &keys, &entropy).map_err(Faults)?;
    let (of, outside) = (store.engine_store(), (&clock, &entropy));
    if let Some(roots) = root::follow(config, &mut backends.by_name, of, outside)? {
        roots.reading().adopt().await?;
    }
    let (all, settings) = (backends.by_name, serve::settings(config, &entropy));
    let engine = Engine::new(store.engine_store(), all, clock, entropy, replica, settings);
    Ok((store, engine))
}

struct Recovery<'a> {
    store: &'a AnyStore,
    engine: &'a Engine,
    options: &'a Options,
}

impl Recovery<'_> {
    async fn run(
        &self,
        out: &mut dyn Output,
        confirm: &dyn Fn() -> std::io::Result<bool>,
    ) -> anyhow::Result<bool> {
        // Before anything is compared: what is minted meanwhile would look like a difference.
        let reason = "recover was started".to_owned();
        self.engine.store().write(Write::Suspend { reason }).await?;
        let picture = self.picture().await?;
        if !self.options.json {
            say::picture(&picture, &self.options.without, out)?;
        }
        let blocked = self.unreachable(&picture.surveys);
        let go = blocked.is_empty() && (self.options.yes || confirm()?);
        let mut after = Surveys::new();
        let mut failed = Vec::new();
        if go {
            (after, failed) = self.mend(picture.surveys.clone()).await?;
        }
        let resumed = go && failed.is_empty() && self.resume(&after).await?;
        let end = say::End { blocked: &blocked, go, failed: &failed, after: &after, resumed };
        if self.options.json {
            let all = say::json(&picture, &end);
            writeln!(out, "{all}")?;
        } else {
            say::end(&end, out)?;
        }
        Ok(resumed)
    }

    async fn picture(&self) -> Result<Picture, StoreError> {
        let standing = self.engine.store().standing().await?;
        let living = self.store.living().await?.into_iter();
        let stranded = living.filter(|group| self.engine.line(&group.backend).is_none());
        Ok(Picture {
            suspended: standing.suspended.map(|suspended| Suspension {
                since: suspended.since.rfc3339(),
                reason: suspended.reason,
            }),
            stranded: stranded.collect(),
            surveys: self.surveys().await,
        })
    }

    async fn surveys(&self) -> Surveys {
        let mut surveys = Surveys::new();
        for name in self.engine.backends() {
            surveys.insert(name.to_owned(), self.steady(name).await);
        }
        surveys
    }

    /// A survey without what only looked wrong because replicas were at work: a mint that was
    /// under way when we suspended lands between the list and the rows, and a death too.
    async fn steady(&self, name: &str) -> Result<Survey, String> {
        let first = self.survey(name).await?;
        if first.missing.is_empty() && first.dead.is_empty() {
            return Ok(first);
        }
        self.engine.clock().sleep(LOOK_AGAIN).await;
        let mut second = self.survey(name).await?;
        second.missing.retain(|id| first.missing.contains(id));
        second.dead.retain(|handle| first.dead.contains(handle));
        Ok(second)
    }

    async fn survey(&self, name: &str) -> Result<Survey, String> {
        match tokio::time::timeout(SURVEY_WITHIN, self.engine.survey(name)).await {
            Ok(survey) => survey.map_err(|error| chain(&error)),
            Err(_) => Err(format!("it did not answer within {} s", SURVEY_WITHIN.as_secs())),
        }
    }

    /// Backends that could not be asked and that nobody said may be left out.
    fn unreachable(&self, surveys: &Surveys) -> Vec<String> {
        let failed = surveys.iter().filter(|(_, survey)| survey.is_err());
        let named = failed.map(|(name, _)| name.clone());
        named.filter(|name| !self.options.without.contains(name)).collect()
    }

    /// Makes rows and backends agree and looks again, until nothing differs; gives the last
    /// look and what is wrong with it.
    async fn mend(&self, mut surveys: Surveys) -> Result<(Surveys, Vec<String>), StoreError> {
        let mut failed = Vec::new();
        for _ in 0..ROUNDS_MAX {
            failed.clear();
            for (name, survey) in &surveys {
                let Ok(survey) = survey else { continue };
                match self.engine.reconcile(name, survey, &self.options.actor).await {
                    Ok(()) => {}
                    // A refusal: the row has moved on meanwhile, and is looked at again.
                    Err(SurveyError::Store(error)) if error.refusal().is_none() => {
                        return Err(error);
                    }
                    Err(error) => failed.push(format!("{name}: {}", chain(&error))),
                }
            }
            surveys = self.surveys().await;
            failed.extend(
                self.unreachable(&surveys)
                    .iter()
                    .map(|name| format!("{name}: it could not be asked again")),
            );
            let open = surveys.iter().filter(|(_, survey)| survey.as_ref().is_ok_and(differs));
            let open: Vec<String> =
                open.map(|(name, _)| format!("{name}: it still differs")).collect();
            if open.is_empty() && failed.is_empty() {
                break;
            }
            failed.extend(open);
        }
        Ok((surveys, failed))
    }

    async fn resume(&self, surveys: &Surveys) -> Result<bool, StoreError> {
        let actor = self.options.actor.as_str();
        let left_out: Vec<&str> = surveys
            .iter()
            .filter(|(_, survey)| survey.is_err())
            .map(|(name, _)| name.as_str())
            .collect();
        if !left_out.is_empty() {
            let entry = Entry::new("store.recovered_without", actor).with("backends", left_out);
            self.engine.store().write(Write::Note(entry)).await?;
        }
        let turn = |(name, survey): (&String, &Result<Survey, String>)| {
            Some((name.clone(), survey.as_ref().ok()?.turn))
        };
        self.engine.resume(actor, surveys.iter().filter_map(turn).collect()).await?;
        Ok(true)
    }
}

/// Whether something is left that nobody answers for. What was condemned may still be there:
/// the reapers have it in hand.
pub(crate) fn differs(survey: &Survey) -> bool {
    !(survey.longer.is_empty() && survey.unknown.is_empty() && survey.dead.is_empty())
}
