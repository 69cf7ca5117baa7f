//! From a configuration to requests, and what they make the backend capable of.
//!
//! Invariant: what passes can be used as it is, and nothing is declared that the requests cannot
//! do.

use std::{net::IpAddr, time::Duration};

use dayfly_backend_sdk::{Capabilities, Expiry, HandlePrefix};
use url::{Host, Url};

use crate::{
    config::{AnswerConfig, ConfigError, HttpConfig, RequestConfig},
    list::List,
    request::{Purpose, Request},
    text::{Hole, TextError},
};

/// A lease's part of a name.
const LEASE_LEN: usize = 26;

/// All requests of an API.
pub(crate) struct Requests {
    pub(crate) create: Request,
    pub(crate) answer: AnswerConfig,
    pub(crate) revoke: Option<Request>,
    pub(crate) verify: Option<Request>,
    pub(crate) list: Option<List>,
    pub(crate) try_use: Option<Request>,
    pub(crate) marker: Option<Marking>,
}

/// Where the marker is kept.
pub(crate) struct Marking {
    pub(crate) read: Request,
    pub(crate) text: String,
    pub(crate) write: Request,
}

impl HttpConfig {
    /// Checks what the types leave open, and gives the prefix and the API's address.
    pub(crate) fn check(&self) -> Result<(HandlePrefix, Url), ConfigError> {
        let life = self.expiry.map_or(0, |expiry| expiry.life_min_s);
        let slack = self.expiry.map_or(0, |expiry| expiry.slack_s);
        let bounds = [
            ("timeout_ms", self.timeout_ms, 10, 600_000),
            ("ttl_min_s", self.ttl_min_s, 1, 86_400),
            ("expiry.slack_s", slack, 0, 7 * 86_400),
            ("expiry.life_min_s", life, 0, 366 * 86_400),
        ];
        for (name, value, min, max) in bounds {
            if !(min..=max).contains(&value) {
                return Err(ConfigError::Range { name, value, min, max });
            }
        }
        if self.name_len_max < self.prefix.len() + LEASE_LEN {
            return Err(ConfigError::LongPrefix {
                prefix: self.prefix.clone(),
                most: self.name_len_max,
            });
        }
        let url = Url::parse(&self.url).map_err(|_| ConfigError::Url(self.url.clone()))?;
        let plain = url.username().is_empty() && url.password().is_none();
        let bare = url.query().is_none() && url.fragment().is_none();
        let safe = match url.scheme() {
            "https" => true,
            "http" => url.host().is_some_and(|host| is_loopback(&host)),
            _ => false,
        };
        if !(plain && bare && safe) {
            return Err(ConfigError::Url(self.url.clone()));
        }
        let prefix = HandlePrefix::parse(self.prefix.clone()).map_err(ConfigError::Prefix)?;
        Ok((prefix, url))
    }

    pub(crate) fn requests(&self) -> Result<Requests, ConfigError> {
        let request = |purpose: Purpose, config: &RequestConfig| {
            let wrong = |fault| ConfigError::Request { request: purpose.as_str(), fault };
            Request::new(purpose, config).map_err(wrong)
        };
        let optional = |purpose, config: &Option<RequestConfig>| {
            config.as_ref().map(|config| request(purpose, config)).transpose()
        };
        self.pointers()?;
        let list = match (optional(Purpose::List, &self.list)?, self.items.clone()) {
            (Some(request), Some(items)) => Some(List { request, items }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(ConfigError::Contradiction("`list` and `items` go together"));
            }
        };
        let marker = match &self.marker {
            None => None,
            Some(marker) => Some(Marking {
                read: request(Purpose::MarkerRead, &marker.read)?,
                text: marker.text.clone(),
                write: request(Purpose::MarkerWrite, &marker.write)?,
            }),
        };
        let requests = Requests {
            create: request(Purpose::Create, &self.create)?,
            answer: self.answer.clone(),
            revoke: optional(Purpose::Revoke, &self.revoke)?,
            verify: optional(Purpose::Verify, &self.verify)?,
            list,
            try_use: optional(Purpose::Use, &self.try_use)?,
            marker,
        };
        match self.contradiction(&requests) {
            Some(what) => Err(ConfigError::Contradiction(what)),
            None => Ok(requests),
        }
    }

    fn pointers(&self) -> Result<(), ConfigError> {
        let answer = &self.answer;
        let of_answer = [Some(&answer.secret), answer.id.as_ref(), answer.expires_at.as_ref()];
        let of_items = self.items.iter().flat_map(|items| {
            [items.at.as_ref(), Some(&items.name), items.id.as_ref(), items.expires_at.as_ref()]
        });
        let of_marker = self.marker.iter().map(|marker| Some(&marker.text));
        let all = of_answer.into_iter().map(|place| ("answer", place));
        let all = all.chain(of_items.map(|place| ("items", place)));
        let all = all.chain(of_marker.map(|place| ("marker", place)));
        for (request, place) in all {
            if let Some(place) = place.filter(|place| !place.starts_with('/')) {
                let fault = TextError::Pointer(place.clone());
                return Err(ConfigError::Request { request, fault });
            }
        }
        Ok(())
    }

