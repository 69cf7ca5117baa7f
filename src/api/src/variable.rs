//! Which environment variables may carry a credential.
//!
//! Invariant: who makes a role can't, by the names that are known for it, run code where its
//! credential is used. The broker refuses such names, and so does whoever puts them into an
//! environment.

/// Names by which programs are steered rather than informed.
const RESERVED: &[&str] = &[
    "BASH_ENV",
    "BROWSER",
    "CDPATH",
    "CLASSPATH",
    "CORECLR_PROFILER",
    "CORECLR_PROFILER_PATH",
    "DOTNET_STARTUP_HOOKS",
    "EDITOR",
    "ENV",
    "GCONV_PATH",
    "GEM_HOME",
    "GEM_PATH",
    "GITHUB_ENV",
    "GITHUB_OUTPUT",
    "GITHUB_PATH",
    "GITHUB_STATE",
    "GITHUB_STEP_SUMMARY",
    "GIT_ASKPASS",
    "GIT_DIR",
    "GIT_EDITOR",
    "GIT_EXEC_PATH",
    "GIT_EXTERNAL_DIFF",
    "GIT_PAGER",
    "GIT_PROXY_COMMAND",
    "GIT_SEQUENCE_EDITOR",
    "GIT_SSH",
    "GIT_SSH_COMMAND",
    "GIT_TEMPLATE_DIR",
    "GLIBC_TUNABLES",
    "GOFLAGS",
    "GRADLE_OPTS",
    "HOME",
    "IFS",
    "JAVA_OPTS",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "LESSCLOSE",
    "LESSOPEN",
    "MAKEFILES",
    "MAKEFLAGS",
    "MANPAGER",
    "MAVEN_OPTS",
    "NODE_EXTRA_CA_CERTS",
    "NODE_OPTIONS",
    "NODE_PATH",
    "OLDPWD",
    "OPENSSL_CONF",
    "OPENSSL_MODULES",
    "PAGER",
    "PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PHPRC",
    "PHP_INI_SCAN_DIR",
    "PROMPT_COMMAND",
    "PS0",
    "PS1",
    "PS2",
    "PS3",
    "PS4",
    "PSQL_EDITOR",
    "PSQL_PAGER",
    "PWD",
    "PYTHONBREAKPOINT",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "PYTHONUSERBASE",
    "RUBYLIB",
    "RUBYOPT",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "SHELL",
    "SHELLOPTS",
    "SSH_ASKPASS",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TERMINFO",
    "USER",
    "VISUAL",
    "XDG_CONFIG_DIRS",
    "XDG_CONFIG_HOME",
    "ZDOTDIR",
    "_JAVA_OPTIONS",
];
const PREFIXES: &[&str] = &[
    "ACTIONS_",
    "BASH_FUNC_",
    "CARGO_BUILD_",
    "CARGO_TARGET_",
    "DAYFLY_",
    "DYLD_",
    "GIT_CONFIG",
    "GIT_TRACE",
    "LD_",
    "LUA_INIT",
    "NPM_CONFIG_",
    "RUNNER_",
];
/// Some programs read `http_proxy`, some `HTTP_PROXY`.
const SUFFIX: &str = "_PROXY";
/// The one name of ours that is a credential's: where an API key goes.
const API_KEY: &str = "DAYFLY_API_KEY";

/// Whether every shell and every program can read a variable of this name.
#[must_use]
pub fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether programs are steered by the variable `name`, so that no credential may be in it.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    RESERVED.contains(&name)
        || upper.ends_with(SUFFIX)
        || (name != API_KEY && PREFIXES.iter().any(|prefix| upper.starts_with(prefix)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_carries_a_credential_is_told_from_what_steers() {
        for name in ["PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "API_KEY", API_KEY, "GITHUB_TOKEN"] {
            assert!(is_variable_name(name) && !is_reserved(name), "{name}");
        }
        for name in ["LD_PRELOAD", "https_proxy", "npm_config_userconfig", "GIT_CONFIG_COUNT"] {
            assert!(is_reserved(name), "{name}");
        }
        for name in ["", "1A", "A-B", "A B", "Ä", "BASH_FUNC_x%%"] {
            assert!(!is_variable_name(name), "{name}");
        }
    }

    /// Whoever reads the list finds a name in it.
    #[test]
    fn the_names_are_in_order() {
        assert!(RESERVED.is_sorted() && PREFIXES.is_sorted());
    }

    /// GitHub's Action sets variables without `dayfly exec`.
    #[test]
    fn the_action_refuses_the_same() {
        let script = include_str!("../../../config/ci/github-action/delivery.mjs");
        let (_, list) = script.split_once("const RESERVED = new Set([").unwrap();
        let (list, _) = list.split_once("]);").unwrap();
        let names: Vec<&str> = list.split(',').map(|name| name.trim().trim_matches('\'')).collect();
        assert_eq!(names.split_last().unwrap().1, RESERVED);
        let (_, pattern) = script.split_once("/^(?:").unwrap();
        let (pattern, _) = pattern.split_once(")|_PROXY$/u").unwrap();
        let pattern = pattern.replace("(?!API_KEY$)", "");
        assert_eq!(pattern.split('|').collect::<Vec<_>>(), PREFIXES);
    }
}
