//! What the command inherits of our own environment.
//!
//! Invariant: the means to open tasks are withheld whatever is preserved or kept, but for the CI
//! platform's own, which only `--keep-ci-identity` leaves.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
};

use crate::{ambient::Ambient, args::process::EnvironmentArgs};

/// Which task the command runs in. It is no secret, and what is ours in a nested `exec`.
pub(crate) const TASK: &str = "DAYFLY_TASK";

/// With these the command could open tasks of its own, act on ours, or ask the agent.
const WITHHELD: &[&str] = &[
    "DAYFLY_AGENT_SOCKET",
    "DAYFLY_ID_TOKEN",
    "DAYFLY_ON_BEHALF_OF_FILE",
    "DAYFLY_PROOF_KEY_FILE",
    TASK,
];
const WITHHELD_PREFIX: &str = "DAYFLY_TOKEN";
/// Where we look for tokens ourselves. The platform's own variable often has the same value.
const TOKENS: &[&str] = &["DAYFLY_ID_TOKEN", "DAYFLY_TOKEN"];

/// The identities that CI platforms give to a job.
const CI_IDENTITY: &[&str] = &["BITBUCKET_STEP_OIDC_TOKEN", "SYSTEM_OIDCREQUESTURI"];
const CI_IDENTITY_PREFIXES: &[&str] = &[
    "ACTIONS_ID_TOKEN_REQUEST_",
    "CIRCLE_OIDC_TOKEN",
    "CI_JOB_JWT",
    "TFC_WORKLOAD_IDENTITY_TOKEN",
];

/// Where one of a line is injected, the others would lead the client library past it.
const COMPETING: &[&[&str]] = &[
    &["PGHOST", "PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"],
    &["PGPASSFILE", "PGPASSWORD"],
    &["PGPASSWORD", "PGSERVICEFILE"],
    &["MYSQL_HOST", "MYSQL_UNIX_PORT"],
    &["MYSQL_PWD", "MYSQL_TEST_LOGIN_FILE"],
    &[
        "AWS_ACCESS_KEY_ID",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CREDENTIAL_EXPIRATION",
        "AWS_DEFAULT_PROFILE",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SECURITY_TOKEN",
        "AWS_SESSION_TOKEN",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ],
];

/// What every program needs, and the mark by which GitHub's runner finds what a job has left.
const KEPT: &[&str] = &[
    "HOME",
    "LANG",
    "LOGNAME",
    "PATH",
    "RUNNER_TRACKING_ID",
    "SHELL",
    "SSH_AUTH_SOCK",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
];
const KEPT_PREFIX: &str = "LC_";

/// The variables that would lead a client library past what is injected.
pub(crate) fn competing(injected: &BTreeMap<String, String>) -> Vec<&'static str> {
    let mut names = Vec::new();
    for group in COMPETING {
        if group.iter().any(|name| injected.contains_key(*name)) {
            for name in group.iter().filter(|name| !injected.contains_key(**name)) {
                if !names.contains(name) {
                    names.push(*name);
                }
            }
        }
    }
    names
}

/// What we inherited, and what is to be done with it.
#[derive(Debug)]
pub(crate) struct Inheritance<'a> {
    ambient: &'a Ambient,
    args: &'a EnvironmentArgs,
    /// Variables of the identity that opened the task.
    identity: &'a [&'a str],
}

/// The command's whole environment, and what is different in it.
pub(crate) struct ChildEnvironment {
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// Names that were there and now have our value, or none.
    pub(crate) replaced: Vec<String>,
    /// Names that have kept their value, where a credential has another one.
    pub(crate) preserved: Vec<String>,
}

impl<'a> Inheritance<'a> {
    pub(crate) fn new(ambient: &'a Ambient, args: &'a EnvironmentArgs) -> Self {
        Self { ambient, args, identity: &[] }
    }

