//! git's credential helper (gitcredentials(7)).
//!
//! Invariant: what git does not ask about is not answered, and no value can add a line to the
//! answer.

use crate::{
    args::MappedField,
    credential::{
        handed::{Fault, Fields, Handed, one_line},
        host::Hosts,
    },
};

const NAMES: &[&str] = &["password", "username"];
/// Whom GitHub and GitLab take a token from when it has no user; others do not look.
const USERNAME: &str = "x-access-token";

/// What git says about what it wants. Attributes that we do not know are for other helpers.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Request {
    protocol: String,
    host: String,
    username: Option<String>,
    password: Option<String>,
}

impl Request {
    pub(super) fn read(text: &str) -> Self {
        let mut request = Self::default();
        for line in text.lines().take_while(|line| !line.is_empty()) {
            let Some((name, value)) = line.split_once('=') else { continue };
            match name {
                "protocol" => value.clone_into(&mut request.protocol),
                "host" => value.clone_into(&mut request.host),
                "username" => request.username = Some(value.to_owned()),
                "password" => request.password = Some(value.to_owned()),
                _ => {}
            }
        }
        request
    }

    /// Whether it is about a host that we answer for.
    pub(super) fn is_covered(&self, hosts: Hosts<'_>) -> bool {
        hosts.cover(&self.protocol, &self.host)
    }

    /// Whether it is this credential that a server did not take.
    pub(super) fn is_about(&self, handed: &Handed, named: &[MappedField]) -> Result<bool, Fault> {
        let password = password(&Fields::of(handed, named, NAMES)?)?;
        Ok(self.password.as_deref().is_some_and(|rejected| rejected == password))
    }

    /// What git reads from stdout; empty where it wants another user's.
    pub(super) fn answer(
        &self,
        handed: &Handed,
        named: &[MappedField],
        username: Option<&str>,
    ) -> Result<String, Fault> {
        let fields = Fields::of(handed, named, NAMES)?;
        let own = fields.found("username", &["username"])?.or(username);
        let user = match (own, self.username.as_deref()) {
            (Some(own), Some(wanted)) if own != wanted => return Ok(String::new()),
            (Some(user), _) | (None, Some(user)) => user,
            (None, None) => USERNAME,
        };
        let user = one_line("username", user)?;
        let password = one_line("password", password(&fields)?)?;
        let end = handed.end_unix()?;
        Ok(format!("username={user}\npassword={password}\npassword_expiry_utc={end}\n"))
    }
}

fn password<'a>(fields: &Fields<'a>) -> Result<&'a str, Fault> {
    fields.wanted("password", &["password", "token", "key"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::handed::handed;

    const ASKED: &str = "protocol=https\nhost=github.com\nwwwauth[]=Basic realm=\"x\"\n\
                         capability[]=authtype\npath=a/b.git\nunknown\n";

    fn hosts(named: &[String]) -> Hosts<'_> {
        Hosts { named, allow_http: false }
    }

    #[test]
    fn a_token_is_given_to_the_host_that_was_named() {
        let request = Request::read(ASKED);
        let named = ["github.com".to_owned()];
        assert!(request.is_covered(hosts(&named)));
        assert!(!request.is_covered(hosts(&["gitlab.com".to_owned()])));
        let token = handed(&[("token", "ghs_=x=")]);
        let answer = request.answer(&token, &[], None).unwrap();
        assert_eq!(
            answer,
            "username=x-access-token\npassword=ghs_=x=\npassword_expiry_utc=1767226500\n"
        );
        let answer = request.answer(&token, &[], Some("bot")).unwrap();
        assert!(answer.starts_with("username=bot\n"), "{answer}");
        for other in ["protocol=http\nhost=github.com\n", "host=github.com\n", "", "\nhost=x"] {
            assert!(!Request::read(other).is_covered(hosts(&named)), "{other:?}");
        }
    }

    #[test]
    fn nothing_after_the_blank_line_is_read() {
        let request = Request::read("protocol=https\n\nhost=github.com\n");
        assert!(request == Request { protocol: "https".into(), ..Request::default() });
    }

    #[test]
    fn another_user_is_not_answered_for() {
        let asked = |user: &str| Request::read(&format!("{ASKED}username={user}\n"));
        let own = handed(&[("username", "df_x"), ("password", "hunter2")]);
        assert_eq!(asked("root").answer(&own, &[], None).unwrap(), "");
        assert!(asked("df_x").answer(&own, &[], None).unwrap().contains("password=hunter2\n"));
        // A token has no user of its own.
        let token = handed(&[("token", "t")]);
        assert!(asked("root").answer(&token, &[], None).unwrap().starts_with("username=root\n"));
    }

    #[test]
    fn a_value_cannot_add_a_line() {
        let request = Request::read(ASKED);
        for fields in [
            [("username", "u\nhost=evil"), ("password", "p")],
            [("username", "u"), ("password", "p\nquit=1")],
            [("username", "u"), ("password", "p\r")],
        ] {
            let fault = request.answer(&handed(&fields), &[], None).unwrap_err().to_string();
            assert!(fault.contains("line break"), "{fault}");
        }
    }

    #[test]
    fn only_the_rejected_password_is_erased() {
        let one = handed(&[("token", "current")]);
        let rejected = |text: &str| Request::read(text).is_about(&one, &[]).unwrap();
        assert!(rejected("password=current\n"));
        assert!(!rejected("password=older\n"));
        assert!(!rejected("host=github.com\n"));
    }
}
