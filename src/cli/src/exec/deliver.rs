//! Credentials on their way to the command: variables, files and FIFOs.
//!
//! Invariant: what can be known to be wrong is found before anything is minted; a role's files all
//! hold the same credential, the old one or the new one.

mod directory;
mod env_file;
pub(super) mod fifo;
mod foresee;
mod format;
mod plan;
mod reference;
mod values;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dayfly_api::Credential;
use zeroize::Zeroizing;

pub(super) use crate::exec::deliver::{foresee::Foreseen, plan::Plan};
use crate::{
    ambient::Ambient,
    args::{FieldName, OnRotate, RoleRequest},
    exec::{
        deliver::{
            directory::Directory,
            format::{Place, Section, Unfit},
            plan::{Content, Item},
            values::{Values, is_stable},
        },
        environment::{
            self, Offered,
            inherit::{ChildEnvironment, Inheritance},
            size,
        },
    },
    output::Terminal,
};

/// What another field says as well, or what nobody signs in with.
const DERIVED: &[&str] = &["expiration", "url"];
const USERNAME: &str = "username";
const URL: &str = "url";

/// Where files would be put if nothing names a directory, and whether that is in memory alone.
pub(crate) fn place_of_files(ambient: &Ambient) -> (PathBuf, bool) {
    Directory::foreseen(ambient)
}

/// The credentials as they are, and where they have been put.
pub(super) struct Delivered<'a> {
    plan: &'a Plan,
    inheritance: Inheritance<'a>,
    command: &'a [OsString],
    /// What no credential of the plan's sets.
    more: BTreeMap<String, String>,
    directory: Option<Directory>,
    values: Values,
    /// Nothing more is to be put anywhere.
    is_over: Arc<AtomicBool>,
}

impl<'a> Delivered<'a> {
    /// Makes the directory that the plan needs, if it needs one. It goes with this.
    pub(super) fn prepare(
        plan: &'a Plan,
        file_dir: Option<&Path>,
        inheritance: Inheritance<'a>,
        terminal: &Terminal,
    ) -> Result<Self, Error> {
        let directory = match file_dir {
            _ if plan.items.is_empty() => None,
            Some(path) => Some(Directory::named(path)?),
            None => Some(Directory::make(inheritance.ambient())?),
        };
        if let Some(directory) = directory.as_ref().filter(|directory| !directory.in_memory) {
            terminal.warn(&format!(
                "{} is not kept in memory alone, and the files in it may reach a disk",
                directory.path().display()
            ));
        }
        let (command, more, values) = (&[][..], BTreeMap::new(), Values::default());
        let is_over = Arc::default();
        Ok(Self { plan, inheritance, command, more, directory, values, is_over })
    }

    /// For this command, whose words take room as well.
    pub(super) fn of(self, command: &'a [OsString]) -> Self {
        Self { command, ..self }
    }

    /// Sets these variables as well, where no role does.
    pub(super) fn add(&mut self, variables: BTreeMap<String, String>) {
        self.more.extend(variables);
    }

    /// Takes the credentials and leaves them in the files.
    pub(super) fn fill(
        &mut self,
        credentials: impl Iterator<Item = (String, Credential)>,
    ) -> Result<(), Error> {
        for (role, credential) in credentials {
            self.values.put(&role, credential.into());
        }
        self.write(&self.plan.items.iter().collect::<Vec<_>>())?;
        for item in self.plan.items.iter().filter(|item| item.is_fifo) {
            directory::fifo(&self.path(&item.name)).map_err(|source| Error::write(item, source))?;
        }
        Ok(())
    }

    /// Puts another credential of `role` in the place of the one there was, and says whether that
    /// changed anything. If it can't be delivered, everything is as before.
    pub(super) fn replace(&mut self, role: &str, credential: Credential) -> Result<bool, Error> {
        let plan = self.plan;
        let items: Vec<_> = plan.items.iter().filter(|item| item.concerns(role)).collect();
        let before = self.values.put(role, credential.into());
        let delivered = self.environment().and_then(|_| self.write(&items));
        let changed = self.values.differs(role, before.as_ref());
        if let (Err(_), Some(before)) = (&delivered, before) {
            self.values.put(role, before);
            // What was told already is what matters.
            let _ = self.write(&items);
        }
        delivered.map(|()| changed)
    }

