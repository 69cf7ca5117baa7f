//! What can be told of the delivery before there is a credential, for `exec --dry-run`.
//!
//! Invariant: the names come from the code that delivers. Every value in it is made up, none is
//! shown, and nothing is put anywhere.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use dayfly_api::Credential;

use crate::{
    args::RoleRequest,
    exec::{
        deliver::{
            Delivered, Error, Plan,
            directory::Directory,
            plan::{Content, Item},
            reference::Text,
            values::Values,
        },
        environment::inherit::Inheritance,
    },
};

/// Which variable carries which field, by role; none where that is not known before a mint.
pub(in crate::exec) type Known = BTreeMap<String, Option<BTreeMap<String, String>>>;

/// Stands for every value.
const MADE_UP: &str = "-";

/// Names alone.
#[derive(Debug)]
pub(in crate::exec) struct Foreseen {
    /// What would be set.
    pub(in crate::exec) set: Vec<String>,
    /// What would be set instead of a value that is there.
    pub(in crate::exec) overridden: Vec<String>,
    /// What would be taken away, since it leads past a credential.
    pub(in crate::exec) removed: Vec<String>,
    /// What would keep the value that is there, where a credential has another one.
    pub(in crate::exec) preserved: Vec<String>,
    /// What no command gets.
    pub(in crate::exec) withheld: Vec<String>,
    /// Roles that set variables which nobody knows yet.
    pub(in crate::exec) unknown: Vec<String>,
    /// Files and FIFOs, for people.
    pub(in crate::exec) files: Vec<String>,
}

impl Foreseen {
    /// Finds what is wrong with the names as well. `more` is what no role sets.
    pub(in crate::exec) fn new(
        plan: &Plan,
        file_dir: Option<&Path>,
        inheritance: Inheritance<'_>,
        known: &Known,
        more: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let files = files(plan, file_dir, &inheritance);
        let values = Values::default();
        let mut delivered = Delivered {
            plan,
            inheritance,
            command: &[],
            more,
            directory: None,
            values,
            is_over: Arc::default(),
        };
        for role in &plan.roles {
            let variables = known.get(role).cloned().flatten().unwrap_or_default();
            delivered.values.put(role, made_up(plan, role, variables).into());
        }
        let is_known = |role: &String| known.get(role).is_some_and(Option::is_some);
        let (requests, unknown): (Vec<_>, Vec<_>) =
            plan.requests.iter().cloned().partition(|request| is_known(&request.role));
        let variables = delivered.variables(&requests)?;
        let names: Vec<String> = variables.keys().cloned().collect();
        let withheld = delivered.inheritance.withheld();
        let composed = delivered.inheritance.compose(variables);
        let (overridden, removed): (Vec<_>, Vec<_>) =
            composed.replaced.into_iter().partition(|name| names.contains(name));
        let set = names.into_iter().filter(|name| !composed.preserved.contains(name)).collect();
        Ok(Self {
            set,
            overridden,
            removed,
            preserved: composed.preserved,
            withheld,
            unknown: unknown.into_iter().map(|request: RoleRequest| request.role).collect(),
            files,
        })
    }
}

/// A credential with the fields that variables and the plan's own texts name. Whether there is a
/// field that only the user names, nobody knows yet.
fn made_up(plan: &Plan, role: &str, variables: BTreeMap<String, String>) -> Credential {
    let named = plan.variables.values().flat_map(Text::fields);
    let named = named.filter(|name| name.role == role).map(|name| name.field.clone());
    let fields = variables.values().cloned().chain(named);
    Credential {
        fields: fields.map(|field| (field, MADE_UP.to_owned())).collect(),
        environment: variables,
    }
}

