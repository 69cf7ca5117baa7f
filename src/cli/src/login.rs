//! `dayfly login`: a person gets a token at the identity provider that the broker names.
//!
//! Invariant: a token is kept only when the broker it is for has taken it, and is shown to no other
//! broker; the provider is one that the broker trusts already, and answers under its own name.

mod browser;
mod device;
mod kept;
mod pkce;
mod provider;

use std::{io, time::Duration};

use dayfly_api::Login as Offer;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

pub(crate) use self::kept::Login;
use self::{
    kept::Place,
    provider::{Provider, Tokens},
};
use crate::{
    ambient::Ambient,
    args::{Context, LoginArgs},
    failure::{self, Failure},
    identity::Token,
};

/// The word for ID tokens; all else is an access token.
const ID_TOKEN: &str = "id_token";

/// `dayfly login`.
pub(crate) async fn run(args: &LoginArgs, context: Context<'_>) -> Result<u8, Failure> {
    let client = context.client()?;
    // Where nothing can be kept, nobody need sign in.
    let place = Place::made(client.url(), context.ambient)?;
    let offer = client.login().await?;
    let provider = Provider::discover(offer, client.trust()).await?;
    let tokens = if args.device || !(args.no_browser || has_browser(context.ambient)) {
        device::sign_in(&provider, context.terminal).await?
    } else {
        let opener = (!args.no_browser).then_some(context.ambient);
        browser::sign_in(&provider, opener, context.terminal).await?
    };
    let login = Login::new(client.url(), &provider, tokens)?;
    let me = client.whoami(&login.shown()?).await?;
    place.keep(&login)?;
    let until = shown(login.expires_at);
    let renewed = if login.can_be_renewed() { ", and renewed then" } else { "" };
    context.terminal.note(&format!(
        "signed in at {} as {} ({}); the token is good until {until}{renewed}",
        client.url(),
        me.principal,
        me.kind
    ));
    Ok(failure::OK)
}

/// `dayfly logout`.
pub(crate) async fn end(context: Context<'_>) -> Result<u8, Failure> {
    let client = context.client()?;
    let place = Place::of(client.url(), context.ambient)?;
    let Some(login) = place.read()? else {
        context.terminal.note(&format!("nobody is signed in at {}", client.url()));
        return Ok(failure::OK);
    };
    place.forget()?;
    if let Err(error) = login.revoke(&client.trust()).await {
        let reason = Failure::from(error).to_line();
        context.terminal.warn(&format!("the identity provider was not told: {reason}"));
    }
    let copy = if login.expires_at > now() {
        let until = shown(login.expires_at);
        format!("; a copy of the token, if there is one, is good until {until}")
    } else {
        String::new()
    };
    context.terminal.note(&format!("signed out of {}{copy}", client.url()));
    Ok(failure::OK)
}

/// Whether a browser that is opened here is in front of whoever asks.
fn has_browser(ambient: &Ambient) -> bool {
    let is_set = |name| ambient.value(name).is_some();
    is_set("BROWSER")
        || !is_set("SSH_CONNECTION")
            && (cfg!(target_os = "macos") || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY"))
}

/// What the broker is shown of what the provider gave, and until when it is good.
fn chosen(
    offer: &Offer,
    tokens: &Tokens,
    nonce: Option<&str>,
    now: i64,
) -> Result<(String, i64), Error> {
    let wrong =
        |reason: &str| Error::Provider { issuer: offer.issuer.clone(), reason: reason.to_owned() };
    let is_id = offer.token == ID_TOKEN;
    let token = if is_id { &tokens.id_token } else { &tokens.access_token };
    let token = token.clone().ok_or_else(|| {
        wrong(&format!("gave no {}; whoever runs the broker should look at `[login]`", offer.token))
    })?;
    let claims = Token::parse(&token, "the provider's token")
        .map_err(|_| wrong("gave a token that cannot be shown"))?
        .unverified_claims();
    let claims = match claims {
        Some(claims) => claims,
        None if is_id => return Err(wrong("gave an ID token that is no JWT")),
        None => serde_json::Map::new(),
    };
    // OpenID Connect Core 1.0 §3.1.3.7. The signature is for the broker to verify, which knows the
    // keys: the token came from the provider's own address.
    if is_id {
        let is = |name: &str, expected: &str| {
            claims.get(name).and_then(|value| value.as_str()) == Some(expected)
        };
        let client = offer.client_id.as_str();
        let is_for_us = is("aud", client)
            || claims.get("aud").and_then(|value| value.as_array()).is_some_and(|all| {
                all.iter().any(|one| one.as_str() == Some(client)) && is("azp", client)
            });
        if !is("iss", &offer.issuer) || !is_for_us {
            return Err(wrong("gave an ID token for somebody else"));
        }
        if nonce.is_some_and(|nonce| !is("nonce", nonce)) {
            return Err(wrong("gave an ID token that was not asked for here"));
        }
    }
    let lasts = tokens.expires_in.and_then(|seconds| now.checked_add_unsigned(seconds));
    let ends = claims.get("exp").and_then(serde_json::Value::as_i64).or(lasts);
    let ends = ends.ok_or_else(|| wrong("gave a token without an end"))?;
    if ends <= now {
        return Err(wrong("gave a token that has ended; compare the clocks"));
    }
    Ok((token, ends))
}

#[expect(clippy::disallowed_methods, reason = "a token's end is a time of day")]
fn now() -> i64 {
    OffsetDateTime::from(std::time::SystemTime::now()).unix_timestamp()
}

fn shown(time: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(time).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "its end".to_owned())
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the identity provider refused the login: {0}")]
    Denied(String),
    #[error("the login at {broker} has ended; run `dayfly login`")]
    Ended { broker: String },
    #[error("cannot keep a login at `{path}`")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen for the browser's answer; try `dayfly login --device`")]
    Listen(#[source] io::Error),
    #[error("there is no place for a login; set HOME, or XDG_STATE_HOME")]
    NoPlace,
    #[error("the system gives no randomness, without which nobody can sign in")]
    NoRandomness,
    #[error("the identity provider {issuer} {reason}")]
    Provider { issuer: String, reason: String },
    #[error("cannot set up TLS")]
    Setup(#[source] reqwest::Error),
    #[error("`{path}` is not this user's alone; remove it, and run `dayfly login`")]
    Shared { path: String },
    #[error("nobody signed in within {} minutes; run `dayfly login` again", within.as_secs() / 60)]
    TimedOut { within: Duration },
    #[error("cannot reach the identity provider at {url}; try again")]
    Unreachable {
        url: String,
        #[source]
        source: reqwest::Error,
    },
}

impl Error {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Denied(_) => failure::DENIED,
            Self::Ended { .. } => failure::UNAUTHENTICATED,
            Self::NoPlace | Self::Shared { .. } => failure::USAGE,
            Self::TimedOut { .. } | Self::Unreachable { .. } => failure::UNAVAILABLE,
            Self::File { .. }
            | Self::Listen(_)
            | Self::NoRandomness
            | Self::Provider { .. }
            | Self::Setup(_) => failure::FAILED,
        }
    }
}

#[cfg(test)]
mod tests;
