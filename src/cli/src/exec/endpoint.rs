//! `exec --aws-endpoint`: a role's AWS credentials on a loopback port while the command runs.
//!
//! Invariant: the credential came with the task like all others, so a command whose endpoint was
//! denied is never started; no other AWS credential that we know of is left in its way.

use std::{collections::BTreeMap, pin::Pin, slice, time::Duration};

use dayfly_api::{Credential, Lease, OpenedTask};

use super::{
    Ended, Error,
    deliver::Plan,
    environment::{self, inherit::TASK},
    report::Record,
    run::Run,
    signals::Signals,
};
use crate::{
    agent::{
        aws::{Endpoint, region},
        hold::{Heard, Holder, Minter},
        uptime,
    },
    args::ExecArgs,
    mask::{Drains, Masking},
};

/// The port, before there is a credential.
#[derive(Debug)]
pub(super) struct Planned {
    role: String,
    endpoint: Endpoint,
    from: Duration,
}

/// The port and its first credential.
#[derive(Debug)]
pub(super) struct Served {
    planned: Planned,
    lease: Lease,
}

impl Planned {
    /// `None` where none is wanted.
    pub(super) async fn of(args: &ExecArgs, plan: &Plan) -> Result<Option<Self>, Error> {
        let Some(role) = args.aws_endpoint.clone() else { return Ok(None) };
        if plan.roles().contains(&role) {
            return Err(environment::Error::ServedAndSet { role }.into());
        }
        let endpoint = Endpoint::bind(&role).await?;
        Ok(Some(Self { role, endpoint, from: uptime() }))
    }

    pub(super) fn role(&self) -> &str {
        &self.role
    }

    /// What the command would be told of it, but for the region.
    pub(super) fn variables(&self) -> BTreeMap<String, String> {
        self.endpoint.variables()
    }

    /// Takes its lease out of those that the command's environment is made of.
    pub(super) fn with_lease(self, opened: &mut OpenedTask) -> Result<Served, Error> {
        let found = opened.leases.iter().position(|lease| lease.role == self.role);
        let lease = found.map(|index| opened.leases.remove(index));
        let missing = || environment::Error::NoCredential { role: self.role.clone() };
        Ok(Served { lease: lease.ok_or_else(missing)?, planned: self })
    }
}

/// What is to be known of credentials that come later.
#[derive(Debug)]
struct News<'a> {
    masking: &'a Masking<'a>,
    record: &'a Record,
}

impl Heard for News<'_> {
    fn minted<'f>(&'f self, lease: &'f Lease) -> Pin<Box<dyn Future<Output = ()> + 'f>> {
        self.record.replaced(lease);
        Box::pin(self.masking.learn(slice::from_ref(lease)))
    }

    fn renewed(&self, lease: &str, expires_at: &str) {
        self.record.renewed(lease, expires_at);
    }
}

impl Run<'_> {
    /// Runs the command, with the endpoint beside it if there is one.
    pub(super) async fn run_served(
        &self,
        served: Result<Option<Served>, Error>,
        credentials: Vec<(String, Credential)>,
        signals: &mut Signals,
        drains: &mut Drains,
    ) -> Result<Ended, Error> {
        let session = self.session;
        self.delivered.borrow_mut().add([(TASK.to_owned(), session.task.id.clone())].into());
        let Some(Served { planned, lease }) = served? else {
            return self.run(credentials, signals, drains).await;
        };
        session.terminal.note(&format!(
            "task {}: role `{}` → lease {} ({}, until {}), for AWS's SDKs",
            session.task.id, lease.role, lease.id, lease.backend, lease.expires_at
        ));
        let Planned { endpoint, from, .. } = planned;
        let news = News { masking: self.masking, record: &session.record };
        let minter = Minter { heard: Some(&news), ..session.minter() };
        let holder = Holder::holding(minter, lease, from, Duration::ZERO)?;
        let mut variables = endpoint.variables();
        variables.extend(holder.held().map(|handed| region(&handed)).unwrap_or_default());
        self.delivered.borrow_mut().add(variables);
        tokio::select! {
            ended = self.run(credentials, signals, drains) => ended,
            never = endpoint.serve(&holder, || {}) => match never {},
            never = holder.keep() => match never {},
        }
    }
}
