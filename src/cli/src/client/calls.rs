//! The calls of the API that the command line makes.
//!
//! Invariant: each call says whether it may be repeated; nothing that mints may, but under a key by
//! which the broker knows it again.

use std::time::Duration;

use dayfly_api::{
    AbandonLease, CheckRole, CompleteTask, Completed, CreateLease, CreateTask, Heartbeat, Lease,
    LeasePage, Login, OpenedTask, Outcome, RenewLease, Renewed, RevokeLease, Revoked, RoleCheck,
    RoleList, Rotated, Standing, Task, TaskPage, WhoAmI,
};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use crate::{
    client::{ATTEMPT_TIMEOUT, ATTEMPTS_MAX, Call, Client, Error, Repeat},
    identity::Token,
};

/// Which leases or tasks to list: query parameters that are set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter(pub(crate) Vec<(&'static str, String)>);

/// What of the API's description is looked at.
#[derive(Deserialize)]
struct Description {
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    version: String,
}

impl Filter {
    /// `url` with the parameters, from `cursor` on.
    fn applied(&self, mut url: Url, cursor: Option<&str>) -> Url {
        let set = self.0.iter().map(|(name, value)| (*name, value.as_str()));
        let cursor = cursor.map(|cursor| ("cursor", cursor));
        url.query_pairs_mut().extend_pairs(set.chain(cursor));
        url
    }
}

