//! What should be changed about the account.

use std::collections::BTreeSet;

use crate::{
    backend::AwsBackend,
    config::{AwsConfig, Mode},
    error::Failure,
};

/// What the configuration shows.
pub(crate) fn of_configuration(config: &AwsConfig) -> Vec<String> {
    let mut advice = Vec::new();
    if config.access_key_id.is_some() {
        advice.push(
            "our own key is a standing secret: prefer a role of the machine, and keep the key \
             for federated users, whom only a user's key can make"
                .to_owned(),
        );
    }
    if config.account_id.is_none() {
        advice.push("without `account_id` nothing notices a key of another account".to_owned());
    }
    match config.mode {
        Mode::Session if config.deny_policies.is_empty() => advice.push(
            "without `deny_policies` nothing ends a session before its own expiry, fifteen \
             minutes at the least"
                .to_owned(),
        ),
        Mode::User => advice.push(
            "a user has no expiry of its own: prefer sessions wherever they will do".to_owned(),
        ),
        Mode::Session => {}
    }
    advice
}

/// What AWS shows: roles that the belt does not reach.
pub(crate) async fn of_belt(
    backend: &AwsBackend,
    roles: &BTreeSet<String>,
) -> Result<Vec<String>, Failure> {
    let Some(belt) = backend.belt() else { return Ok(Vec::new()) };
    let loose = belt.loose(roles).await?;
    let sentence = |name: String| {
        format!(
            "not every policy of the deny belt is attached to the role `{name}`: where none is, \
             no session of it can be ended"
        )
    };
    Ok(loose.into_iter().map(sentence).collect())
}
