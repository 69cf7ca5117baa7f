//! The device flow (RFC 8628): a code that is typed in at another device.
//!
//! Invariant: the provider is asked no more often than it says, and no longer than the code is good.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep};
use url::Url;

use super::{
    Error,
    pkce::Pkce,
    provider::{Provider, Reply, Tokens},
};
use crate::{client::check_secure, output::Terminal};

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How often it may be asked where it says nothing (RFC 8628 §3.2).
const INTERVAL: Duration = Duration::from_secs(5);
/// What is added when it wants to be asked less (§3.5).
const SLOWER: Duration = Duration::from_secs(5);
const INTERVAL_MAX: Duration = Duration::from_mins(1);
/// Nobody waits for longer, whatever the provider says.
const LASTS_MAX: Duration = Duration::from_mins(30);

/// What a device is given (RFC 8628 §3.2).
#[derive(Deserialize)]
struct Given {
    device_code: String,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// Has somebody sign in elsewhere, and waits for it.
pub(super) async fn sign_in(
    provider: &Provider,
    terminal: &Terminal,
) -> Result<(Tokens, Option<String>), Error> {
    let unable = || provider.wrong("knows no device flow; sign in where there is a browser");
    let url = provider.endpoints.device.as_deref().ok_or_else(unable)?;
    let (offer, scope) = (&provider.offer, provider.scope());
    // RFC 8628 has no PKCE, and providers that do not know it here pass it over. Keycloak asks for
    // it wherever the client must use it.
    let pkce = Pkce::new()?;
    let challenge = pkce.challenge();
    let form = [
        ("client_id", offer.client_id.as_str()),
        ("scope", &scope),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let code: Given = match provider.post(url, &form).await? {
        Reply::Given(code) => code,
        Reply::Refused { error, more } => {
            return Err(provider.wrong(format!("gives no code: {error}{more}")));
        }
    };
    let page = |text: &str| {
        let page = Url::parse(text).ok().filter(|page| check_secure(page).is_ok());
        page.ok_or_else(|| provider.wrong("wants the code typed in at a page that is not https"))
    };
    let plain = page(&code.verification_uri)?;
    terminal.prompt(&format!("open {plain} and enter {}", code.user_code));
    if let Some(whole) = &code.verification_uri_complete {
        terminal.prompt(&format!("or open {}", page(whole)?));
    }
    let lasts = Duration::from_secs(code.expires_in).min(LASTS_MAX);
    let ends = Instant::now() + lasts;
    let mut interval = code.interval.map_or(INTERVAL, Duration::from_secs).min(INTERVAL_MAX);
    let form = [
        ("grant_type", GRANT_TYPE),
        ("device_code", &code.device_code),
        ("client_id", &offer.client_id),
        ("code_verifier", pkce.verifier()),
    ];
    let poll = async {
        loop {
            sleep(interval).await;
            if Instant::now() > ends {
                return Err(Error::TimedOut { within: lasts });
            }
            match next(provider.tokens(&form).await, interval, lasts) {
                Next::Over(over) => return over,
                Next::After(pause) => interval = pause,
            }
        }
    };
    let tokens = terminal.waiting("waiting for somebody to sign in", poll).await?;
    Ok((tokens, None))
}

/// What follows from an answer.
enum Next {
    After(Duration),
    Over(Result<Tokens, Error>),
}

fn next(reply: Result<Reply<Tokens>, Error>, interval: Duration, lasts: Duration) -> Next {
    match reply {
        Ok(Reply::Given(tokens)) => Next::Over(Ok(tokens)),
        Ok(Reply::Refused { error, more }) => match error.as_str() {
            "authorization_pending" => Next::After(interval),
            "slow_down" => Next::After((interval + SLOWER).min(INTERVAL_MAX)),
            "expired_token" => Next::Over(Err(Error::TimedOut { within: lasts })),
            _ => Next::Over(Err(Error::Denied(format!("{error}{more}")))),
        },
        // It may be the network that is away for a moment (RFC 8628 §3.5).
        Err(Error::Unreachable { .. }) => Next::After((interval * 2).min(INTERVAL_MAX)),
        Err(error) => Next::Over(Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE: Duration = Duration::from_secs(5);

    fn refused(error: &str) -> Next {
        let more = String::new();
        next(Ok(Reply::Refused { error: error.to_owned(), more }), FIVE, LASTS_MAX)
    }

    #[test]
    fn the_provider_says_how_often_it_is_asked() {
        let after = |next| match next {
            Next::After(pause) => pause.as_secs(),
            Next::Over(over) => panic!("{over:?}"),
        };
        assert_eq!(after(refused("authorization_pending")), 5);
        assert_eq!(after(refused("slow_down")), 10);
        let reply = || Ok(Reply::Refused { error: "slow_down".to_owned(), more: String::new() });
        assert_eq!(after(next(reply(), INTERVAL_MAX, LASTS_MAX)), 60);
    }

    #[test]
    fn a_no_and_the_end_of_the_code_are_final() {
        let over = |next| match next {
            Next::After(pause) => panic!("{pause:?}"),
            Next::Over(over) => over,
        };
        assert!(matches!(over(refused("access_denied")), Err(Error::Denied(_))));
        assert!(matches!(over(refused("expired_token")), Err(Error::TimedOut { .. })));
        let given = next(Ok(Reply::Given(Tokens::default())), FIVE, LASTS_MAX);
        assert!(over(given).is_ok());
    }
}
