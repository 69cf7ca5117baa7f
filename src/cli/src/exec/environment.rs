//! What the command finds in its environment.
//!
//! Invariant: a role can't set a variable by which its author would run code here, two
//! credentials never share a variable, and the means to get more credentials are withheld.

pub(crate) mod inherit;
pub(super) mod size;

use std::collections::BTreeMap;

use dayfly_api::{Lease, is_reserved, is_variable_name};

pub(crate) use crate::exec::environment::inherit::competing;
use crate::{agent::aws::ADDRESS, args::RoleRequest};

/// What the kernel accepts as one `NAME=value`, its final NUL included.
const VARIABLE_BYTES_MAX: usize = 128 * 1024;

/// Finds what can be known to be wrong before anything is minted.
pub(crate) fn check(requests: &[RoleRequest]) -> Result<(), Error> {
    for (index, request) in requests.iter().enumerate() {
        if requests.iter().take(index).any(|earlier| earlier == request) {
            return Err(Error::Repeated { role: request.role.clone() });
        }
    }
    Ok(())
}

/// The roles to ask for. One that is wanted under two names is minted once.
pub(crate) fn roles(requests: &[RoleRequest]) -> Vec<String> {
    let mut roles = Vec::with_capacity(requests.len());
    for request in requests {
        if !roles.contains(&request.role) {
            roles.push(request.role.clone());
        }
    }
    roles
}

/// One variable that a role's credential sets, and from which field.
#[derive(Clone, Copy)]
pub(super) struct Offered<'a> {
    pub(super) variable: &'a str,
    pub(super) field: &'a str,
    pub(super) value: Option<&'a str>,
}

/// The variables that carry the credentials.
pub(crate) fn injected(
    requests: &[RoleRequest],
    leases: &[Lease],
) -> Result<BTreeMap<String, String>, Error> {
    assigned(requests, |role| {
        let lease = leases.iter().find(|lease| lease.role == role);
        let credential = lease.and_then(|lease| lease.credential.as_ref());
        let credential = credential.ok_or_else(|| Error::NoCredential { role: role.to_owned() })?;
        if credential.environment.is_empty() {
            return Err(Error::NoVariables { role: role.to_owned() });
        }
        let offered = credential.environment.iter().map(|(variable, field)| Offered {
            variable,
            field,
            value: credential.fields.get(field).map(String::as_str),
        });
        Ok(offered.collect())
    })
}

/// The variables that carry what each role offers, under the names that were asked for.
pub(super) fn assigned<'a, 'r>(
    requests: &'r [RoleRequest],
    offered: impl Fn(&'r str) -> Result<Vec<Offered<'a>>, Error>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut variables = BTreeMap::new();
    for request in requests {
        let role = request.role.as_str();
        for Offered { variable, field, value } in offered(role)? {
            let name = match &request.prefix {
                Some(prefix) => format!("{prefix}_{variable}"),
                None => variable.to_owned(),
            };
            let value = value.ok_or_else(|| Error::NoField {
                role: role.to_owned(),
                name: name.clone(),
                field: field.to_owned(),
            })?;
            check_variable(role, &name, value)?;
            if let Some(other) = owners.insert(name.clone(), role) {
                let roles = [other.to_owned(), role.to_owned()];
                return Err(Error::Collision { name, roles });
            }
            variables.insert(name, value.to_owned());
        }
    }
    Ok(variables)
}

/// The same, and by which AWS's SDKs find the endpoint, if there is one.
pub(super) fn with_endpoint(
    injected: BTreeMap<String, String>,
    endpoint: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Error> {
    if endpoint.contains_key(ADDRESS) && injected.contains_key("AWS_ACCESS_KEY_ID") {
        return Err(Error::Shadowed);
    }
    // A region that a role sets stays.
    Ok(endpoint.into_iter().chain(injected).collect())
}

fn check_variable(role: &str, name: &str, value: &str) -> Result<(), Error> {
    let fault = |reason| Error::Variable { role: role.to_owned(), name: name.to_owned(), reason };
    check_name(name).and_then(|()| check_value(name, value)).map_err(fault)
}

/// Finds why a variable can't have this name.
pub(super) fn check_name(name: &str) -> Result<(), &'static str> {
    if !is_variable_name(name) {
        return Err("is not a variable's name");
    }
    if is_reserved(name) {
        return Err("is reserved: it could run code");
    }
    Ok(())
}

/// Finds why the variable `name` can't have this value.
pub(super) fn check_value(name: &str, value: &str) -> Result<(), &'static str> {
    if value.contains('\0') {
        return Err("has a value with a NUL");
    }
    if name.len() + value.len() + 2 > VARIABLE_BYTES_MAX {
        return Err("has a value that is too long for the system");
    }
    Ok(())
}

/// Why the environment can't be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "roles `{}` and `{}` both set {name}; give one of them a name: --role NAME={}",
        roles[0], roles[1], roles[1]
    )]
    Collision { name: String, roles: [String; 2] },
    #[error(
        "the broker gave no credential for role `{role}`; look for its lease in the broker's log"
    )]
    NoCredential { role: String },
    #[error(
        "role `{role}` sets {name} from `{field}`, which its credential does not have; its \
         owner must mend the role"
    )]
    NoField { role: String, name: String, field: String },
    #[error(
        "role `{role}` names no variables for its credential; put its fields into some by \
         --env NAME={role}/FIELD instead of --role"
    )]
    NoVariables { role: String },
    #[error("role `{role}` is given twice; a second one needs a name: --role NAME={role}")]
    Repeated { role: String },
    #[error("role `{role}` is given by --role and by --aws-endpoint; one of them is enough")]
    ServedAndSet { role: String },
    #[error(
        "a role sets AWS_ACCESS_KEY_ID, which AWS's SDKs would take \
         instead of --aws-endpoint; give the role a name: --role NAME=ROLE"
    )]
    Shadowed,
    #[error(
        "the command's arguments and environment take {needed_kib} KiB, and the system allows \
         {allowed_kib} KiB; --clean-env leaves out what the command does not need"
    )]
    TooLarge { needed_kib: usize, allowed_kib: usize },
    #[error("{name} is longer than the system allows; --clean-env leaves it out")]
    TooLong { name: String },
    #[error("role `{role}` sets {name}, which {reason}")]
    Variable { role: String, name: String, reason: &'static str },
}

#[cfg(test)]
mod tests;