    /// The first two settings that do not go together.
    fn contradiction(&self, requests: &Requests) -> Option<&'static str> {
        let sends = |hole: &Hole| requests.create.has(hole);
        let asks = |hole: &Hole| requests.of_a_death().any(|request| request.has(hole));
        let nameless = |request: &Request| {
            ![Hole::Handle, Hole::Id, Hole::Secret].iter().any(|hole| request.has(hole))
        };
        let uses_id = requests.try_use.as_ref().is_some_and(|request| request.has(&Hole::Id));
        let items_id = self.items.as_ref().is_some_and(|items| items.id.is_some());
        let tells = requests.create.holes().any(Hole::is_expiry);
        let fixed = self.expiry.filter(|expiry| expiry.fixed);
        let signs = self.github_app.is_some()
            || self.headers.values().any(|text| text.contains("{password}"));
        let rules = [
            (
                self.revoke.is_none() && self.expiry.is_none(),
                "without `revoke` and without `expiry` nothing would end a credential",
            ),
            (
                requests.of_a_death().any(nameless),
                "`revoke` and `verify` must name the credential: by {handle}, {id} or {secret}",
            ),
            (
                (asks(&Hole::Handle) || self.list.is_some()) && !sends(&Hole::Handle),
                "credentials are looked for by their names: `create` must send {handle}",
            ),
            (
                (asks(&Hole::Id) || uses_id) && self.answer.id.is_none(),
                "{id} is asked for: say where `answer` has it",
            ),
            (
                asks(&Hole::Id) && self.list.is_some() && !items_id,
                "{id} is asked for: say where `items` have it",
            ),
            (
                requests.try_use.as_ref().is_some_and(|request| !request.has(&Hole::Secret)),
                "`use` must be made with {secret}: else it proves nothing",
            ),
            (
                self.expiry.is_some() && fixed.is_none() && !tells,
                "`expiry` says that the API ends credentials: `create` must tell it when, or say \
                 `fixed = true`",
            ),
            (
                fixed.is_some_and(|expiry| expiry.life_min_s == 0),
                "`fixed` needs the life that the API gives: `life_min_s`",
            ),
            (
                self.answer.expires_at.is_some() && self.expiry.is_none(),
                "`answer.expires_at` is compared with the lease: say `expiry`",
            ),
            (
                !self.unique_names && self.list.is_none(),
                "`unique_names = false` needs `list`, to look before a name is given",
            ),
            (
                self.password.is_some() && !signs,
                "the `password` is used nowhere: put {password} into a header",
            ),
        ];
        rules.into_iter().find_map(|(broken, what)| broken.then_some(what))
    }

    pub(crate) fn capabilities(&self, requests: &Requests) -> Capabilities {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
        let owned = self.exclusive || requests.marker.is_some();
        Capabilities {
            kind: "http",
            expiry: self.expiry.map_or(Expiry::None, |expiry| Expiry::Native {
                slack: seconds(expiry.slack_s),
                life_min: seconds(expiry.life_min_s),
            }),
            revoke: requests.revoke.is_some(),
            session_kill: self.sessions_end && requests.revoke.is_some(),
            verify: requests.verify.is_some() || requests.list.is_some(),
            list: owned && requests.can_be_swept(),
            renew: false,
            // An HTTP API has no way to refuse what comes late.
            deadline_guard: false,
            ttl_min: seconds(self.ttl_min_s),
            ttl_max: None,
            handle_len_max: self.name_len_max,
        }
    }
}

impl Requests {
    /// Those that a role's values are put into, by their keys.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, &Request)> {
        let optional = [
            ("revoke", self.revoke.as_ref()),
            ("verify", self.verify.as_ref()),
            ("list", self.list.as_ref().map(|list| &list.request)),
        ];
        let optional = optional.into_iter().filter_map(|(key, one)| one.map(|one| (key, one)));
        std::iter::once(("create", &self.create)).chain(optional)
    }

    /// Those that end one, or ask whether it has ended.
    pub(crate) fn of_a_death(&self) -> impl Iterator<Item = &Request> {
        self.revoke.iter().chain(&self.verify)
    }

    /// What nobody knows of a name that only a list has told: a role, a secret.
    pub(crate) fn can_be_swept(&self) -> bool {
        let known = |request: &Request| !request.holes().any(|hole| matches!(hole, Hole::Role(_)));
        let by_secret = self.revoke.as_ref().is_none_or(|revoke| revoke.has(&Hole::Secret));
        self.list.as_ref().is_some_and(|list| known(&list.request))
            && self.of_a_death().all(known)
            && !by_secret
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => IpAddr::from(*address).is_loopback(),
        Host::Ipv6(address) => IpAddr::from(*address).is_loopback(),
    }
}

#[cfg(test)]
mod tests;