impl Client {
    pub(crate) async fn open_task(
        &self,
        bearer: &Token,
        task: &CreateTask,
    ) -> Result<OpenedTask, Error> {
        let call = Call {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "tasks"]),
            body: Some(task),
            repeat: Repeat::Unsent,
            attempts_max: ATTEMPTS_MAX,
            wait: Duration::ZERO,
        };
        self.send(call, bearer).await
    }

    /// A further credential of the task whose token it is, with its role's own lifetime.
    pub(crate) async fn create_lease(&self, bearer: &Token, role: &str) -> Result<Lease, Error> {
        self.minted(bearer, role, None, ATTEMPTS_MAX).await
    }

    /// The same, of which at most one is alive under `key`: a repetition revokes the one whose
    /// answer was lost.
    pub(crate) async fn mint_once(
        &self,
        bearer: &Token,
        role: &str,
        key: &str,
    ) -> Result<Lease, Error> {
        // Its caller has a schedule of its own.
        self.minted(bearer, role, Some(key), 1).await
    }

    async fn minted(
        &self,
        bearer: &Token,
        role: &str,
        key: Option<&str>,
        attempts_max: u32,
    ) -> Result<Lease, Error> {
        let call = Call {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "leases"]),
            body: Some(&CreateLease { role: role.to_owned(), ttl_seconds: None }),
            repeat: Repeat::Unsent,
            attempts_max,
            wait: Duration::ZERO,
        };
        self.send_once(call, bearer, key).await
    }

    /// Completes a task; tried twice at most, since somebody waits for it.
    pub(crate) async fn complete_task(
        &self,
        bearer: &Token,
        id: &str,
        outcome: Outcome,
        wait: Duration,
    ) -> Result<Completed, Error> {
        let url = self.url.join(&["api", "v1", "tasks", id, "complete"]);
        self.end(bearer, url, &CompleteTask { outcome }, wait).await
    }

    pub(crate) async fn revoke_lease(
        &self,
        bearer: &Token,
        id: &str,
        reason: &str,
        wait: Duration,
    ) -> Result<Revoked, Error> {
        let url = self.url.join(&["api", "v1", "leases", id, "revoke"]);
        self.end(bearer, url, &RevokeLease { reason: reason.to_owned() }, wait).await
    }

    /// Asks to give up on a lease, or agrees to it. Sent again it would be refused: the same
    /// person cannot agree.
    pub(crate) async fn abandon_lease(
        &self,
        bearer: &Token,
        id: &str,
        reason: &str,
    ) -> Result<Lease, Error> {
        let call = Call {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "leases", id, "abandon"]),
            body: Some(&AbandonLease { reason: reason.to_owned() }),
            repeat: Repeat::Unsent,
            attempts_max: ATTEMPTS_MAX,
            wait: Duration::ZERO,
        };
        self.send(call, bearer).await
    }

    pub(crate) async fn standing(&self, bearer: &Token) -> Result<Standing, Error> {
        self.read_one(bearer, self.url.join(&["api", "v1", "standing"])).await
    }

    /// Letting go twice is the same as once.
    pub(crate) async fn release_hold(&self, bearer: &Token) -> Result<Standing, Error> {
        let call = Call::<()> {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "standing", "release"]),
            body: None,
            repeat: Repeat::Harmless,
            attempts_max: ATTEMPTS_MAX,
            wait: Duration::ZERO,
        };
        self.send(call, bearer).await
    }

    /// Not repeated: the first may have been done.
    pub(crate) async fn rotate(&self, bearer: &Token, backend: &str) -> Result<Rotated, Error> {
        let call = Call::<()> {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "backends", backend, "rotate"]),
            body: None,
            repeat: Repeat::Unsent,
            attempts_max: ATTEMPTS_MAX,
            wait: Duration::ZERO,
        };
        self.send(call, bearer).await
    }

    /// Says that the task's work goes on.
    /// Waits for the answer as long as `within`, and no longer.
    pub(crate) async fn beat(
        &self,
        bearer: &Token,
        task: &str,
        within: Duration,
    ) -> Result<Heartbeat, Error> {
        let call = Call::<()> {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "tasks", task, "heartbeat"]),
            body: None,
            // Its caller has a schedule of its own.
            repeat: Repeat::Unsent,
            attempts_max: 1,
            wait: Duration::ZERO,
        };
        let answer = tokio::time::timeout(within, self.send(call, bearer)).await;
        answer.unwrap_or_else(|_| Err(Error::TimedOut { url: self.url.to_string() }))
    }

    pub(crate) async fn renew_lease(
        &self,
        bearer: &Token,
        id: &str,
        ttl_seconds: i64,
    ) -> Result<Renewed, Error> {
        let call = Call {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "leases", id, "renew"]),
            body: Some(&RenewLease { ttl_seconds }),
            // Its caller has a schedule of its own.
            repeat: Repeat::Unsent,
            attempts_max: 1,
            wait: Duration::ZERO,
        };
        self.send(call, bearer).await
    }

    pub(crate) async fn lease(&self, bearer: &Token, id: &str) -> Result<Lease, Error> {
        self.read_one(bearer, self.url.join(&["api", "v1", "leases", id])).await
    }

    pub(crate) async fn leases(
        &self,
        bearer: &Token,
        filter: &Filter,
        cursor: Option<&str>,
    ) -> Result<LeasePage, Error> {
        let url = self.url.join(&["api", "v1", "leases"]);
        self.read_one(bearer, filter.applied(url, cursor)).await
    }

    pub(crate) async fn tasks(
        &self,
        bearer: &Token,
        filter: &Filter,
        cursor: Option<&str>,
    ) -> Result<TaskPage, Error> {
        let url = self.url.join(&["api", "v1", "tasks"]);
        self.read_one(bearer, filter.applied(url, cursor)).await
    }

    /// How people sign in, which nobody must have done before to be told.
    pub(crate) async fn login(&self) -> Result<Login, Error> {
        let url = self.url.join(&["api", "v1", "login"]);
        let response = self.http.get(url).timeout(ATTEMPT_TIMEOUT).send().await;
        self.read(response.map_err(|error| self.transport(error))?).await
    }

    /// The broker's version, as the description of its API has it. It takes no token to ask.
    pub(crate) async fn version(&self) -> Result<String, Error> {
        let request = self.http.get(self.url.join(&["openapi.json"])).timeout(ATTEMPT_TIMEOUT);
        let response = request.send().await.map_err(|error| self.transport(error))?;
        let description: Description = self.read(response).await?;
        Ok(description.info.version)
    }

    pub(crate) async fn task(&self, bearer: &Token, id: &str) -> Result<Task, Error> {
        self.read_one(bearer, self.url.join(&["api", "v1", "tasks", id])).await
    }

    pub(crate) async fn roles(&self, bearer: &Token) -> Result<RoleList, Error> {
        self.read_one(bearer, self.url.join(&["api", "v1", "roles"])).await
    }

    /// What would be decided; nothing comes of it, however often it is asked.
    pub(crate) async fn check_role(
        &self,
        bearer: &Token,
        role: &str,
        question: &CheckRole,
    ) -> Result<RoleCheck, Error> {
        let call = Call {
            method: Method::POST,
            url: self.url.join(&["api", "v1", "roles", role, "check"]),
            body: Some(question),
            repeat: Repeat::Harmless,
            attempts_max: ATTEMPTS_MAX,
            wait: Duration::ZERO,
        };
        self.send(call, bearer).await
    }

    pub(crate) async fn whoami(&self, bearer: &Token) -> Result<WhoAmI, Error> {
        self.read_one(bearer, self.url.join(&["api", "v1", "whoami"])).await
    }

    async fn read_one<T: DeserializeOwned>(&self, bearer: &Token, url: Url) -> Result<T, Error> {
        let call = Call::<()> {
            method: Method::GET,
            url,
            body: None,
            repeat: Repeat::Harmless,
            attempts_max: ATTEMPTS_MAX,
            wait: Duration::ZERO,
        };
        self.send(call, bearer).await
    }

    /// Ending something twice is the same as once.
    async fn end<B: serde::Serialize, T: DeserializeOwned>(
        &self,
        bearer: &Token,
        mut url: Url,
        body: &B,
        wait: Duration,
    ) -> Result<T, Error> {
        if !wait.is_zero() {
            url.query_pairs_mut().append_pair("wait", &format!("{}s", wait.as_secs()));
        }
        let call = Call {
            method: Method::POST,
            url,
            body: Some(body),
            repeat: Repeat::Harmless,
            attempts_max: 2,
            wait,
        };
        self.send(call, bearer).await
    }
}
