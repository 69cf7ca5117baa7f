//! `[policies]`: where the rules are.
//!
//! Invariant: the directory is there; a broker without rules would deny everything without
//! a word about why.

use std::path::PathBuf;

use super::section::Section;

/// `[policies]`.
#[derive(Clone, Debug)]
pub struct PolicyConfig {
    /// The directory of the `*.cedar` files.
    pub dir: PathBuf,
}

pub(super) fn read(section: &Section<'_>) -> Option<PolicyConfig> {
    if section.item("dir").is_none() {
        section.missing("dir");
    }
    let dir = section.path("dir")?;
    if !dir.is_dir() {
        section.fault("dir", format!("`{}` is not a directory", dir.display()));
    }
    Some(PolicyConfig { dir })
}
