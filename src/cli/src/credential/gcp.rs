//! Executable-sourced credentials of Google's libraries: a subject token, which Google exchanges.
//!
//! Invariant: a failure is an answer as well, on stdout and with exit code 0: a library reads what a
//! program printed that failed as text and nothing more. Nothing is written to stderr, which the
//! library for Python takes for a part of the answer.

use serde_json::json;

use crate::{
    args::MappedField,
    credential::handed::{Fault, Fields, Handed},
};

const NAMES: &[&str] = &["id_token", "saml_response"];
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
const SAML: &str = "urn:ietf:params:oauth:token-type:saml2";

/// The answer for a token of the type that the library said that it wants.
pub(crate) fn render(
    handed: &Handed,
    named: &[MappedField],
    token_type: Option<&str>,
) -> Result<String, Fault> {
    let fields = Fields::of(handed, named, NAMES)?;
    let token_type = token_type.unwrap_or(JWT);
    let (member, usual): (_, &[&str]) = match token_type {
        JWT | ID_TOKEN => ("id_token", &["id_token", "token", "key"]),
        SAML => ("saml_response", &["saml_response"]),
        _ => return Err(Fault::new("the subject token's type is none of jwt, id_token and saml2")),
    };
    let mut answer = json!({
        "version": 1,
        "success": true,
        "token_type": token_type,
        "expiration_time": handed.end_unix()?,
    });
    let token = fields.wanted(member, usual)?;
    if let Some(members) = answer.as_object_mut() {
        members.insert(member.to_owned(), token.into());
    }
    Ok(format!("{answer}\n"))
}

/// The answer that says why there is no token.
pub(crate) fn failure(code: u8, message: &str) -> String {
    let answer = json!({
        "version": 1, "success": false, "code": code.to_string(), "message": message
    });
    format!("{answer}\n")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::credential::handed::handed;

    fn parsed(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_token_stands_where_its_type_has_it() {
        let one = handed(&[("key", "e.y.J"), ("saml_response", "<a/>")]);
        for (wanted, token_type) in [(None, JWT), (Some(JWT), JWT), (Some(ID_TOKEN), ID_TOKEN)] {
            assert_eq!(
                parsed(&render(&one, &[], wanted).unwrap()),
                json!({ "version": 1, "success": true, "token_type": token_type,
                    "id_token": "e.y.J", "expiration_time": 1_767_226_500 })
            );
        }
        let saml = parsed(&render(&one, &[], Some(SAML)).unwrap());
        assert_eq!((&saml["saml_response"], saml.get("id_token")), (&json!("<a/>"), None));
        let aws = Some("urn:ietf:params:aws:token-type:aws4_request");
        assert!(render(&one, &[], aws).is_err());
    }

    #[test]
    fn a_failure_is_json_whatever_it_says() {
        assert_eq!(
            parsed(&failure(4, "role `r` was \"denied\"\n")),
            json!({ "version": 1, "success": false, "code": "4",
                "message": "role `r` was \"denied\"\n" })
        );
    }
}
