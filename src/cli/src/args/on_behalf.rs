//! `--on-behalf-of-file`: the token of the person who asked for the work.
//!
//! Invariant: the token is read from a file. Standard input is the command's, or a script's.

use std::path::{Path, PathBuf};

use clap::Args;
use dayfly_api::PersonToken;

use crate::{
    ambient::Ambient,
    identity::{self, Error},
};

const VARIABLE: &str = "DAYFLY_ON_BEHALF_OF_FILE";

/// On whose behalf a task is opened.
#[derive(Debug, Args)]
pub(crate) struct OnBehalfArgs {
    #[arg(
        long,
        value_name = "FILE",
        help = "Act on behalf of the person whose token is in this file: what both of you may have \
                [env: DAYFLY_ON_BEHALF_OF_FILE]"
    )]
    pub(crate) on_behalf_of_file: Option<PathBuf>,
}

impl OnBehalfArgs {
    /// The person's token, if a file is named.
    pub(crate) fn token(&self, ambient: &Ambient) -> Result<Option<PersonToken>, Error> {
        let named = ambient.value(VARIABLE).map(Path::new);
        let Some(path) = self.on_behalf_of_file.as_deref().or(named) else { return Ok(None) };
        if path == Path::new("-") {
            let reason = "names standard input, which is not ours to read; name a file";
            return Err(Error::Malformed { origin: "--on-behalf-of-file".to_owned(), reason });
        }
        identity::text_of_file(path).map(PersonToken).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(flag: Option<&Path>, variable: &str) -> Result<Option<String>, Error> {
        let args = OnBehalfArgs { on_behalf_of_file: flag.map(ToOwned::to_owned) };
        let token = args.token(&Ambient::from([(VARIABLE, variable)]))?;
        Ok(token.map(|PersonToken(text)| text))
    }

    #[test]
    fn the_flag_comes_before_the_variable_and_neither_is_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let [ada, bob] = ["ada", "bob"].map(|name| {
            let path = directory.path().join(name);
            std::fs::write(&path, format!("{name}.jwt\n")).unwrap();
            path
        });
        assert_eq!(token(Some(&ada), bob.to_str().unwrap()).unwrap().unwrap(), "ada.jwt");
        assert_eq!(token(None, bob.to_str().unwrap()).unwrap().unwrap(), "bob.jwt");
        assert!(token(None, "").unwrap().is_none());
    }

    #[test]
    fn what_is_no_file_with_one_token_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let two = directory.path().join("two");
        std::fs::write(&two, "ada.jwt bob.jwt").unwrap();
        assert!(matches!(token(Some(Path::new("-")), ""), Err(Error::Malformed { .. })));
        assert!(matches!(token(None, "-"), Err(Error::Malformed { .. })));
        assert!(matches!(token(Some(&two), ""), Err(Error::Malformed { .. })));
        assert!(matches!(token(Some(directory.path()), ""), Err(Error::File { .. })));
    }
}
