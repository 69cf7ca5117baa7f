//! `dayfly-server fsck`: every invariant that rows, audit log and backends can show, held
//! against them, beside a system that works.
//!
//! Invariant: it changes nothing, and calls nothing a violation that it has not seen twice.

mod backends;
mod report;
mod rows;

use std::{collections::BTreeMap, io::Write as Output, sync::Arc, time::Duration};

use dayfly_backend_api_key::KeyStore;
use dayfly_backend_sdk::{Backend, Timestamp};
use dayfly_lease::{Clock, Entropy, LeaseId, Store, SystemClock, SystemEntropy};
use dayfly_store::{AnyStore, Inspected, Look};

use self::report::{Finding, Report};
use crate::{
    StoredKeys,
    config::{Config, Faults},
    preflight, root, serve,
};

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// One JSON object instead of text.
    pub json: bool,
    /// Ask the backends too.
    pub backends: bool,
}

/// Rows, or names at a backend, that are looked at together.
const PAGE: u32 = 500;
/// What looks wrong is looked at again after this: the system works on, and between two looks
/// at one thing it may have changed.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// A death that is due for longer is owed.
const OWED_AFTER: Duration = Duration::from_mins(1);
/// How long a backend may take to answer one question.
const ASK_WITHIN: Duration = Duration::from_secs(30);

/// Checks everything; true when nothing is wrong and everything could be looked at.
///
/// # Errors
/// The store cannot be opened or does not answer, or the configuration is wrong.
pub async fn fsck(config: &Config, options: Options, out: &mut dyn Output) -> anyhow::Result<bool> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy::new());
    let signer = serve::signer(config, entropy.as_ref())?;
    let store = serve::open_for_reading(&config.store, &clock).await?;
    let keys: Arc<dyn KeyStore> = Arc::new(StoredKeys::new(store.clone()));
    let mut backends = preflight::backends(&config.backends, &keys, &entropy).map_err(Faults)?;
    let (of, outside) = (store.engine_store(), (&clock, &entropy));
    if let Some(roots) = root::follow(config, &mut backends.by_name, of, outside)? {
        roots.reading().adopt().await?;
    }
    let check = Check {
        engine_store: store.engine_store(),
        store,
        backends: backends.by_name,
        ask: options.backends,
        clock,
    };
    let mut report = Report::new(options.json);
    check.all(signer.public_key(), &mut report, out).await?;
    report.end(out)?;
    Ok(report.is_clean())
}

struct Check {
    store: AnyStore,
    engine_store: Arc<dyn Store>,
    backends: BTreeMap<String, Arc<dyn Backend>>,
    /// Whether backends are asked.
    ask: bool,
    clock: Arc<dyn Clock>,
}

/// What the rows are held against.
struct Known<'a> {
    backends: &'a BTreeMap<String, Arc<dyn Backend>>,
    /// Those that answered.
    answering: Vec<&'a str>,
    /// Time alone ends nothing at the moment: suspended, or held by the brake.
    paused: bool,
    now: Timestamp,
}

impl Check {
    async fn all(
        &self,
        public_key: &[u8],
        report: &mut Report,
        out: &mut dyn Output,
    ) -> anyhow::Result<()> {
        for group in self.store.living().await? {
            if !self.backends.contains_key(&group.backend) {
                report.not_configured(&group);
            }
        }
        let mut answering = Vec::new();
        if self.ask {
            for (name, backend) in &self.backends {
                match self.marker(name, backend.as_ref()).await? {
                    Ok(findings) => {
                        answering.push(name.as_str());
                        report.violations(findings, out)?;
                    }
                    Err(error) => report.not_asked(name, error),
                }
            }
        }
        self.leases(&answering, report, out).await?;
        for name in answering {
            let Some(backend) = self.backends.get(name) else { continue };
            if let Err(error) = self.listed(name, backend.as_ref(), report, out).await? {
                report.not_asked(name, error);
            }
        }
        self.audit(public_key, report, out).await
    }

    /// Every lease's row, a page at a time.
    async fn leases(
        &self,
        answering: &[&str],
        report: &mut Report,
        out: &mut dyn Output,
    ) -> anyhow::Result<()> {
        let mut after = None;
        loop {
            let page = self.store.inspect(Look::After(after, PAGE)).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            report.leases += page.len() as u64;
            let known = self.known(answering).await?;
            for row in &page {
                report.note(row, known.now);
            }
            let first = self.wrong_with(&page, &known).await;
            if first.is_empty() {
                continue;
            }
            self.clock.sleep(LOOK_AGAIN).await;
            let suspects: Vec<LeaseId> = first.iter().filter_map(|finding| finding.lease).collect();
            let again = self.store.inspect(Look::These(suspects)).await?;
            let second = self.wrong_with(&again, &self.known(answering).await?).await;
            report.violations(seen_twice(&first, second), out)?;
        }
    }

    async fn known<'a>(&'a self, answering: &[&'a str]) -> anyhow::Result<Known<'a>> {
        let (now, standing) = (self.engine_store.now().await?, self.engine_store.standing().await?);
        let held = standing.hold.is_some_and(|hold| hold.is_on(now));
        let paused = standing.suspended.is_some() || held;
        Ok(Known { backends: &self.backends, answering: answering.to_vec(), paused, now })
    }

    /// What is wrong with these rows, by themselves and at their backends.
    async fn wrong_with(&self, page: &[Inspected], known: &Known<'_>) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            page.iter().flat_map(|row| rows::wrong_with(row, known)).collect();
        for name in &known.answering {
            let Some(backend) = self.backends.get(*name) else { continue };
            findings.extend(backends::absent(name, backend.as_ref(), page, known.now).await);
        }
        findings
    }

    async fn audit(
        &self,
        public_key: &[u8],
        report: &mut Report,
        out: &mut dyn Output,
    ) -> anyhow::Result<()> {
        let log = dayfly_store::verify(&self.store, public_key, &[]).await?;
        report.records = log.records;
        let faults = log.faults.iter().map(|fault| {
            let todo = "somebody has changed the audit log: keep a copy and find out who";
            Finding::of("audit", "chain", fault.to_string(), todo)
        });
        report.violations(faults.collect(), out)?;
        Ok(())
    }
}

/// Those of `second` that were there the first time too.
fn seen_twice(first: &[Finding], second: Vec<Finding>) -> Vec<Finding> {
    let before = |finding: &Finding| first.iter().any(|other| other.is_the_same_as(finding));
    second.into_iter().filter(before).collect()
}

/// A backend's answer, or why there is none.
async fn bounded<T>(
    call: impl Future<Output = Result<T, dayfly_backend_sdk::Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(ASK_WITHIN, call).await {
        Ok(answer) => answer.map_err(|error| crate::recover::chain(&error)),
        Err(_) => Err(format!("no answer within {} s", ASK_WITHIN.as_secs())),
    }
}
