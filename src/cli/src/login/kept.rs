//! Where a login is kept, and its token while it can be had.
//!
//! Invariant: one file for one broker, of this user alone; whoever renews it does so alone, since a
//! provider may take a refresh token once.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
    time::Duration,
};

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use zeroize::Zeroize as _;

use super::{
    Error, Offer, chosen, now,
    provider::{Endpoints, Provider, Reply, Tokens},
};
use crate::{
    ambient::Ambient,
    client::{BrokerUrl, Client, Trust},
    identity::{self, Token},
    private::{self, Fault},
};

/// Longer than any login.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// A token that ends so soon is as good as ended: the call takes its time.
const LEFT_MIN_S: i64 = 30;
/// How long another process may take to renew it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(40);
const LOCK_AGAIN: Duration = Duration::from_millis(50);

/// Where a login is kept.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    path: PathBuf,
    broker: String,
}

/// Who signed in, as it is kept.
#[derive(Serialize, Deserialize)]
pub(crate) struct Login {
    /// The only broker that it is for.
    broker: String,
    offer: Offer,
    endpoints: Endpoints,
    token: String,
    /// Seconds since 1970.
    pub(super) expires_at: i64,
    refresh_token: Option<String>,
    /// Where it is, and whom to trust besides, since it was found there.
    #[serde(skip)]
    found: Option<(Place, Trust)>,
}

impl Place {
    /// The place for a broker, whether anything is there or not.
    pub(super) fn of(broker: &BrokerUrl, ambient: &Ambient) -> Result<Self, Error> {
        let state = ambient.value("XDG_STATE_HOME").map(PathBuf::from);
        let home = || Some(PathBuf::from(ambient.value("HOME")?).join(".local/state"));
        let base = state.filter(|path| path.is_absolute()).or_else(home).ok_or(Error::NoPlace)?;
        let broker = broker.to_string();
        let name = HEXLOWER.encode(digest(&SHA256, broker.as_bytes()).as_ref());
        Ok(Self { path: base.join("dayfly/login").join(format!("{name}.json")), broker })
    }

    /// The same, after its directory was made.
    pub(super) fn made(broker: &BrokerUrl, ambient: &Ambient) -> Result<Self, Error> {
        let place = Self::of(broker, ambient)?;
        let directory = place.path.parent().unwrap_or(&place.path);
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|source| place.failed(source))?;
        Ok(place)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File { path: self.path.display().to_string(), source }
    }

    pub(super) fn read(&self) -> Result<Option<Login>, Error> {
        let text = match private::read(&self.path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(Fault::File(error)) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(Fault::File(error)) => return Err(self.failed(error)),
            Err(Fault::Shared) => {
                return Err(Error::Shared { path: self.path.display().to_string() });
            }
        };
        // What an older version kept, or nobody, is no login. Neither is one for another broker.
        let login = serde_json::from_slice::<Login>(&text).ok();
        Ok(login.filter(|login| login.broker == self.broker))
    }

    pub(super) fn keep(&self, login: &Login) -> Result<(), Error> {
        let mut text = serde_json::to_vec(login).map_err(|error| self.failed(error.into()))?;
        let kept = private::replace(&self.path, &text);
        text.zeroize();
        kept.map_err(|source| self.failed(source))
    }

    pub(super) fn forget(&self) -> Result<(), Error> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Waits until nobody else renews it. Whoever ends lets go.
    async fn locked(&self) -> Result<File, Error> {
        let path = self.path.with_extension("lock");
        let failed = |source| Error::File { path: path.display().to_string(), source };
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let file = file.map_err(failed)?;
        let until = Instant::now() + LOCK_TIMEOUT;
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(file),
                Err(error) if Instant::now() > until => return Err(failed(error.into())),
                Err(_) => sleep(LOCK_AGAIN).await,
            }
        }
    }
}

