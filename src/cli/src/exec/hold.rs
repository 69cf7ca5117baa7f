//! Keeps the command's credentials alive: renews each lease, and replaces it when it can't be
//! renewed any more.
//!
//! Invariant: nothing here ends the command before its credential has ended; a lease that somebody
//! has ended is not replaced; the old credential is revoked only after the command had the new one.

mod hook;
mod retire;

use std::{slice, time::Duration};

use dayfly_api::Lease;
use futures_util::future::{join, join_all};
use rustix::process::Signal;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    time::{Instant, sleep, sleep_until},
};

use crate::{
    args::{OnExpiry, OnRotate},
    client::{self, jittered},
    exec::{
        Session,
        hold::retire::Retiring,
        renew::{self, LastStretch, PAUSE_MIN, Why, life},
        run::Run,
    },
    failure::Failure,
};

/// How long before its end a credential that can't be replaced is told of.
const FORETELL: Duration = Duration::from_mins(5);
/// The longest pause between attempts to replace what has ended already.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// More than the leases that a task has at once.
const QUEUE: usize = 64;
/// What the broker answers while the first request under a key is still being worked on.
const IN_PROGRESS: &str = "idempotency_in_progress";

/// What the command must hear of.
#[derive(Debug)]
pub(super) enum Event {
    /// A credential has ended, and the command is to stop.
    Ended,
    /// Start the command again with what is valid now; then say so.
    Restart(oneshot::Sender<()>),
    /// Files have changed: tell the command; then say so.
    Signal(Signal, oneshot::Sender<()>),
}

/// Keeps every lease until it has ended for good.
pub(super) async fn keep_alive(run: &Run<'_>, events: mpsc::Sender<Event>) {
    let hooks = Mutex::new(());
    let (retiring, retired) = mpsc::channel(QUEUE);
    let leases = run.leases.borrow().clone();
    let keepers: Vec<_> = leases
        .into_iter()
        .map(|lease| {
            let (events, retiring) = (events.clone(), retiring.clone());
            Keeper { run, hooks: &hooks, events, retiring }.keep(lease)
        })
        .collect();
    drop((events, retiring));
    join(join_all(keepers), retire::all(run, retired)).await;
}

/// Keeps one role's credential.
struct Keeper<'k, 'r> {
    run: &'k Run<'r>,
    /// One hook at a time.
    hooks: &'k Mutex<()>,
    events: mpsc::Sender<Event>,
    retiring: mpsc::Sender<Retiring>,
}

/// Why there is no replacement.
enum Failed {
    ForGood(String),
    ForNow(String),
}

impl From<client::Error> for Failed {
    fn from(error: client::Error) -> Self {
        let is_repeated = matches!(
            &error,
            client::Error::Refused { problem, .. } if problem.code == IN_PROGRESS
        );
        let for_now = is_repeated || error.is_temporary();
        let reason = Failure::from(error).to_line();
        if for_now { Self::ForNow(reason) } else { Self::ForGood(reason) }
    }
}

impl Keeper<'_, '_> {
    async fn keep(self, mut lease: Lease) {
        let mut from = self.run.session.opened_at;
        loop {
            let last = renew::to_the_last(self.run.session, &lease, from).await;
            let Some(last) = last else { return };
            let next = match self.obstacle(&lease, &last) {
                Some(obstacle) => {
                    self.foretell(&lease, &last, obstacle).await;
                    None
                }
                None => self.replacement(&lease, &last).await,
            };
            match next {
                Some((next, asked_at)) => (lease, from) = (next, asked_at),
                None => return self.ended(&lease, &last).await,
            }
        }
    }

    /// Why the lease can't be replaced, if that is known by now.
    fn obstacle(&self, lease: &Lease, last: &LastStretch) -> Option<Obstacle> {
        let task_ends = &self.run.session.task.expires_at;
        if last.why == Why::Refused {
            Some(Obstacle::Refused)
        } else if life(&last.max_expires_at, task_ends).is_none_or(|more| more.is_zero()) {
            Some(Obstacle::Task)
        } else if self.run.delivered.borrow().can_replace(&lease.role) {
            None
        } else {
            Some(Obstacle::Delivery)
        }
    }

    /// Says that the credential will end, once, while there is time to do something about it.
    async fn foretell(&self, lease: &Lease, last: &LastStretch, obstacle: Obstacle) {
        let reason = match obstacle {
            Obstacle::Delivery => {
                "its role allows no more, and a running command can't be given another one; \
                 --on-rotate restart can, and so can files (--file)"
            }
            Obstacle::Refused => return,
            Obstacle::Task => "so does the task; --ttl says how long the command may take",
        };
        // Trouble with its renewal was told.
        if last.why != Why::Full {
            return;
        }
        let left = last.ends.saturating_duration_since(Instant::now());
        sleep_until(last.ends - FORETELL.min(left / 2)).await;
        self.warn(&format!(
            "lease {} (role `{}`) ends at {}: {reason}",
            lease.id, lease.role, last.expires_at
        ));
    }