    /// The command's whole environment.
    pub(super) fn environment(&self) -> Result<ChildEnvironment, Error> {
        let environment = self.inheritance.compose(self.variables(&self.plan.requests)?);
        size::check(self.command, &environment.variables)?;
        Ok(environment)
    }

    /// What is set in it, with the own variables of the roles of `requests`.
    fn variables(&self, requests: &[RoleRequest]) -> Result<BTreeMap<String, String>, Error> {
        let mut variables = environment::assigned(requests, |role| self.offered(role))?;
        for (name, text) in &self.plan.variables {
            let value = text.resolve(|field| self.field(field));
            let value = value
                .map_err(|unfit| Error::Unfit { place: format!("the variable {name}"), unfit })?;
            environment::check_value(name, &value)
                .map_err(|reason| Error::Variable { name: name.clone(), reason })?;
            variables.insert(name.clone(), value);
        }
        for item in &self.plan.items {
            for (name, place) in item.variables() {
                let value = match place {
                    Place::Directory => self.base().to_string_lossy().into_owned(),
                    Place::File => self.path(&item.name).to_string_lossy().into_owned(),
                    Place::Text(text) => text.to_owned(),
                };
                variables.insert(name, value);
            }
        }
        Ok(environment::with_endpoint(variables, self.more.clone())?)
    }

    /// What `role` puts into variables by itself: what no file carries instead.
    fn offered(&self, role: &str) -> Result<Vec<Offered<'_>>, environment::Error> {
        let credential = self.values.of(role);
        let credential =
            credential.ok_or_else(|| environment::Error::NoCredential { role: role.to_owned() })?;
        if credential.environment().is_empty() && !self.plan.names(role) {
            return Err(environment::Error::NoVariables { role: role.to_owned() });
        }
        let variables = credential.environment().iter();
        let variables = variables.filter(|(_, field)| self.is_injected(role, field));
        let offered = variables.map(|(variable, field)| Offered {
            variable,
            field,
            value: credential.field(field),
        });
        Ok(offered.collect())
    }

    /// Beside files a role's variables hold where it is for, and the user's name where no file has
    /// one: a variable can't follow a file that changes.
    fn is_injected(&self, role: &str, field: &str) -> bool {
        !self.plan.items.iter().any(|item| item.concerns(role))
            || is_stable(field)
            || (field == USERNAME && !self.is_carried(role, field))
    }

    fn is_carried(&self, role: &str, field: &str) -> bool {
        self.plan.items.iter().any(|item| item.carries(role, field))
    }

    /// Whether the command, or who is told of it, will find another credential of `role`.
    pub(super) fn can_replace(&self, role: &str) -> bool {
        match &self.plan.on_rotate {
            OnRotate::Exec(_) | OnRotate::Restart => true,
            OnRotate::None | OnRotate::Signal(_) => self.is_whole_in_files(role),
        }
    }

    fn is_whole_in_files(&self, role: &str) -> bool {
        let Some(credential) = self.values.of(role) else { return false };
        let url = credential.field(URL).is_some() && self.is_carried(role, URL);
        let mut needed = credential.changing().filter(|field| !DERIVED.contains(field));
        url || (self.plan.items.iter().any(|item| item.concerns(role))
            && needed.all(|field| self.is_carried(role, field)))
    }

    /// Where each file is and which variables say so, for people.
    pub(super) fn places(&self) -> Vec<String> {
        let place = |item: &Item| {
            let names: Vec<_> = item.variables().map(|(name, _)| name).collect();
            let kind = if item.is_fifo { "FIFO" } else { "file" };
            format!("{kind} {} ({})", self.path(&item.name).display(), names.join(", "))
        };
        self.plan.items.iter().map(place).collect()
    }

    /// Removes what was put anywhere.
    pub(super) fn remove(&mut self) -> Result<(), Error> {
        self.is_over.store(true, Ordering::Release);
        let Some(directory) = self.directory.as_mut() else { return Ok(()) };
        let path = directory.path().display().to_string();
        directory.remove().map_err(|source| Error::Remove { path, source })
    }

    /// Writes `items`, all of them or, but for a full disk, none.
    fn write(&self, items: &[&Item]) -> Result<(), Error> {
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            texts.push((item, self.text(item)?));
        }
        let Some(directory) = &self.directory else { return Ok(()) };
        // A FIFO's text is made when it is read; here it has shown that it can be.
        for (item, text) in texts.iter().filter(|(item, _)| !item.is_fifo) {
            directory.write(&item.name, text).map_err(|source| Error::write(item, source))?;
        }
        Ok(())
    }

    fn text(&self, item: &Item) -> Result<Zeroizing<String>, Error> {
        let unfit = |unfit| Error::Unfit { place: format!("the file `{}`", item.name), unfit };
        match &item.content {
            Content::Field(name) => Ok(Zeroizing::new(self.field(name).map_err(unfit)?.to_owned())),
            Content::Roles { roles, format } => {
                let sections = roles.iter().map(|role| self.section(role));
                let sections: Vec<_> = sections.collect::<Result<_, _>>().map_err(unfit)?;
                format::render(*format, &sections).map_err(unfit)
            }
            Content::Template { path, template } => template
                .render(|name| self.field(name).map_err(|unfit| unfit.to_string()))
                .map_err(|fault| Error::template(path, fault)),
        }
    }

    fn field(&self, name: &FieldName) -> Result<&str, Unfit> {
        let section = self.section(&name.role)?;
        section.check()?;
        section.need(&name.field)
    }

    fn section(&self, role: &str) -> Result<Section<'_>, Unfit> {
        let found = self.values.entry(role);
        let found = found.ok_or_else(|| Unfit::NoCredential { role: role.to_owned() })?;
        Ok(Section { role: found.0, credential: found.1 })
    }

    fn base(&self) -> &Path {
        self.directory.as_ref().map_or(Path::new("/"), Directory::path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base().join(name)
    }

    fn fifos(&self) -> Vec<String> {
        let fifos = self.plan.items.iter().filter(|item| item.is_fifo);
        fifos.map(|item| item.name.clone()).collect()
    }

    fn is_over(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_over)
    }

    fn fifo_reads(&self) -> Option<u32> {
        self.plan.fifo_reads
    }

    fn text_of_fifo(&self, name: &str) -> Result<Zeroizing<String>, Error> {
        let item = self.plan.items.iter().find(|item| item.is_fifo && item.name == name);
        item.map_or_else(|| Ok(Zeroizing::default()), |item| self.text(item))
    }
}

