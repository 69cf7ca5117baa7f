//! A backend's change of our own password.

use super::{Failure, chain, ensure};
use crate::{Backend, ErrorKind, Secret};

/// After it the new password is accepted and the old one is not, twice over. `make` gives a
/// backend that signs in with a password, `old` is the one in use; gives the one that is afterwards.
pub async fn rotation(
    make: &dyn Fn(&Secret) -> Box<dyn Backend>,
    old: &Secret,
) -> Result<Secret, Failure> {
    let failed = |what, error: &crate::Error| Failure::new(format!("{what}: {}", chain(error)));
    let mut current = old.clone();
    for round in 0..2 {
        let new = Secret::new(format!("ROTATED{round}ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"));
        let backend = make(&current);
        ensure(backend.rotates(), "it says that it can")?;
        backend.marker().await.map_err(|error| failed("before", &error))?;
        backend.rotate_root(&new).await.map_err(|error| failed("the change", &error))?;
        make(&new).marker().await.map_err(|error| failed("the new one", &error))?;
        match make(&current).marker().await {
            Err(error) if error.kind() == ErrorKind::Denied => {}
            Err(error) => return Err(failed("the old one", &error)),
            Ok(_) => return Err(Failure::new("the password before is still accepted")),
        }
        current = new;
    }
    Ok(current)
}
