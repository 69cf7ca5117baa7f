//! `[policies]`: where the rules are.
//!
//! Invariant: the directory is there; a broker without rules would deny everything without
//! a word about why.

use std::path::PathBuf;

use super::section::{Section, flag};

/// `[policies]`.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// The directory of the `*.cedar` files.
    pub dir: PathBuf,
    /// Whether what is open is judged again when the rules were loaded.
    pub recheck: bool,
}

pub(super) fn read(section: &Section<'_>) -> Option<PolicyConfig> {
    if section.item("dir").is_none() {
        section.missing("dir");
    }
    let recheck = section.optional("recheck", flag).unwrap_or(true);
    let dir = section.path("dir")?;
    if !dir.is_dir() {
        section.fault("dir", format!("`{}` is not a directory", dir.display()));
    }
    Some(PolicyConfig { dir, recheck })
}
