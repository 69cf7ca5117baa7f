//! Whether there is colour, and which.
//!
//! Invariant: what a person asks for counts before the environment, and that before what the
//! stream is; where nobody says anything, only a terminal that can show colour gets it.

use std::ffi::OsString;

use clap::ValueEnum;

use crate::ambient::Ambient;

/// Variables that are against it (<https://no-color.org>), and those that are for it.
const AGAINST: [&str; 2] = ["NO_COLOR", "DAYFLY_NO_COLOR"];
const FOR: [&str; 2] = ["FORCE_COLOR", "CLICOLOR_FORCE"];

/// When there is colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// Also in files and pipes.
    Always,
    /// On a terminal, unless the environment is against it.
    #[default]
    Auto,
    /// Not at all.
    Never,
}

impl When {
    /// What `words` ask for, for when nothing else of them can be understood.
    pub(crate) fn among(words: &[OsString]) -> Self {
        let mut words = words.iter().filter_map(|word| word.to_str());
        let mut when = Self::default();
        while let Some(word) = words.next().filter(|word| *word != "--") {
            let value = match word.strip_prefix("--color") {
                Some("") => words.next(),
                Some(rest) => rest.strip_prefix('='),
                None => None,
            };
            if let Some(Ok(asked)) = value.map(|value| Self::from_str(value, false)) {
                when = asked;
            }
        }
        when
    }

    /// Whether a stream is to have colour.
    pub(crate) fn applies(self, is_terminal: bool, ambient: &Ambient) -> bool {
        let is_set = |name: &&str| ambient.value(name).is_some_and(|value| value != "0");
        match self {
            Self::Always => true,
            Self::Never => false,
            // Any value counts here, as its standard says.
            Self::Auto if AGAINST.iter().any(|name| ambient.value(name).is_some()) => false,
            Self::Auto if FOR.iter().any(is_set) => true,
            Self::Auto => is_terminal && can_steer(ambient),
        }
    }
}

/// Whether the terminal understands more than text.
pub(crate) fn can_steer(ambient: &Ambient) -> bool {
    ambient.value("TERM").is_some_and(|kind| kind != "dumb")
}

/// What colour says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Paint {
    /// It is lost, or has failed.
    Bad,
    /// Somebody should look at it.
    Doubtful,
    /// It is alive.
    Good,
}

impl Paint {
    /// What a state of a lease, a task or a backend calls for.
    pub(super) fn of_state(state: &str) -> Option<Self> {
        match state {
            "active" | "open" => Some(Self::Good),
            "abandoned" => Some(Self::Bad),
            "down" | "foreign" | "held" | "lost" | "revoking" | "suspended" => Some(Self::Doubtful),
            _ => None,
        }
    }

    pub(super) fn on(self, text: &str) -> String {
        let code = match self {
            Self::Bad => "1;31",
            Self::Doubtful => "33",
            Self::Good => "32",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn among(text: &str) -> When {
        When::among(&text.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_flag_counts_before_the_environment_and_that_before_the_terminal() {
        let plain = [("TERM", "xterm")];
        for (when, more, on_terminal, in_pipe) in [
            (When::Auto, None, true, false),
            (When::Auto, Some(("TERM", "dumb")), false, false),
            (When::Auto, Some(("TERM", "")), false, false),
            (When::Auto, Some(("NO_COLOR", "0")), false, false),
            (When::Auto, Some(("NO_COLOR", "")), true, false),
            (When::Auto, Some(("DAYFLY_NO_COLOR", "1")), false, false),
            (When::Auto, Some(("FORCE_COLOR", "1")), true, true),
            (When::Auto, Some(("FORCE_COLOR", "0")), true, false),
            (When::Auto, Some(("CLICOLOR_FORCE", "1")), true, true),
            (When::Always, Some(("NO_COLOR", "1")), true, true),
            (When::Never, Some(("FORCE_COLOR", "1")), false, false),
        ] {
            let variables = plain.into_iter().chain(more);
            let variables = variables.map(|(name, value)| (name.into(), value.into()));
            let ambient = Ambient::new(variables);
            let applies = (when.applies(true, &ambient), when.applies(false, &ambient));
            assert_eq!(applies, (on_terminal, in_pipe), "{when:?} {more:?}");
        }
    }

    #[test]
    fn who_is_against_it_counts_before_who_is_for_it() {
        let both = Ambient::from([("NO_COLOR", "1"), ("FORCE_COLOR", "1"), ("TERM", "xterm")]);
        assert!(!When::Auto.applies(true, &both));
    }

    #[test]
    fn a_flag_is_found_where_the_rest_is_wrong_and_not_among_the_commands_own() {
        assert_eq!(among("dayfly --color never lease lsit"), When::Never);
        assert_eq!(among("dayfly lease lsit --color=always"), When::Always);
        assert_eq!(among("dayfly exec -- ls --color=always"), When::Auto);
        for odd in ["dayfly --color", "dayfly --color maybe", "dayfly --colors always", "dayfly"] {
            assert_eq!(among(odd), When::Auto, "{odd}");
        }
    }
}
