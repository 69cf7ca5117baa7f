//! What was asked for, before anything is minted.
//!
//! Invariant: every name in it is a variable or a file that may be set, and no two things share
//! one; every role that it names is asked for.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::Path,
};

use crate::{
    ambient::Ambient,
    args::{
        DeliverArgs, ExecArgs, FieldName, FileFormat, FileSource, FileSpec, OnRotate, RoleRequest,
    },
    exec::{
        deliver::{
            Error, env_file,
            format::{self, Place, template::Template},
            reference::{Text, has_reference},
        },
        environment,
    },
};

/// No file of settings comes near this.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What goes where.
pub(in crate::exec) struct Plan {
    /// The roles whose own variables are set.
    pub(super) requests: Vec<RoleRequest>,
    /// All roles.
    pub(super) roles: Vec<String>,
    /// Variables besides those that the roles name.
    pub(super) variables: BTreeMap<String, Text>,
    pub(super) items: Vec<Item>,
    /// Variables with references that nobody has named.
    unresolved: Vec<String>,
    pub(super) fifo_reads: Option<u32>,
    pub(super) on_rotate: OnRotate,
}

/// A file or a FIFO.
pub(super) struct Item {
    pub(super) name: String,
    pub(super) content: Content,
    pub(super) is_fifo: bool,
    /// The variable that the user has named for its path.
    variable: Option<String>,
}

pub(super) enum Content {
    Field(FieldName),
    Roles { roles: Vec<String>, format: FileFormat },
    Template { path: String, template: Template },
}

impl Plan {
    /// Reads what the arguments name and finds what is wrong with it.
    pub(in crate::exec) fn new(args: &ExecArgs, ambient: &Ambient) -> Result<Self, Error> {
        environment::check(&args.roles)?;
        let DeliverArgs {
            resolve_env,
            variables,
            env_files,
            files,
            fifos,
            fifo_reads,
            on_rotate,
            ..
        } = &args.deliver;
        let mut plan = Self {
            requests: args.roles.clone(),
            roles: environment::roles(&args.roles),
            variables: BTreeMap::new(),
            items: Vec::new(),
            unresolved: Vec::new(),
            fifo_reads: *fifo_reads,
            on_rotate: on_rotate.clone(),
        };
        for (name, value) in ambient.iter() {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            if !has_reference(value) || environment::inherit::is_ours(name) {
                continue;
            }
            // CI puts strangers' words into variables: titles, messages, names of branches. Only
            // whoever writes the command line says whose text names roles.
            if resolve_env.iter().any(|named| named == name) {
                plan.set(name, value)?;
            } else {
                plan.unresolved.push(name.to_owned());
            }
        }
        for path in env_files {
            plan.take_env_file(path)?;
        }
        for (index, spec) in variables.iter().enumerate() {
            if variables.iter().take(index).any(|earlier| earlier.name == spec.name) {
                return Err(Error::Twice { name: format!("--env {}", spec.name) });
            }
            check_name(&spec.name)?;
            plan.ask_for(&spec.field.role);
            plan.variables.insert(spec.name.clone(), Text::field(spec.field.clone()));
        }
        for (specs, is_fifo) in [(files, false), (fifos, true)] {
            for spec in specs {
                let item = Item::new(spec, is_fifo)?;
                plan.take(item)?;
            }
        }
        plan.check(args.aws_endpoint.is_some())?;
        Ok(plan)
    }

    /// The variables that the command inherits with a reference in them, as they are.
    pub(in crate::exec) fn unresolved(&self) -> &[String] {
        &self.unresolved
    }

    /// The roles to ask for.
    pub(in crate::exec) fn roles(&self) -> &[String] {
        &self.roles
    }

    /// Whether anything but `--role` names `role`.
    pub(super) fn names(&self, role: &str) -> bool {
        let mut fields = self.variables.values().flat_map(Text::fields);
        fields.any(|field| field.role == role) || self.items.iter().any(|item| item.concerns(role))
    }

    fn ask_for(&mut self, role: &str) {
        if !self.roles.iter().any(|other| other == role) {
            self.roles.push(role.to_owned());
        }
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        check_name(name)?;
        let text = Text::parse(value);
        let text = text.map_err(|_| Error::Reference { name: name.to_owned() })?;
        for field in text.fields() {
            self.ask_for(&field.role);
        }
        self.variables.insert(name.to_owned(), text);
        Ok(())
    }

    fn take_env_file(&mut self, path: &Path) -> Result<(), Error> {
        let text = read(path)?;
        let shown = || path.display().to_string();
        let lines = env_file::parse(&text).map_err(|fault| Error::EnvFile {
            path: shown(),
            line: fault.line,
            reason: fault.reason,
        })?;
        lines.iter().try_for_each(|(name, value)| self.set(name, value))
    }

