//! What files say where flags and the environment are silent: the project's, the user's, the
//! system's.
//!
//! Invariant: a project file names a broker only if somebody else, whom the checkout's author is
//! not, names the same one or allows it. Flags count before the environment, that before the
//! project, the user and the system.

pub(crate) mod command;
pub(crate) mod fault;
mod file;
pub(crate) mod profile;
mod project;
mod text;

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    ambient::Ambient,
    args::BrokerArgs,
    client::BrokerUrl,
    config::{
        fault::{Fault, Placed, nearest},
        file::{File, Origin},
        profile::Profile,
        project::Found,
    },
    failure::Failure,
};

const SYSTEM_FILE: &str = "/etc/dayfly/config.toml";

/// Where we are, and who.
#[derive(Debug)]
pub(crate) struct Here {
    /// The working directory; it may have been removed.
    directory: Option<PathBuf>,
    system_file: PathBuf,
    /// Users who may choose for us: ourselves and root.
    trusted: [u32; 2],
}

impl Here {
    pub(crate) fn of_process() -> Self {
        Self {
            directory: std::env::current_dir().ok(),
            system_file: SYSTEM_FILE.into(),
            trusted: [rustix::process::geteuid().as_raw(), 0],
        }
    }

    fn trusts(&self, user: u32) -> bool {
        self.trusted.contains(&user)
    }
}

/// All configuration files that there are.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Those that were read, the one that counts first before the others.
    files: Vec<File>,
    /// A project file that another user could have written.
    ignored: Option<PathBuf>,
    user_file: Option<PathBuf>,
    /// What is wrong with them, where they were loaded in spite of it.
    faults: Vec<String>,
}

impl Config {
    /// Reads them. `ambient` is the environment alone.
    pub(crate) fn load(ambient: &Ambient, here: &Here) -> Result<Self, Error> {
        let home = ambient.value("HOME").map(Path::new);
        let mut config = Self { user_file: user_file(ambient, home), ..Self::default() };
        let found = match ambient.value("DAYFLY_PROJECT_FILE") {
            Some(path) => project::named(Path::new(path))?,
            None => project::find(here, home)?,
        };
        match found {
            Found::File { path, text } => config.add(Origin::Project, &path, &text)?,
            Found::Foreign { path } => config.ignored = Some(path),
            Found::Nothing => {}
        }
        if let Some(path) = config.user_file.clone()
            && let Some(text) = project::own(&path, here)?
        {
            config.add(Origin::User, &path, &text)?;
        }
        if let Some(text) = project::own(&here.system_file, here)? {
            config.add(Origin::System, &here.system_file, &text)?;
        }
        Ok(config)
    }