impl Login {
    /// Who signed in at the broker of `client`.
    pub(crate) fn find(client: &Client, ambient: &Ambient) -> Result<Option<Self>, Error> {
        match Place::of(client.url(), ambient) {
            Ok(place) => Ok(place.read()?.map(|login| login.at(place, client.trust()))),
            // Nobody can have signed in.
            Err(Error::NoPlace) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn new(
        broker: &BrokerUrl,
        provider: &Provider,
        (mut tokens, nonce): (Tokens, Option<String>),
    ) -> Result<Self, Error> {
        let (token, expires_at) = chosen(&provider.offer, &tokens, nonce.as_deref(), now())?;
        Ok(Self {
            broker: broker.to_string(),
            offer: provider.offer.clone(),
            endpoints: provider.endpoints.clone(),
            token,
            expires_at,
            refresh_token: tokens.refresh_token.take(),
            found: None,
        })
    }

    /// The same, of which it is known where it is kept.
    fn at(mut self, place: Place, trust: Trust) -> Self {
        self.found = Some((place, trust));
        self
    }

    pub(super) fn can_be_renewed(&self) -> bool {
        self.refresh_token.is_some()
    }

    /// What the broker is shown.
    pub(super) fn shown(&self) -> Result<Token, identity::Error> {
        Token::parse(&self.token, "the login's token")
    }

    /// The token, renewed if it has ended.
    pub(crate) async fn token(&self) -> Result<Token, identity::Error> {
        if self.is_good() {
            return self.shown();
        }
        let ended = || Error::Ended { broker: self.broker.clone() };
        let (place, trust) = self.found.as_ref().ok_or_else(ended)?;
        let _lock = place.locked().await?;
        // Another process may have renewed it meanwhile.
        let latest = place.read()?.ok_or_else(ended)?;
        if latest.is_good() {
            return latest.shown();
        }
        let renewed = latest.renewed(trust).await?.ok_or_else(ended)?;
        place.keep(&renewed)?;
        renewed.shown()
    }

    fn is_good(&self) -> bool {
        now() + LEFT_MIN_S < self.expires_at
    }

    /// What the provider gives for the refresh token (RFC 6749 §6), if it still takes it.
    async fn renewed(&self, trust: &Trust) -> Result<Option<Self>, Error> {
        let Some(refresh) = &self.refresh_token else { return Ok(None) };
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh),
            ("client_id", &self.offer.client_id),
        ];
        let mut tokens = match self.endpoints.tokens(&self.offer.issuer, &form, trust).await? {
            Reply::Given(tokens) => tokens,
            Reply::Refused { error, .. } if error == "invalid_grant" => return Ok(None),
            Reply::Refused { error, more } => {
                let reason = format!("does not renew the login: {error}{more}");
                return Err(Error::Provider { issuer: self.offer.issuer.clone(), reason });
            }
        };
        let (token, expires_at) = chosen(&self.offer, &tokens, None, now())?;
        // One that is used once comes with the next.
        let refresh_token = tokens.refresh_token.take().or_else(|| self.refresh_token.clone());
        Ok(Some(Self {
            broker: self.broker.clone(),
            offer: self.offer.clone(),
            endpoints: self.endpoints.clone(),
            token,
            expires_at,
            refresh_token,
            found: None,
        }))
    }

    /// Has the provider take back what it gave (RFC 7009), if it does that. A JWT is good until
    /// its end all the same.
    pub(super) async fn revoke(&self, trust: &Trust) -> Result<(), Error> {
        let is_access = self.offer.token != super::ID_TOKEN;
        let access = is_access.then_some(("access_token", &self.token));
        let refresh = self.refresh_token.as_ref().map(|token| ("refresh_token", token));
        for (kind, token) in refresh.into_iter().chain(access) {
            self.endpoints.revoke(&self.offer, (token, kind), trust).await?;
        }
        Ok(())
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        self.token.zeroize();
        self.refresh_token.zeroize();
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("broker", &self.broker).finish_non_exhaustive()
    }
}
