//! Opening the configured store and its signing key.
//!
//! Invariant: the signing key is never in the store that it signs for.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::HEXLOWER;
use dayfly_backend_sdk::Secret;
use dayfly_lease::{
    Clock, Entropy, StoreError,
    audit::{SEED_LEN, Signer},
};
use dayfly_store::{
    AnyStore, Incarnation, PostgresOptions, PostgresStore, SqliteOptions, SqliteStore,
};
use zeroize::Zeroizing;

use crate::config::{Config, KeyBytes, StoreConfig};

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The signing key cannot be read or made.
    #[error("the signing key `{path}` cannot be read or made")]
    KeyFile {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The signing key is not 32 bytes.
    #[error("the signing key is not 32 bytes in hex or base64")]
    NotAKey,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Opens the store for a replica that works.
pub async fn open(
    config: &StoreConfig,
    incarnation: Incarnation,
    clock: &Arc<dyn Clock>,
) -> Result<AnyStore, OpenError> {
    let clock = Arc::clone(clock);
    Ok(match config {
        StoreConfig::Postgres { url, connections_max } => {
            let connections_max = *connections_max;
            let options = PostgresOptions { url: url.clone(), connections_max };
            AnyStore::Postgres(PostgresStore::open(&options, incarnation, clock).await?)
        }
        StoreConfig::Sqlite { path } => {
            let options = SqliteOptions { path: path.clone() };
            AnyStore::Sqlite(SqliteStore::open(&options, incarnation, clock).await?)
        }
    })
}

/// Opens the store to look at it, beside a broker that works on it.
pub async fn open_for_reading(
    config: &StoreConfig,
    clock: &Arc<dyn Clock>,
) -> Result<AnyStore, OpenError> {
    Ok(match config {
        StoreConfig::Postgres { url, .. } => {
            let options = PostgresOptions { url: url.clone(), connections_max: 2 };
            AnyStore::Postgres(PostgresStore::open_for_reading(&options).await?)
        }
        StoreConfig::Sqlite { path } => {
            let options = SqliteOptions { path: path.clone() };
            AnyStore::Sqlite(SqliteStore::open_for_reading(&options, Arc::clone(clock))?)
        }
    })
}

/// The configured signing key, or the one beside the embedded store, made if need be.
pub fn signer(config: &Config, entropy: &dyn Entropy) -> Result<Signer, OpenError> {
    let seed = match (&config.audit.signing_key, &config.store) {
        (Some(seed), _) => return Signer::from_seed(seed.expose()).ok_or(OpenError::NotAKey),
        (None, StoreConfig::Sqlite { path }) => key_beside(path, entropy)?,
        (None, StoreConfig::Postgres { .. }) => return Err(OpenError::NotAKey),
    };
    Signer::from_seed(seed.expose()).ok_or(OpenError::NotAKey)
}

/// The key in `DATABASE.signing-key`, which only its owner can read.
pub(crate) fn key_beside(database: &Path, entropy: &dyn Entropy) -> Result<KeyBytes, OpenError> {
    let mut name = database.as_os_str().to_owned();
    name.push(".signing-key");
    let path = PathBuf::from(name);
    let failed = |source| OpenError::KeyFile { path: path.clone(), source };
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            let mut seed = Zeroizing::new([0; SEED_LEN]);
            entropy.fill(seed.as_mut());
            let text = Zeroizing::new(HEXLOWER.encode(seed.as_ref()));
            file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    let mut text = String::new();
    let file = OpenOptions::new().read(true).open(&path).map_err(failed)?;
    // A key file is 64 digits; whatever is much longer is not one.
    file.take(1_024).read_to_string(&mut text).map_err(failed)?;
    let secret = Secret::new(text.trim_end_matches('\n'));
    KeyBytes::parse(&secret).ok_or(OpenError::NotAKey)
}
