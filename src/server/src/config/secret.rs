//! Secrets by reference: `{ file = "…" }` or `{ env = "NAME" }`.
//!
//! Invariant: a secret never stands in the configuration itself, and a file that others can
//! read or replace is not used.

use std::{
    fs::{File, Metadata},
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use dayfly_backend_sdk::Secret;
use zeroize::Zeroizing;

use super::{
    fault::Wrong,
    section::{Context, Reading, Section, expected, text},
    tree::{Item, Value},
};

const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Where a secret is, for whoever uses it long after the start.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// In the environment, which does not change.
    Environment(Secret),
    /// In a file, which may be replaced while we run.
    File(PathBuf),
}

impl SecretSource {
    /// The secret as it is now. Blocks for as long as it takes to read a small file.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Environment(secret) => Ok(secret.clone()),
            Self::File(path) => from_file(path).map_err(|wrong| wrong.message),
        }
    }
}

/// Reads the secret that `item` refers to; faults are noted under `path`.
pub(super) fn resolve(item: &Item, path: &str, context: Context<'_>) -> Option<Secret> {
    find(item, path, context).map(|(_, secret)| secret)
}

/// The same, and where it is.
pub(super) fn find(
    item: &Item,
    path: &str,
    context: Context<'_>,
) -> Option<(SecretSource, Secret)> {
    let refuse = |wrong: Wrong| {
        context.report.note(item.at.fault(path, wrong));
        None
    };
    let Value::Table(table) = &item.value else {
        let form = "a reference to a secret, { file = \"…\" } or { env = \"NAME\" }";
        if let Value::Text(_) = &item.value {
            return refuse(format!("a secret must not stand here; write {form}").into());
        }
        return refuse(expected(form, item));
    };
    let place = (path.to_owned(), &item.at, table);
    Section::read(context, place, |section| {
        let file = section.optional("file", text);
        let env = section.optional("env", text);
        let (in_file, in_env) = (table.item("file").is_some(), table.item("env").is_some());
        match (file, env) {
            _ if in_file == in_env => refuse("needs exactly one of `file` and `env`".into()),
            (Some(file), _) => {
                let file = context.base.join(file);
                let secret = read(section, "file", from_file(&file))?;
                Some((SecretSource::File(file), secret))
            }
            (_, Some(name)) => {
                let secret = read(section, "env", from_env(&name, context.env))?;
                Some((SecretSource::Environment(secret.clone()), secret))
            }
            (None, None) => None,
        }
    })
}

fn read(section: &Section<'_>, key: &str, secret: Reading<Secret>) -> Option<Secret> {
    secret.map_err(|wrong| section.fault(key, wrong)).ok()
}

fn from_env(name: &str, env: &dyn Fn(&str) -> Option<String>) -> Reading<Secret> {
    match env(name) {
        None => Err(format!("the environment variable `{name}` is not set").into()),
        Some(text) if text.is_empty() => {
            Err(format!("the environment variable `{name}` is empty").into())
        }
        Some(text) => Ok(Secret::new(text)),
    }
}

/// The file's text, exactly, but for one newline at its end, which editors add.
fn from_file(path: &Path) -> Reading<Secret> {
    let file = open_private(path)?;
    let mut text = Zeroizing::new(Vec::new());
    let limit = FILE_BYTES_MAX + 1;
    file.take(limit).read_to_end(&mut text).map_err(|error| unreadable(path, &error))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(about(path, "is larger than 64 KiB"));
    }
    let text = std::str::from_utf8(&text).map_err(|_| about(path, "is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.is_empty() {
        return Err(about(path, "is empty"));
    }
    Ok(Secret::new(text))
}

/// Opens a file that nobody else can read or replace.
pub(super) fn open_private(path: &Path) -> Reading<File> {
    // Before opening: to open a pipe waits for its other end.
    let seen = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !seen.is_file() {
        return Err(about(path, "is not a regular file"));
    }
    // A link may lead to another name beside it (Kubernetes swaps secrets so), but not out
    // of its directory.
    let target = path.canonicalize().map_err(|error| unreadable(path, &error))?;
    let home = path.parent().map(Path::canonicalize).transpose();
    let home = home.map_err(|error| unreadable(path, &error))?;
    if !home.is_some_and(|home| target.starts_with(home)) {
        return Err(about(path, "is a link that leads out of its directory"));
    }
    let file = File::open(&target).map_err(|error| unreadable(path, &error))?;
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(about(path, "is not a regular file"));
    }
    let us = own_user().ok_or_else(|| about(path, "cannot be checked: our own user is unknown"))?;
    match private(&metadata, us) {
        Ok(()) => Ok(file),
        Err(why) => Err(about(path, why)),
    }
}

/// Owned by us or by root, and open to nobody else. What root alone wrote for one group to
/// read is accepted: systemd credentials and Kubernetes secrets of a service that is not
/// root look so (0440, nobody can write).
fn private(metadata: &Metadata, us: u32) -> Result<(), &'static str> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != us && owner != 0 {
        return Err("belongs to another user; it must be ours or root's");
    }
    let others = mode & 0o077;
    if others == 0 || (owner == 0 && mode == 0o440) {
        return Ok(());
    }
    Err("is open to other users; chmod it to 0600")
}

/// Who runs this process: its directory in /proc belongs to its effective user.
fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|metadata| metadata.uid())
}

/// Whether a file that is no secret is there for us. Not by opening alone: to open a pipe
/// waits for its other end.
pub(super) fn check_readable(path: &Path) -> Reading<()> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() {
        return Err(about(path, "is not a regular file"));
    }
    File::open(path).map(drop).map_err(|error| unreadable(path, &error))
}

fn about(path: &Path, what: &str) -> Wrong {
    format!("`{}` {what}", path.display()).into()
}

fn unreadable(path: &Path, error: &std::io::Error) -> Wrong {
    if error.kind() == std::io::ErrorKind::NotFound {
        return about(path, "is not there");
    }
    about(path, &format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests;