    async fn ended(&self, lease: &Lease, last: &LastStretch) {
        sleep_until(last.ends).await;
        let (id, role) = (&lease.id, &lease.role);
        match self.run.args.deliver.on_expiry {
            OnExpiry::Term => {
                self.warn(&format!("lease {id} (role `{role}`) has ended; stopping the command"));
                // Without a command there is nothing to stop.
                let _ = self.events.send(Event::Ended).await;
            }
            OnExpiry::Warn => self.warn(&format!(
                "lease {id} (role `{role}`) has ended; the command goes on without its credential"
            )),
        }
    }

    /// The lease that comes after `lease`, and when it was asked for: at half of what is left, and
    /// again until there is one. A broker that can't be reached is asked also when the old one has
    /// ended.
    async fn replacement(&self, lease: &Lease, last: &LastStretch) -> Option<(Lease, Instant)> {
        let left = || last.ends.saturating_duration_since(Instant::now());
        sleep(jittered(left() / 2)).await;
        let (mut warned, mut over) = (false, false);
        let named = format!("lease {} (role `{}`)", lease.id, lease.role);
        loop {
            let asked_at = Instant::now();
            match self.replace(lease, last).await {
                Ok(next) => return Some((next, asked_at)),
                Err(Failed::ForGood(reason)) => {
                    self.warn(&format!("{named} is not replaced: {reason}"));
                    return None;
                }
                Err(Failed::ForNow(reason)) if !warned => {
                    warned = true;
                    self.warn(&format!("cannot replace {named} yet: {reason}"));
                }
                Err(Failed::ForNow(_)) => {}
            }
            let left = left();
            if left.is_zero() && !over {
                over = true;
                if self.run.args.deliver.on_expiry == OnExpiry::Term {
                    return None;
                }
                self.warn(&format!(
                    "{named} has ended; the command goes on until there is another"
                ));
            }
            sleep(jittered(left / 2).clamp(PAUSE_MIN, PAUSE_MAX)).await;
        }
    }

    async fn replace(&self, lease: &Lease, last: &LastStretch) -> Result<Lease, Failed> {
        let Session { client, token, .. } = self.run.session;
        let now = client.lease(token, &lease.id).await?;
        if !is_left_alone(&now) {
            let cause = now.cause.as_deref().unwrap_or("no cause is known");
            return Err(Failed::ForGood(format!("it was ended at the broker ({cause})")));
        }
        let key = format!("after-{}", lease.id);
        let mut next = client.mint_once(token, &lease.role, &key).await?;
        self.run.masking.learn(slice::from_ref(&next)).await;
        let Some(credential) = next.credential.take() else {
            return Err(Failed::ForGood("the broker gave no credential".to_owned()));
        };
        let delivered = self.run.delivered.borrow_mut().replace(&lease.role, credential);
        let changed = match delivered {
            Ok(changed) => changed,
            Err(error) => {
                let reason = Failure::Exec(error.into()).to_line();
                // The broker ends it at its time in any case.
                let _ = client
                    .revoke_lease(token, &next.id, "could not be delivered", Duration::ZERO)
                    .await;
                return Err(Failed::ForGood(reason));
            }
        };
        self.run.session.terminal.note(&format!(
            "task {}: role `{}` → lease {} ({}, until {}) after {}",
            self.run.session.task.id, next.role, next.id, next.backend, next.expires_at, lease.id
        ));
        self.run.session.record.replaced(&next);
        self.run.leases.borrow_mut().push(next.clone());
        let told = if changed { self.tell().await } else { None };
        let retiring =
            Retiring { lease: lease.clone(), next: next.id.clone(), ends: last.ends, told };
        // Whoever waits for it lives as long as we do.
        let _ = self.retiring.send(retiring).await;
        Ok(next)
    }

    /// Has the command take what is new. Where that takes its time, the answer says when it is
    /// done.
    async fn tell(&self) -> Option<oneshot::Receiver<()>> {
        let (done, told) = oneshot::channel();
        let event = match &self.run.args.deliver.on_rotate {
            OnRotate::Exec(command) => {
                self.run_hook(command).await;
                return None;
            }
            OnRotate::None => return None,
            OnRotate::Restart => Event::Restart(done),
            OnRotate::Signal(signal) => Event::Signal(*signal, done),
        };
        // Without a command there is nobody to tell.
        let _ = self.events.send(event).await;
        Some(told)
    }

    async fn run_hook(&self, command: &str) {
        let _one = self.hooks.lock().await;
        let environment = self.run.delivered.borrow().environment();
        let reason = match environment {
            Ok(environment) => {
                let variables = environment.variables;
                hook::run(command, variables, self.run.masking).await.err()
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            self.warn(&format!("the command of --on-rotate {reason}"));
        }
    }

    fn warn(&self, message: &str) {
        self.run.session.terminal.warn(message);
    }
}

/// What stands in the way of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// Nobody would find it.
    Delivery,
    /// The broker wants the lease to end.
    Refused,
    /// It would end with the task as well.
    Task,
}

/// Whether a lease is alive or has come to its end: nobody has ended it.
fn is_left_alone(lease: &Lease) -> bool {
    lease.state == "active" || lease.cause.as_deref() == Some("expired")
}
