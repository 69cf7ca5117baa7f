//! How bytes are sent and read: time-outs, trust, bounds, repetition.
//!
//! Invariant: no HTTP client is made anywhere else.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use reqwest::{Certificate, ClientBuilder, Response, redirect::Policy};

use crate::client::{ATTEMPT_TIMEOUT, Error, Repeat};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// No answer of the broker comes near this.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An HTTP client that follows no redirect. `plain` is for loopback: it neither loads
/// certificates nor asks a proxy or DNS. Otherwise it speaks https alone and trusts `roots`,
/// or what the machine trusts.
pub(crate) fn secure_http(
    plain: bool,
    roots: Option<Vec<Certificate>>,
) -> Result<reqwest::Client, reqwest::Error> {
    let builder = secure(plain);
    let builder = match roots {
        Some(roots) if !plain => builder.tls_certs_only(roots),
        Some(_) | None => builder,
    };
    builder.build()
}

/// The same for a server that is not the broker: `more` is trusted beside what the machine trusts.
pub(super) fn other_http(
    plain: bool,
    more: Option<Vec<Certificate>>,
) -> Result<reqwest::Client, reqwest::Error> {
    let builder = secure(plain);
    let builder = match more {
        Some(more) if !plain => builder.tls_certs_merge(more),
        Some(_) | None => builder,
    };
    builder.build()
}

fn secure(plain: bool) -> ClientBuilder {
    let builder = reqwest::Client::builder()
        .user_agent(concat!("dayfly/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        // `doctor` tells when the broker's certificate ends.
        .tls_info(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ATTEMPT_TIMEOUT)
        // A connection whose other end is gone must not be used for the next request too.
        .http2_keep_alive_interval(PING_EVERY)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true);
    if plain {
        // A name that is promised to be loopback must not become something else in DNS.
        let loopback: [SocketAddr; 2] =
            [(Ipv4Addr::LOCALHOST, 0).into(), (Ipv6Addr::LOCALHOST, 0).into()];
        builder.no_proxy().tls_certs_only([]).resolve_to_addrs("localhost", &loopback)
    } else {
        builder.https_only(true)
    }
}

/// An HTTP client that speaks to the agent's socket at `path` and to nobody else.
pub(crate) fn agent_http(path: &Path, within: Duration) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .user_agent(concat!("dayfly/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .timeout(within)
        .no_proxy()
        .tls_certs_only([])
        .unix_socket(path)
        .build()
}

/// The whole body; `None` if it is larger than any that we know.
pub(crate) async fn read_body(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Some(bytes))
}

pub(super) fn can_repeat(error: &Error, repeat: Repeat) -> bool {
    match (error, repeat) {
        (Error::Unreachable { unsent, .. }, _) => *unsent || repeat == Repeat::Harmless,
        (Error::Refused { problem, .. }, Repeat::Harmless) => {
            matches!(problem.status, 502..=504)
        }
        (Error::Foreign { status, .. }, Repeat::Harmless) => matches!(status, 502..=504),
        // A second wait of the same length helps nobody.
        _ => false,
    }
}

/// `time` give or take a tenth, so that many jobs that started together do not come back
/// together.
pub(crate) fn jittered(time: Duration) -> Duration {
    // The keys of a new hasher are random; nothing here needs more than that.
    let random = RandomState::new().hash_one(0_u8) % 201;
    let permille = 900 + u32::try_from(random).unwrap_or(100);
    time.saturating_mul(permille) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_tenth() {
        let times: Vec<_> = (0..200).map(|_| jittered(Duration::from_secs(100))).collect();
        assert!(times.iter().all(|time| (90..=110).contains(&time.as_secs())), "{times:?}");
        assert!(times.iter().any(|time| *time != times[0]), "{times:?}");
    }

    #[test]
    fn what_may_have_had_an_effect_is_not_sent_again() {
        let foreign = Error::Foreign { url: "x".into(), status: 503 };
        assert!(can_repeat(&foreign, Repeat::Harmless));
        assert!(!can_repeat(&foreign, Repeat::Unsent));
        let timed_out = Error::TimedOut { url: "x".into() };
        assert!(!can_repeat(&timed_out, Repeat::Unsent));
    }
}