fn files(plan: &Plan, file_dir: Option<&Path>, inheritance: &Inheritance<'_>) -> Vec<String> {
    let place = if let Some(path) = file_dir {
        path.display().to_string()
    } else {
        let (base, in_memory) = Directory::foreseen(inheritance.ambient());
        let memory = if in_memory { "in memory" } else { "not in memory alone" };
        format!("a new directory in {} ({memory})", base.display())
    };
    let shown = |item: &Item| {
        let names: Vec<_> = item.variables().map(|(name, _)| name).collect();
        let kind = if item.is_fifo { "FIFO" } else { "file" };
        let content = match &item.content {
            Content::Field(name) => format!("{}/{}", name.role, name.field),
            Content::Roles { roles, format } => format!("{}:{}", roles.join(","), format.as_str()),
            Content::Template { path, .. } => format!("@{path}"),
        };
        format!("{kind} {} = {content}, in {place}; {}", item.name, names.join(", "))
    };
    plan.items.iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        ambient::Ambient,
        args::{Cli, Command, ExecArgs},
    };

    fn args(words: &[&str]) -> ExecArgs {
        let words = [&["dayfly", "exec"], words, &["--", "true"]].concat();
        let Command::Exec(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!("not exec");
        };
        *args
    }

    fn foreseen(words: &[&str], ambient: &Ambient, known: &Known) -> Result<Foreseen, String> {
        let args = args(words);
        let plan = Plan::new(&args, ambient).map_err(|error| error.to_string())?;
        let inheritance = Inheritance::new(ambient, &args.process.environment);
        let foreseen = Foreseen::new(&plan, None, inheritance, known, BTreeMap::new());
        foreseen.map_err(|error| error.to_string())
    }

    /// Variables with their fields, of a role that tells them.
    type Told<'a> = Option<&'a [(&'a str, &'a str)]>;

    fn known(pairs: &[(&str, Told<'_>)]) -> Known {
        let own = |(variable, field): &(&str, &str)| ((*variable).into(), (*field).into());
        let role = |(role, variables): &(&str, Told<'_>)| {
            ((*role).to_owned(), variables.map(|variables| variables.iter().map(own).collect()))
        };
        pairs.iter().map(role).collect()
    }

    const PG: &[(&str, &str)] =
        &[("PGHOST", "host"), ("PGPASSWORD", "password"), ("PGUSER", "username")];

    #[test]
    fn the_names_are_those_of_the_delivery_itself() {
        let ambient = Ambient::from([
            ("PGHOST", "old"),
            ("PGSERVICE", "old"),
            ("DAYFLY_ID_TOKEN", "jwt"),
            ("HOME", "/h"),
        ]);
        let words = ["--role", "pg", "--env", "TOKEN=api/key"];
        let known = known(&[("pg", Some(PG)), ("api", None)]);
        let seen = foreseen(&words, &ambient, &known).unwrap();
        assert_eq!(seen.set, ["PGHOST", "PGPASSWORD", "PGUSER", "TOKEN"]);
        assert_eq!(
            (seen.overridden, seen.removed),
            (vec!["PGHOST".into()], vec!["PGSERVICE".into()])
        );
        assert_eq!(seen.withheld, ["DAYFLY_ID_TOKEN"]);
        assert!(seen.unknown.is_empty() && seen.files.is_empty());
    }

    #[test]
    fn what_a_file_carries_is_in_no_variable() {
        let words = ["--file", "pgpass=pg"];
        let seen = foreseen(&words, &Ambient::default(), &known(&[("pg", Some(PG))])).unwrap();
        assert_eq!(seen.set, ["DAYFLY_FILE_PGPASS", "PGHOST", "PGPASSFILE", "PGUSER"]);
        assert_eq!(seen.files.len(), 1);
        assert!(seen.files[0].starts_with("file pgpass = pg:pgpass, in "), "{:?}", seen.files);
        assert!(seen.files[0].ends_with("; PGPASSFILE, DAYFLY_FILE_PGPASS"), "{:?}", seen.files);
    }

    #[test]
    fn a_name_that_may_not_be_set_is_refused_before_a_mint() {
        let steering: &[(&str, &str)] = &[("LD_PRELOAD", "key")];
        let error =
            foreseen(&["--role", "r"], &Ambient::default(), &known(&[("r", Some(steering))]));
        assert!(error.unwrap_err().contains("LD_PRELOAD"));
        let both = known(&[("a", Some(PG)), ("b", Some(PG))]);
        let error = foreseen(&["--role", "a", "--role", "b"], &Ambient::default(), &both);
        assert!(error.unwrap_err().contains("--role NAME=b"));
    }

    #[test]
    fn what_is_not_known_is_said_to_be_so() {
        let seen = foreseen(&["--role", "r"], &Ambient::default(), &known(&[("r", None)])).unwrap();
        assert!(seen.set.is_empty());
        assert_eq!(seen.unknown, ["r"]);
    }
}