    /// Where the task was opened with what is in `identity`.
    pub(crate) fn without(self, identity: &'a [&'a str]) -> Self {
        Self { identity, ..self }
    }

    pub(crate) fn ambient(&self) -> &'a Ambient {
        self.ambient
    }

    /// What we inherited, less what is withheld, and then the credentials.
    pub(crate) fn compose(&self, mut injected: BTreeMap<String, String>) -> ChildEnvironment {
        let competing = competing(&injected);
        let preserves = |name: &str| {
            self.args.preserve_env.as_ref().is_some_and(|preserved| preserved.contain(name))
        };
        let mut variables = Vec::new();
        let (mut replaced, mut preserved) = (Vec::new(), Vec::new());
        for (name, value) in self.ambient.iter().filter(|(name, value)| self.passes(name, value)) {
            if let Some(text) = name.to_str()
                && (injected.contains_key(text) || competing.contains(&text))
            {
                if !preserves(text) {
                    replaced.push(text.to_owned());
                    continue;
                }
                preserved.push(text.to_owned());
                injected.remove(text);
            }
            variables.push((name.clone(), value.clone()));
        }
        let injected = injected.into_iter().map(|(name, value)| (name.into(), value.into()));
        variables.extend(injected);
        ChildEnvironment { variables, replaced, preserved }
    }

    /// The names of what is withheld, whatever is preserved or kept.
    pub(crate) fn withheld(&self) -> Vec<String> {
        let named = self.ambient.iter().filter_map(|(name, value)| Some((name.to_str()?, value)));
        let withheld = named.filter(|(name, value)| self.is_withheld(name, value));
        withheld.map(|(name, _)| name.to_owned()).collect()
    }

    fn passes(&self, name: &OsStr, value: &OsStr) -> bool {
        let Some(name) = name.to_str() else { return self.args.clean_env.is_none() };
        !self.is_withheld(name, value)
            && self.args.clean_env.as_ref().is_none_or(|more| is_kept(name) || more.contain(name))
    }

    fn is_withheld(&self, name: &str, value: &OsStr) -> bool {
        if is_ours(name) {
            return true;
        }
        let is_identity = CI_IDENTITY.contains(&name)
            || self.identity.contains(&name)
            || CI_IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || TOKENS.iter().any(|token| self.ambient.value(token) == Some(value));
        is_identity && !self.args.keep_ci_identity
    }
}

/// Whether a variable gives the means to act as we do, and never reaches the command.
pub(crate) fn is_ours(name: &str) -> bool {
    WITHHELD.contains(&name) || name.starts_with(WITHHELD_PREFIX)
}