    /// The same for who tells what is wrong with them: what can't be used is left out. With it, what
    /// they say by the variables that would say the same.
    pub(crate) fn load_leniently(
        flags: &BrokerArgs,
        ambient: &Ambient,
        here: &Here,
    ) -> (Self, Vec<(&'static str, OsString)>) {
        let told = |error: Error| vec![Failure::from(error).to_line()];
        match Self::load(ambient, here) {
            Ok(config) => match config.settings(flags, ambient) {
                Ok(settings) => (config, settings),
                Err(error) => (Self { faults: told(error), ..config }, Vec::new()),
            },
            Err(error) => (Self { faults: told(error), ..Self::default() }, Vec::new()),
        }
    }

    /// What is wrong with the files, if [`Self::load_leniently`] has read them.
    pub(crate) fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The files that were read.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    fn add(&mut self, origin: Origin, path: &Path, text: &str) -> Result<(), Error> {
        self.files.push(File::read(origin, path, text).map_err(Error::Faults)?);
        Ok(())
    }

    /// What the user should know about the search.
    pub(crate) fn warning(&self) -> Option<String> {
        let path = self.ignored.as_ref()?.display();
        Some(format!(
            "`{path}` was not read, since it or its directory belongs to another user; if you \
             trust the checkout, set DAYFLY_PROJECT_FILE={path}"
        ))
    }

    /// What the files say, by the variables that would say the same.
    pub(crate) fn settings(
        &self,
        flags: &BrokerArgs,
        ambient: &Ambient,
    ) -> Result<Vec<(&'static str, OsString)>, Error> {
        self.check_url(flags, ambient)?;
        let mut settings = Vec::new();
        if let Some(url) = self.first(|file| file.url.as_ref()) {
            settings.push(("DAYFLY_URL", url.value.to_string().into()));
        }
        if let Some(path) = self.first(|file| file.ca_file.as_ref()) {
            settings.push(("DAYFLY_CA_FILE", path.value.clone().into()));
        }
        if let Some(audience) = self.first(|file| file.audience.as_ref()) {
            settings.push(("DAYFLY_AUDIENCE", audience.value.clone().into()));
        }
        if let Some(identity) = self.identity(ambient) {
            settings.push(("DAYFLY_IDENTITY", identity.value.clone().into()));
        }
        Ok(settings)
    }

    /// The identity that a file names. A token that the environment has counts before it.
    fn identity(&self, ambient: &Ambient) -> Option<&Placed<String>> {
        let identity = self.first(|file| file.identity.as_ref());
        identity.filter(|_| ambient.value("DAYFLY_ID_TOKEN").is_none())
    }

    fn first<'a, T>(&'a self, of: impl Fn(&'a File) -> Option<T>) -> Option<T> {
        self.files.iter().find_map(of)
    }

    /// Refuses a broker that only the project names: whoever wrote the checkout would be sent the
    /// identity token of everybody who uses it.
    fn check_url(&self, flags: &BrokerArgs, ambient: &Ambient) -> Result<(), Error> {
        let project = self.files.iter().find(|file| file.origin == Origin::Project);
        let Some(url) = project.and_then(|project| project.url.as_ref()) else { return Ok(()) };
        let given = [flags.url.as_deref(), ambient.text("DAYFLY_URL")].into_iter().flatten();
        let mut given = given.filter_map(|text| BrokerUrl::parse(Some(text)).ok());
        let others = self.files.iter().filter(|file| file.origin != Origin::Project);
        let mut known = others.flat_map(|file| file.url.iter().chain(&file.allowed_urls));
        if given.any(|other| other.is_same(&url.value))
            || known.any(|other| other.value.is_same(&url.value))
        {
            return Ok(());
        }
        let file = self.user_file.as_deref().unwrap_or(Path::new(SYSTEM_FILE));
        Err(Error::Url {
            at: url.at.to_string(),
            url: url.value.to_string(),
            file: file.display().to_string(),
        })
    }

    /// The profile `name`, as a whole from the first file that has it.
    pub(crate) fn profile(&self, name: &str) -> Result<&Profile, Error> {
        if let Some(profile) = self.first(|file| file.profiles.get(name)) {
            return Ok(profile);
        }
        let names = self.files.iter().flat_map(|file| file.profiles.keys());
        let suggestion = nearest(name, names.map(String::as_str));
        let help = match (suggestion, &self.ignored) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, Some(path)) => format!("`{}` was not read, see above", path.display()),
            (None, None) => "`dayfly config show` lists those that there are".to_owned(),
        };
        Err(Error::NoProfile { name: name.to_owned(), help })
    }
}

fn user_file(ambient: &Ambient, home: Option<&Path>) -> Option<PathBuf> {
    // The specification says that a relative path is to be ignored.
    let named =
        ambient.value("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = named.or_else(|| home.map(|home| home.join(".config")))?;
    Some(directory.join("dayfly/config.toml"))
}

/// Leaves a project file with comments in the working directory.
fn create(path: &Path, text: &str) -> Result<(), Error> {
    let file = fs::OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|source| Error::Unwritable { path: path.display().to_string(), source })
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}", describe(.0))]
    Faults(Vec<Fault>),
    #[error("there is no profile `{name}`; {help}")]
    NoProfile { name: String, help: String },
    #[error("cannot use the configuration file `{path}`: {reason}")]
    Unfit { path: String, reason: &'static str },
    #[error("cannot read the configuration file `{path}`, which must be readable or not there")]
    Unreadable {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot write `{path}`")]
    Unwritable {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "{at} would send your identity token to {url}, which nobody but the checkout names; if \
         that is your broker, write allowed_urls = [\"{url}\"] into {file}"
    )]
    Url { at: String, url: String, file: String },
}

impl Error {
    fn unfit(path: &Path, reason: &'static str) -> Self {
        Self::Unfit { path: path.display().to_string(), reason }
    }

    fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |source| Self::Unreadable { path, source }
    }
}

/// The first, and how many there are besides.
fn describe(faults: &[Fault]) -> String {
    match faults {
        [] => String::new(),
        [fault] => fault.to_string(),
        [fault, more @ ..] => format!("{fault}; and {} more", more.len()),
    }
}

#[cfg(test)]
mod tests;
