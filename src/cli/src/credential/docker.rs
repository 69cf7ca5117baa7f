//! docker's credential helpers.
//!
//! Invariant: errors are on stdout with exit code 1, and a registry that we do not answer for has
//! the one text by which docker goes on without a credential.

use serde_json::{Map, Value, json};

use crate::{
    args::MappedField,
    credential::{
        handed::{Fault, Fields, Handed},
        host::Hosts,
    },
};

/// By this text alone docker knows that there is none.
pub(super) const NOT_FOUND: &str = "credentials not found in native keychain";
pub(super) const NO_STORE: &str =
    "the broker makes these credentials, and there is nowhere to store another; do not log in";
const NAMES: &[&str] = &["password", "username"];
/// Under this name docker shows the secret as an identity token.
const TOKEN: &str = "<token>";

/// What `get` writes, `address` being what docker asked for.
pub(super) fn render(
    handed: &Handed,
    named: &[MappedField],
    username: Option<&str>,
    address: &str,
) -> Result<String, Fault> {
    let fields = Fields::of(handed, named, NAMES)?;
    let user = fields.found("username", &["username"])?.or(username).unwrap_or(TOKEN);
    let secret = fields.wanted("password", &["password", "token", "key"])?;
    let answer = json!({ "ServerURL": address, "Username": user, "Secret": secret });
    Ok(format!("{answer}\n"))
}

/// What `list` writes: the registries, and no user where that would need a credential.
pub(super) fn list(hosts: Hosts<'_>, username: Option<&str>) -> String {
    let user = username.unwrap_or_default();
    let all: Map<String, Value> =
        hosts.named.iter().map(|host| (host.clone(), Value::from(user))).collect();
    format!("{}\n", Value::Object(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::handed::handed;

    #[test]
    fn the_address_comes_back_as_it_was_asked() {
        let one = handed(&[("username", "df_x"), ("password", "hunter2\"\n")]);
        let answer: Value =
            serde_json::from_str(&render(&one, &[], None, "https://ghcr.io/v2/").unwrap()).unwrap();
        assert_eq!(
            answer,
            json!({ "ServerURL": "https://ghcr.io/v2/", "Username": "df_x",
                "Secret": "hunter2\"\n" })
        );
    }

    #[test]
    fn a_token_without_a_user_is_an_identity_token() {
        let token = handed(&[("token", "t")]);
        assert!(render(&token, &[], None, "ghcr.io").unwrap().contains(r#""Username":"<token>""#));
        let named = render(&token, &[], Some("AWS"), "ghcr.io").unwrap();
        assert!(named.contains(r#""Username":"AWS""#), "{named}");
    }

    #[test]
    fn the_list_has_the_registries_alone() {
        let named = ["ghcr.io".to_owned(), "quay.io".to_owned()];
        let hosts = Hosts { named: &named, allow_http: false };
        let listed: Value = serde_json::from_str(&list(hosts, None)).unwrap();
        assert_eq!(listed, json!({ "ghcr.io": "", "quay.io": "" }));
    }
}
