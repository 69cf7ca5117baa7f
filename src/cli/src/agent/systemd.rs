//! `LoadCredential=NAME:PATH` of systemd, PATH being a socket (systemd.exec(5)): the service manager
//! connects from an address that says which unit wants which credential, and reads to the end.
//!
//! Invariant: a name that was not given on the command line gets nothing. systemd can't be told that
//! there is none: what it reads then is empty, so our log says why.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt as _,
    net::{UnixStream, unix::SocketAddr},
    time::timeout,
};

use super::{Served, peer::Admitted};
use crate::{
    args::{Part, ServedCredential},
    credential::{Fault, Handed, mysql, pgpass},
    failure::Failure,
};

/// How long systemd has to take it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one connection.
pub(super) async fn answer(
    mut stream: UnixStream,
    credentials: &[ServedCredential],
    served: &Served<'_>,
) {
    if !Admitted::OwnAndRoot.admits(&stream) {
        served.turned_away("another user's process asked on the socket for systemd");
        return;
    }
    // The address that `accept` gives says nothing of an abstract name.
    let Some(wanted) = stream.peer_addr().ok().as_ref().and_then(wanted) else {
        served.turned_away("who asked on the socket for systemd was not systemd");
        return;
    };
    served.asked();
    let Some(credential) = credentials.iter().find(|one| one.name == wanted.name) else {
        served.turned_away(&format!(
            "unit `{}` wants `{}`, which no --credential names",
            wanted.unit, wanted.name
        ));
        return;
    };
    match value(credential, served).await {
        Ok(value) => {
            // Who does not take it has none.
            let _ = timeout(WRITE_TIMEOUT, async {
                stream.write_all(value.as_bytes()).await?;
                stream.shutdown().await
            })
            .await;
        }
        Err(failure) => served.turned_away(&format!(
            "unit `{}` gets no `{}`: {}",
            wanted.unit,
            wanted.name,
            failure.to_line()
        )),
    }
}

async fn value(credential: &ServedCredential, served: &Served<'_>) -> Result<String, Failure> {
    let unknown = || Fault::new(format!("role `{}` is not served", credential.role));
    let holder = served.role(&credential.role).ok_or_else(unknown)?;
    Ok(part(&holder.untold().await?, &credential.part)?)
}

fn part(handed: &Handed, part: &Part) -> Result<String, Fault> {
    match part {
        Part::Field(field) => handed.credential.fields.get(field).cloned().ok_or_else(|| {
            Fault::new(format!("the credential of role `{}` has no `{field}`", handed.role))
        }),
        Part::Mysql => mysql::render(handed, &[]),
        Part::Pgpass => pgpass::render(handed, &[]),
    }
}

/// What a unit wants.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    unit: String,
    name: String,
}

#[cfg(target_os = "linux")]
fn wanted(address: &SocketAddr) -> Option<Wanted> {
    read(address.as_abstract_name()?)
}

/// There is no systemd.
#[cfg(not(target_os = "linux"))]
fn wanted(_: &SocketAddr) -> Option<Wanted> {
    None
}

/// Reads `RANDOM/unit/UNIT/NAME`.
#[cfg(any(target_os = "linux", test))]
fn read(address: &[u8]) -> Option<Wanted> {
    let mut words = std::str::from_utf8(address).ok()?.split('/');
    let (random, kind, unit, name) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let whole = words.next().is_none() && ![random, unit, name].contains(&"");
    (whole && kind == "unit").then(|| Wanted { unit: unit.to_owned(), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dayfly_api::Credential;

    use super::*;

    /// The example of systemd.exec(5).
    #[test]
    fn the_address_says_who_wants_what() {
        let wanted = read(b"adf9d86b6eda275e/unit/foobar.service/credx").unwrap();
        assert_eq!(wanted, Wanted { unit: "foobar.service".into(), name: "credx".into() });
        let template = read(b"1/unit/getty@tty1.service/agetty.password").unwrap();
        assert_eq!(template.unit, "getty@tty1.service");
    }

    #[test]
    fn an_address_of_another_form_wants_nothing() {
        for bad in [
            &b""[..],
            b"/unit/a.service/x",
            b"1/user/a.service/x",
            b"1/unit/a.service/",
            b"1/unit//x",
            b"1/unit/a.service",
            b"1/unit/a.service/x/y",
            b"1/unit/a.service/\xff",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_field_is_given_as_it_is() {
        let fields = BTreeMap::from([("password".to_owned(), "a\nb ".to_owned())]);
        let handed = Handed {
            role: "r".into(),
            lease: "lse_1".into(),
            expires_at: "2026-01-01T00:15:00Z".into(),
            credential: Credential { fields, environment: BTreeMap::new() },
        };
        assert_eq!(part(&handed, &Part::Field("password".into())).unwrap(), "a\nb ");
        let fault = part(&handed, &Part::Field("key".into())).unwrap_err().to_string();
        assert!(fault.contains("`key`") && !fault.contains("a\nb"), "{fault}");
        assert!(part(&handed, &Part::Pgpass).is_err());
    }
}
