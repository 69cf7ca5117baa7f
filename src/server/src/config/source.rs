//! The files that a configuration consists of.
//!
//! Invariant: nothing is read beyond the bounds, and two files never say the same thing.

use std::{
    collections::btree_map::Entry as Slot,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{
    fault::{At, Fault, Report},
    tree::{Table, Value},
};

const FILE_BYTES_MAX: u64 = 1024 * 1024;
const FILES_MAX: usize = 64;

/// The file itself, or the `*.toml` files of a directory, by name.
pub(super) fn find(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in path.read_dir()? {
        let file = entry?.path();
        // Editors and package managers leave hidden files.
        let hidden = file.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && file.extension().is_some_and(|extension| extension == "toml") {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(io::Error::other("no *.toml file is in this directory"));
    }
    if files.len() > FILES_MAX {
        return Err(io::Error::other(format!("more than {FILES_MAX} *.toml files")));
    }
    files.sort();
    Ok(files)
}

/// A file's text.
pub(super) fn read(file: &Path) -> Result<String, Fault> {
    let at = At::file(&file.display().to_string());
    let metadata = file.metadata().map_err(|error| at.fault("", error.to_string()))?;
    if !metadata.is_file() {
        return Err(at.fault("", "this is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(file)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| at.fault("", error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(at.fault("", "the file is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = valid.split(|byte| *byte == b'\n').count();
        At { line, column: 1, ..at }.fault("", "this line is not UTF-8")
    })
}

/// Adds another file's sections. Lists (`[[role]]`) grow; a section stands in one file.
pub(super) fn merge(into: &mut Table, from: Table, report: &Report) {
    for (key, entry) in from.0 {
        match into.0.entry(key) {
            Slot::Vacant(slot) => {
                slot.insert(entry);
            }
            Slot::Occupied(mut slot) => {
                let message = format!("this section is there already, at {}", slot.get().key);
                let fault = entry.key.fault(slot.key().clone(), message);
                match (&mut slot.get_mut().item.value, entry.item.value) {
                    (Value::Array(items), Value::Array(more)) => items.extend(more),
                    _ => report.note(fault),
                }
            }
        }
    }
}
