//! Where a credential comes from: the agent, or a task that is opened for it.
//!
//! Invariant: a task of our own whose credential was not given away is cancelled.

use std::time::Duration;

use dayfly_api::{CreateTask, Outcome};

use crate::{
    agent::client::{AgentClient, Error as AgentError},
    args::{Context, WantedArgs},
    client::Client,
    credential::handed::{Fault, Handed},
    exec::{self, attended::Caught, opening::Opening},
    failure::{self, Failure},
    identity::Token,
};

/// The task's deadline where the user names none; the credential's own end is its role's.
const TTL: Duration = Duration::from_hours(1);
/// How long to wait for the end of a credential that nobody has.
const CANCEL_WAIT: Duration = Duration::from_secs(5);

/// A credential, and the task that was opened for it.
pub(super) struct Obtained {
    pub(super) handed: Handed,
    own: Option<Own>,
}

struct Own {
    client: Client,
    token: Token,
    task: String,
    /// From before it was asked for.
    caught: Caught,
}

impl Obtained {
    /// Writes `text`, or ends what nobody has got.
    pub(super) async fn show(
        mut self,
        text: Result<String, Fault>,
        context: Context<'_>,
    ) -> Result<u8, Failure> {
        if let Some(own) = &mut self.own
            && let Some(stopped) = own.caught.pending()
        {
            own.cancel().await;
            return Err(stopped.into());
        }
        let given = text.map_err(Failure::from).and_then(|text| {
            context.terminal.data(&text)?;
            Ok(!text.is_empty())
        });
        if let (Ok(false) | Err(_), Some(own)) = (&given, &self.own) {
            own.cancel().await;
        }
        given.map(|_| failure::OK)
    }
}

impl Own {
    async fn cancel(&self) {
        let Self { client, token, task, .. } = self;
        // There is a worse failure to tell, and the deadline ends it anyway.
        let _ = client.complete_task(token, task, Outcome::Cancelled, CANCEL_WAIT).await;
    }
}

/// The credential that is wanted. `protocol` is told to those who look at the broker.
pub(super) async fn obtain(
    wanted: &WantedArgs,
    protocol: &str,
    context: Context<'_>,
) -> Result<Obtained, Failure> {
    if let Some(agent) = agent(wanted, context)? {
        match agent.credential(&wanted.role).await {
            Ok(handed) => return Ok(Obtained { handed, own: None }),
            // It is there for something else, or no more.
            Err(AgentError::UnknownRole { .. } | AgentError::Unreachable { .. })
                if !agent.is_named() => {}
            Err(error) => return Err(error.into()),
        }
    }
    open(wanted, protocol, context).await
}

/// Has the agent revoke what it holds, if `is_it` that was refused somewhere.
pub(super) async fn erase(
    wanted: &WantedArgs,
    context: Context<'_>,
    is_it: impl FnOnce(&Handed) -> Result<bool, Fault>,
) -> Result<(), Failure> {
    let Some(agent) = agent(wanted, context)? else { return Ok(()) };
    let held = match agent.held(&wanted.role).await {
        Ok(held) => held,
        Err(AgentError::UnknownRole { .. } | AgentError::Unreachable { .. })
            if !agent.is_named() =>
        {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(held) = held
        && is_it(&held)?
    {
        agent.erase(&held).await?;
    }
    Ok(())
}

fn agent(wanted: &WantedArgs, context: Context<'_>) -> Result<Option<AgentClient>, Failure> {
    if wanted.no_agent {
        return Ok(None);
    }
    Ok(AgentClient::find(context.ambient)?)
}

async fn open(
    wanted: &WantedArgs,
    protocol: &str,
    context: Context<'_>,
) -> Result<Obtained, Failure> {
    let client = context.client()?;
    let args = &wanted.identity;
    let source = context.workload(args, &client)?;
    let key = exec::key(wanted.no_proof, args, context)?;
    let request = CreateTask {
        purpose: format!("credential {protocol}"),
        ttl_seconds: seconds(wanted.ttl.unwrap_or(TTL)),
        // Nobody stays who could be heard.
        heartbeat_seconds: None,
        bind: None,
        roles: vec![wanted.role.clone()],
        on_behalf_of: wanted.on_behalf.token(context.ambient)?,
    };
    let audience = context.audience(args, &client);
    let mut caught = Caught::install()?;
    let opening = Opening {
        client: &client,
        source: &source,
        audience: &audience,
        key: key.as_ref(),
        request: &request,
    };
    let (opened, stopped) = caught.open(opening, context.terminal).await?;
    let token = Token::of_task(&opened, key.as_ref())?;
    let mut own = Own { client, token, task: opened.id, caught };
    if let Some(stopped) = stopped {
        own.cancel().await;
        return Err(stopped.into());
    }
    let lease = opened.leases.into_iter().find(|lease| lease.role == wanted.role);
    let Some((credential, lease)) =
        lease.and_then(|mut lease| Some((lease.credential.take()?, lease)))
    else {
        own.cancel().await;
        let role = &wanted.role;
        return Err(Fault::new(format!("the broker gave no credential for role `{role}`")).into());
    };
    let mut expires_at = lease.expires_at;
    if let (Some(ttl), true) = (wanted.ttl, lease.renewable) {
        let Own { client, token, caught, .. } = &mut own;
        let renewed = tokio::select! {
            renewed = client.renew_lease(token, &lease.id, seconds(ttl)) => renewed,
            stopped = caught.stopped() => {
                own.cancel().await;
                return Err(stopped.into());
            }
        };
        // Where it is refused, the credential's own life is what there is, and its end says so.
        if let Ok(renewed) = renewed {
            expires_at = renewed.expires_at;
        }
    }
    let handed = Handed { role: lease.role, lease: lease.id, expires_at, credential };
    Ok(Obtained { handed, own: Some(own) })
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}
