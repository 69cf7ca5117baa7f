//! Keys from a file.
//!
//! Invariant: a file is read up to the bound of a key set and no further.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use tokio::io::AsyncReadExt;

use super::{
    super::jwks::{JWKS_LEN_MAX, KeySet},
    KeySource, KeysError,
};

/// A file with a JWK set. It is read again as a URL would be, so keys are rotated by
/// replacing it.
#[derive(Debug)]
pub struct FileKeys {
    path: PathBuf,
}

impl FileKeys {
    /// The file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl KeySource for FileKeys {
    async fn fetch(&self) -> Result<KeySet, KeysError> {
        KeySet::parse(&read(&self.path).await?).map_err(KeysError::Jwks)
    }
}

/// A file's bytes, or one more than a key set may have.
pub(crate) async fn read(path: &Path) -> Result<Vec<u8>, KeysError> {
    let file = tokio::fs::File::open(path).await.map_err(KeysError::File)?;
    let mut bytes = Vec::new();
    let one_more = u64::try_from(JWKS_LEN_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(one_more).read_to_end(&mut bytes).await.map_err(KeysError::File)?;
    Ok(bytes)
}