fn is_kept(name: &str) -> bool {
    KEPT.contains(&name) || name.starts_with(KEPT_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn ambient(names: &[&str]) -> Ambient {
        Ambient::new(names.iter().map(|name| ((*name).into(), format!("old {name}").into())))
    }

    fn composed(
        inherited: &[&str],
        args: &EnvironmentArgs,
        injected: &[(&str, &str)],
    ) -> ChildEnvironment {
        Inheritance::new(&ambient(inherited), args).compose(map(injected))
    }

    fn names(child: &ChildEnvironment) -> Vec<&str> {
        child.variables.iter().map(|(name, _)| name.to_str().unwrap()).collect()
    }

    const IDENTITIES: [&str; 12] = [
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "BITBUCKET_STEP_OIDC_TOKEN",
        "CIRCLE_OIDC_TOKEN_V2",
        "DAYFLY_AGENT_SOCKET",
        "DAYFLY_ID_TOKEN",
        "DAYFLY_ON_BEHALF_OF_FILE",
        "DAYFLY_TASK",
        "DAYFLY_TOKEN",
        "DAYFLY_TOKEN_FILE",
        "DAYFLY_URL",
        "HOME",
    ];

    #[test]
    fn the_means_to_get_more_are_withheld() {
        let child = composed(&IDENTITIES, &EnvironmentArgs::default(), &[("KEY", "k")]);
        assert_eq!(names(&child), ["DAYFLY_URL", "HOME", "KEY"]);
        assert!(child.replaced.is_empty());
        // Whatever else is kept.
        let every: EnvironmentArgs = EnvironmentArgs {
            preserve_env: Some("*".parse().unwrap()),
            clean_env: Some("*".parse().unwrap()),
            keep_ci_identity: false,
        };
        assert_eq!(names(&composed(&IDENTITIES, &every, &[])), ["DAYFLY_URL", "HOME"]);
    }

    #[test]
    fn a_command_may_be_left_the_platforms_identity_and_never_ours() {
        let args = EnvironmentArgs { keep_ci_identity: true, ..EnvironmentArgs::default() };
        let child = composed(&IDENTITIES, &args, &[]);
        let mut expected = IDENTITIES[..4].to_vec();
        expected.extend(["DAYFLY_URL", "HOME"]);
        assert_eq!(names(&child), expected);
    }

    #[test]
    fn the_same_token_under_another_name_is_withheld_too() {
        let ambient = Ambient::from([("DAYFLY_ID_TOKEN", "jwt"), ("MY_TOKEN", "jwt"), ("A", "b")]);
        let args = EnvironmentArgs::default();
        let child = Inheritance::new(&ambient, &args).compose(BTreeMap::new());
        assert_eq!(names(&child), ["A"]);
    }

    #[test]
    fn what_signed_for_the_task_signs_for_nobody_else() {
        let inherited = ["AWS_ACCESS_KEY_ID", "AWS_REGION", "AWS_SECRET_ACCESS_KEY"];
        let ambient = ambient(&inherited);
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let left = |keep_ci_identity, injected: &[(&str, &str)]| {
            let preserve_env = Some("*".parse().unwrap());
            let args =
                EnvironmentArgs { preserve_env, keep_ci_identity, ..EnvironmentArgs::default() };
            let inheritance = Inheritance::new(&ambient, &args).without(&keys);
            let child = inheritance.compose(map(injected));
            let named = |(name, value): &(OsString, OsString)| {
                format!("{}={}", name.display(), value.display())
            };
            child.variables.iter().map(named).collect::<Vec<_>>()
        };
        assert_eq!(left(false, &[]), ["AWS_REGION=old AWS_REGION"]);
        assert_eq!(left(true, &[]).len(), 3);
        let injected = left(false, &[("AWS_ACCESS_KEY_ID", "new")]);
        assert_eq!(injected, ["AWS_REGION=old AWS_REGION", "AWS_ACCESS_KEY_ID=new"]);
    }

    #[test]
    fn the_credential_wins_over_what_was_there() {
        let inherited = ["PGHOST", "PGPASSFILE", "PGSERVICE", "PGSSLMODE"];
        let child = composed(&inherited, &EnvironmentArgs::default(), &[("PGHOST", "new")]);
        assert_eq!(child.replaced, ["PGHOST", "PGSERVICE"]);
        assert_eq!(names(&child), ["PGPASSFILE", "PGSSLMODE", "PGHOST"]);
        assert_eq!(child.variables[2].1, "new");
    }

    #[test]
    fn no_other_credential_of_aws_is_left_beside_ours() {
        let inherited = ["AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN"];
        let keys = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "s")];
        let child = composed(&inherited, &EnvironmentArgs::default(), &keys);
        assert_eq!(child.replaced, ["AWS_PROFILE", "AWS_ROLE_ARN", "AWS_SESSION_TOKEN"]);
        let session = [keys[0], keys[1], ("AWS_SESSION_TOKEN", "t")];
        assert!(!competing(&map(&session)).contains(&"AWS_SESSION_TOKEN"));
    }

    #[test]
    fn what_is_preserved_wins_over_the_credential() {
        let args = EnvironmentArgs {
            preserve_env: Some("PGHOST,PGSERVICE".parse().unwrap()),
            ..EnvironmentArgs::default()
        };
        let injected = [("PGHOST", "new"), ("PGUSER", "new")];
        let child = composed(&["PGHOST", "PGSERVICE", "PGUSER"], &args, &injected);
        assert_eq!(child.replaced, ["PGUSER"]);
        assert_eq!(child.preserved, ["PGHOST", "PGSERVICE"]);
        assert_eq!(names(&child), ["PGHOST", "PGSERVICE", "PGUSER"]);
        assert_eq!(child.variables[0].1, "old PGHOST");
        // What is not there can't be preserved.
        assert_eq!(names(&composed(&[], &args, &injected)), ["PGHOST", "PGUSER"]);
    }

    #[test]
    fn a_clean_environment_has_what_every_program_needs() {
        let inherited =
            ["AWS_PROFILE", "HOME", "LC_ALL", "MINE", "PATH", "RUNNER_TRACKING_ID", "SECRET"];
        let args = EnvironmentArgs {
            clean_env: Some("MINE".parse().unwrap()),
            ..EnvironmentArgs::default()
        };
        let child = composed(&inherited, &args, &[("KEY", "k")]);
        assert_eq!(names(&child), ["HOME", "LC_ALL", "MINE", "PATH", "RUNNER_TRACKING_ID", "KEY"]);
    }

    #[test]
    fn names_that_are_not_text_are_inherited_unless_nothing_is() {
        use std::os::unix::ffi::OsStrExt as _;
        let odd = OsStr::from_bytes(b"\xff").to_owned();
        let ambient = Ambient::new([(odd.clone(), odd.clone())]);
        let every = EnvironmentArgs::default();
        let child = Inheritance::new(&ambient, &every).compose(BTreeMap::new());
        assert_eq!(child.variables, [(odd.clone(), odd)]);
        let none = EnvironmentArgs { clean_env: Some("*".parse().unwrap()), ..every };
        let child = Inheritance::new(&ambient, &none).compose(BTreeMap::new());
        assert!(child.variables.is_empty());
    }
}
