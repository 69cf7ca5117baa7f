//! `dayfly credential`: one role's credential in the words of a protocol that programs speak
//! already.
//!
//! Invariant: stdout has what the protocol wants and nothing else, and stderr no secret. What could
//! not be written is ended.

pub(crate) mod aws;
mod docker;
mod gcp;
mod git;
mod handed;
mod host;
mod k8s;
pub(crate) mod mysql;
pub(crate) mod pgpass;
mod source;

use std::io::{self, Read as _};

pub(crate) use crate::credential::handed::{Fault, Handed};
use crate::{
    args::{Context, CredentialArgs, HelperArgs, Protocol, WantedArgs},
    credential::{
        host::Hosts,
        source::{erase, obtain},
    },
    failure::{self, Failure},
    output::printable,
};

/// More than any program asks in.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Gives the credential in the words of `args`.
pub(crate) async fn give(args: &CredentialArgs, context: Context<'_>) -> Result<u8, Failure> {
    match &args.protocol {
        Protocol::Aws(wanted) => {
            let obtained = obtain(wanted, "aws", context).await?;
            let text = aws::process(&obtained.handed, &wanted.field_map);
            obtained.show(text, context).await
        }
        Protocol::Docker(helper) => docker(helper, context).await,
        Protocol::Gcp(wanted) => gcp(wanted, context).await,
        Protocol::Git(helper) => git(helper, context).await,
        Protocol::K8s(wanted) => {
            k8s::check(context.ambient.text("KUBERNETES_EXEC_INFO"))?;
            let obtained = obtain(wanted, "k8s", context).await?;
            let text = k8s::render(&obtained.handed, &wanted.field_map);
            obtained.show(text, context).await
        }
        Protocol::Mysql(wanted) => {
            let obtained = obtain(wanted, "mysql", context).await?;
            let text = mysql::render(&obtained.handed, &wanted.field_map);
            obtained.show(text, context).await
        }
        Protocol::Pgpass(wanted) => {
            let obtained = obtain(wanted, "pgpass", context).await?;
            let text = pgpass::render(&obtained.handed, &wanted.field_map);
            obtained.show(text, context).await
        }
    }
}

async fn gcp(wanted: &WantedArgs, context: Context<'_>) -> Result<u8, Failure> {
    let token_type = context.ambient.text("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE");
    let given = async {
        let obtained = obtain(wanted, "gcp", context).await?;
        let text = gcp::render(&obtained.handed, &wanted.field_map, token_type);
        obtained.show(text, context).await
    };
    match given.await {
        Ok(code) => Ok(code),
        Err(failure) if failure.is_closed_pipe() || failure.is_stop() => Err(failure),
        Err(failure) => {
            let text = gcp::failure(failure.exit_code(), &failure.to_line());
            context.terminal.data(&text)?;
            Ok(failure::OK)
        }
    }
}

async fn git(helper: &HelperArgs, context: Context<'_>) -> Result<u8, Failure> {
    let wanted = &helper.wanted;
    match helper.operation.as_str() {
        "get" => {
            let request = git::Request::read(&asked()?);
            if !request.is_covered(hosts(helper)) {
                return Ok(failure::OK);
            }
            let obtained = obtain(wanted, "git", context).await?;
            let user = helper.username.as_deref();
            let text = request.answer(&obtained.handed, &wanted.field_map, user);
            obtained.show(text, context).await
        }
        "erase" => {
            let request = git::Request::read(&asked()?);
            if request.is_covered(hosts(helper)) {
                erase(wanted, context, |held| request.is_about(held, &wanted.field_map)).await?;
            }
            Ok(failure::OK)
        }
        // There is nothing to store, and what git may ask for one day is for others.
        _ => Ok(failure::OK),
    }
}

/// docker reads errors from stdout.
async fn docker(helper: &HelperArgs, context: Context<'_>) -> Result<u8, Failure> {
    match docker_operation(helper, context).await {
        Ok(code) => Ok(code),
        Err(failure) if failure.is_closed_pipe() || failure.is_stop() => Err(failure),
        Err(failure) => {
            context.terminal.data(&format!("{}\n", printable(&failure.to_line())))?;
            Ok(failure::FAILED)
        }
    }
}

async fn docker_operation(helper: &HelperArgs, context: Context<'_>) -> Result<u8, Failure> {
    let (wanted, user) = (&helper.wanted, helper.username.as_deref());
    match helper.operation.as_str() {
        "get" => {
            let asked = asked()?;
            let address = asked.trim();
            if !hosts(helper).cover_address(address) {
                return Err(Fault::new(docker::NOT_FOUND).into());
            }
            let obtained = obtain(wanted, "docker", context).await?;
            let text = docker::render(&obtained.handed, &wanted.field_map, user, address);
            obtained.show(text, context).await
        }
        "erase" => {
            if hosts(helper).cover_address(asked()?.trim()) {
                erase(wanted, context, |_| Ok(true)).await?;
            }
            Ok(failure::OK)
        }
        "list" => {
            context.terminal.data(&docker::list(hosts(helper), user))?;
            Ok(failure::OK)
        }
        "store" => Err(Fault::new(docker::NO_STORE).into()),
        _ => Err(Fault::new("expected get, erase, list or store").into()),
    }
}

fn hosts(helper: &HelperArgs) -> Hosts<'_> {
    Hosts { named: &helper.hosts, allow_http: helper.allow_http }
}

/// What the program asks for on stdin.
fn asked() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().take(REQUEST_BYTES_MAX).read_to_string(&mut text).map_err(Failure::Input)?;
    Ok(text)
}