    fn take(&mut self, item: Item) -> Result<(), Error> {
        if self.items.iter().any(|other| other.name == item.name) {
            return Err(Error::Twice { name: format!("the file `{}`", item.name) });
        }
        for (name, _) in item.variables() {
            let taken = self.items.iter().flat_map(Item::variables).any(|(other, _)| other == name);
            if taken || self.variables.contains_key(&name) {
                return Err(Error::Twice { name: format!("the variable {name}") });
            }
        }
        if let Some(variable) = &item.variable {
            check_name(variable)?;
        }
        for role in item.roles() {
            self.ask_for(role);
        }
        if let Some(role) = item.role_with_variables()
            && !self.requests.iter().any(|request| request.role == role)
        {
            self.requests.push(RoleRequest { prefix: None, role: role.to_owned() });
        }
        self.items.push(item);
        Ok(())
    }

    fn check(&self, is_served: bool) -> Result<(), Error> {
        let is_pgpass =
            |item: &Item| matches!(item.content, Content::Roles { format: FileFormat::Pgpass, .. });
        if self.roles.is_empty() && !is_served {
            return Err(Error::NoRole);
        }
        if self.items.iter().any(|item| item.is_fifo && is_pgpass(item)) {
            return Err(Error::FifoPgpass);
        }
        if matches!(self.on_rotate, OnRotate::Signal(_)) && self.items.iter().all(is_pgpass) {
            return Err(Error::NothingChanges);
        }
        Ok(())
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    environment::check_name(name)
        .map_err(|reason| Error::Variable { name: name.to_owned(), reason })
}

fn read(path: &Path) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.display().to_string(), source };
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length <= FILE_BYTES_MAX) {
        Ok(text)
    } else {
        Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")))
    }
}

impl Item {
    fn new(spec: &FileSpec, is_fifo: bool) -> Result<Self, Error> {
        let content = match &spec.source {
            FileSource::Field(name) => Content::Field(name.clone()),
            FileSource::Roles { roles, format } => {
                Content::Roles { roles: roles.clone(), format: *format }
            }
            FileSource::Template(path) => {
                let text = read(path)?;
                let path = path.display().to_string();
                let template = Template::parse(&text);
                let template = template.map_err(|fault| Error::template(&path, fault))?;
                Content::Template { path, template }
            }
        };
        Ok(Self { name: spec.name.clone(), content, is_fifo, variable: spec.variable.clone() })
    }

    fn roles(&self) -> Vec<&str> {
        match &self.content {
            Content::Field(name) => vec![name.role.as_str()],
            Content::Roles { roles, .. } => roles.iter().map(String::as_str).collect(),
            Content::Template { template, .. } => {
                template.fields().map(|name| name.role.as_str()).collect()
            }
        }
    }

    /// Whose own variables are needed beside it: libpq finds no server in a password file, and AWS'
    /// programs no region.
    fn role_with_variables(&self) -> Option<&str> {
        match &self.content {
            Content::Roles { roles, format: FileFormat::Aws | FileFormat::Pgpass } => {
                match roles.as_slice() {
                    [role] => Some(role),
                    _ => None,
                }
            }
            Content::Field(_) | Content::Roles { .. } | Content::Template { .. } => None,
        }
    }

    /// Whether it holds anything of `role`'s.
    pub(super) fn concerns(&self, role: &str) -> bool {
        self.roles().contains(&role)
    }

    /// Whether it holds this field.
    pub(super) fn carries(&self, role: &str, field: &str) -> bool {
        let is_it = |name: &FieldName| name.role == role && name.field == field;
        match &self.content {
            Content::Field(name) => is_it(name),
            Content::Roles { format, .. } => {
                let carried = format::carries(*format);
                self.concerns(role) && carried.is_none_or(|fields| fields.contains(&field))
            }
            Content::Template { template, .. } => template.fields().any(is_it),
        }
    }

    /// The variables that say where it is. No program that looks for a file expects a FIFO.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, Place<'_>)> {
        let (ours, usual) = match (&self.variable, &self.content) {
            (Some(variable), _) => (variable.clone(), Vec::new()),
            (None, Content::Roles { roles, format }) if !self.is_fifo => {
                (self.own_variable(), format::variables(*format, roles, &self.name))
            }
            (None, _) => (self.own_variable(), Vec::new()),
        };
        let usual = usual.into_iter().map(|(name, place)| (name.to_owned(), place));
        usual.chain([(ours, Place::File)])
    }

    fn own_variable(&self) -> String {
        let name = self.name.to_ascii_uppercase();
        format!("DAYFLY_FILE_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
    }
}
