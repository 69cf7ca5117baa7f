//! `credential_process` of AWS's SDKs, and what their container endpoint answers with.
//!
//! Invariant: the end is always said; without one an SDK would keep the credential for ever.

use serde_json::{Value, json};

use crate::{
    args::MappedField,
    credential::handed::{Fault, Fields, Handed},
};

const NAMES: &[&str] = &["access_key_id", "secret_access_key", "session_token"];

/// What the SDK reads from stdout.
pub(crate) fn process(handed: &Handed, named: &[MappedField]) -> Result<String, Fault> {
    let keys = Keys::of(handed, named)?;
    let mut answer = json!({
        "Version": 1,
        "AccessKeyId": keys.id,
        "SecretAccessKey": keys.secret,
        "Expiration": keys.end,
    });
    if let (Some(token), Some(members)) = (keys.token, answer.as_object_mut()) {
        members.insert("SessionToken".to_owned(), token.into());
    }
    Ok(format!("{answer}\n"))
}

/// What the container endpoint answers.
pub(crate) fn endpoint(handed: &Handed) -> Result<Value, Fault> {
    let keys = Keys::of(handed, &[])?;
    Ok(json!({
        "AccessKeyId": keys.id,
        "SecretAccessKey": keys.secret,
        // The SDK for Python insists on it; a user's key has none.
        "Token": keys.token.unwrap_or_default(),
        "Expiration": keys.end,
    }))
}

struct Keys<'a> {
    id: &'a str,
    secret: &'a str,
    token: Option<&'a str>,
    end: String,
}

impl<'a> Keys<'a> {
    fn of(handed: &'a Handed, named: &'a [MappedField]) -> Result<Self, Fault> {
        let fields = Fields::of(handed, named, NAMES)?;
        Ok(Self {
            id: fields.wanted("access_key_id", &["access_key_id"])?,
            secret: fields.wanted("secret_access_key", &["secret_access_key"])?,
            token: fields.found("session_token", &["session_token"])?,
            end: handed.end()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::handed::handed;

    const KEY: [(&str, &str); 2] = [("access_key_id", "AKIA"), ("secret_access_key", "s/+\"\\")];

    #[test]
    fn a_session_is_said_whole_and_with_its_end() {
        let session = handed(&[KEY[0], KEY[1], ("session_token", "t"), ("region", "eu")]);
        let answer: Value = serde_json::from_str(&process(&session, &[]).unwrap()).unwrap();
        assert_eq!(
            answer,
            json!({ "Version": 1, "AccessKeyId": "AKIA", "SecretAccessKey": "s/+\"\\",
                "SessionToken": "t", "Expiration": "2026-01-01T00:15:00Z" })
        );
        assert_eq!(
            endpoint(&session).unwrap(),
            json!({ "AccessKeyId": "AKIA", "SecretAccessKey": "s/+\"\\", "Token": "t",
                "Expiration": "2026-01-01T00:15:00Z" })
        );
    }

    #[test]
    fn a_users_key_has_no_token_and_ends_all_the_same() {
        let user = handed(&KEY);
        let answer: Value = serde_json::from_str(&process(&user, &[]).unwrap()).unwrap();
        assert_eq!(answer.get("SessionToken"), None);
        assert_eq!(answer["Expiration"], "2026-01-01T00:15:00Z");
        assert_eq!(endpoint(&user).unwrap()["Token"], "");
    }

    #[test]
    fn another_kind_of_credential_is_refused() {
        let other = handed(&[("username", "u"), ("password", "hunter2")]);
        assert!(process(&other, &[]).unwrap_err().to_string().contains("`access_key_id`"));
        assert!(endpoint(&other).is_err());
    }
}