/// Why credentials can't be delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Directory(#[from] directory::Error),
    #[error("`{path}`, line {line}: it {reason}")]
    EnvFile { path: String, line: usize, reason: &'static str },
    #[error(transparent)]
    Environment(#[from] environment::Error),
    #[error("a FIFO can't be in the format pgpass: libpq reads plain files alone; use --file")]
    FifoPgpass,
    #[error(
        "name a role: --role ROLE, a profile that has some, or dayfly://ROLE/FIELD in a variable"
    )]
    NoRole,
    #[error(
        "--on-rotate signal needs a file or a FIFO that holds the whole credential: the variables \
         of a running command don't change, and pgpass has no user's name of its own \
         (pg_service has)"
    )]
    NothingChanges,
    #[error("cannot read `{path}`")]
    Read {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("the variable {name} has a dayfly:// that is not dayfly://ROLE/FIELD")]
    Reference { name: String },
    #[error("cannot remove the files in `{path}`; remove them by hand, they hold credentials")]
    Remove {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("`{path}`, line {line}, column {column}: {reason}")]
    Template { path: String, line: usize, column: usize, reason: String },
    #[error("{name} is given twice")]
    Twice { name: String },
    #[error("{place} can't be made: {unfit}")]
    Unfit { place: String, unfit: Unfit },
    #[error("the variable {name} {reason}")]
    Variable { name: String, reason: &'static str },
    #[error("cannot write the file `{name}`; --file-dir names another place")]
    Write {
        name: String,
        #[source]
        source: io::Error,
    },
}

impl Error {
    fn template(path: &str, fault: format::template::Fault) -> Self {
        let format::template::Fault { at, reason } = fault;
        Self::Template { path: path.to_owned(), line: at.line, column: at.column, reason }
    }

    fn write(item: &Item, source: io::Error) -> Self {
        Self::Write { name: item.name.clone(), source }
    }
}

#[cfg(test)]
mod tests;
