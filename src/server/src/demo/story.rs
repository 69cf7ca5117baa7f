//! The demo's client: plain HTTP, as anybody's would be.
//!
//! Invariant: it looks at nothing but answers.

use anyhow::{Context, bail};
use dayfly_api as api;
use dayfly_backend_sdk::Secret;
use reqwest::{Client, RequestBuilder, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Local;

pub(super) struct Story {
    client: Client,
    url: String,
    identity: Secret,
    admin: Secret,
    task_token: Option<Secret>,
}

/// A task that the demo opened.
pub(super) struct OpenTask {
    pub(super) id: String,
}

impl Story {
    pub(super) fn new(local: &Local) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::builder().no_proxy().build()?,
            url: local.url(),
            identity: local.workload_token(),
            admin: local.admin_token(),
            task_token: None,
        })
    }

    pub(super) async fn open_task(&mut self) -> anyhow::Result<(OpenTask, String)> {
        let body = json!({ "purpose": "say hello", "ttl_seconds": 600 });
        let request = self.client.post(self.at("/api/v1/tasks")).json(&body);
        let opened: api::OpenedTask = answer(request.bearer_auth(self.identity.expose())).await?;
        self.task_token = Some(Secret::new(opened.token));
        Ok((OpenTask { id: opened.id }, opened.expires_at))
    }

    pub(super) async fn principal(&self, task: &OpenTask) -> anyhow::Result<String> {
        let request = self.client.get(self.at("/api/v1/whoami"));
        let me: api::WhoAmI = answer(self.as_task(request)?).await?;
        if me.task.as_deref() != Some(&task.id) {
            bail!("the task token is of another task");
        }
        Ok(me.principal)
    }

    pub(super) async fn mint_denied(&self, role: &str) -> anyhow::Result<api::Problem> {
        let response = self.mint_request(role)?.send().await?;
        if response.status() != StatusCode::FORBIDDEN {
            bail!("`{role}` was answered {}", response.status());
        }
        Ok(response.json().await?)
    }

    pub(super) async fn mint(&self, role: &str) -> anyhow::Result<(api::Lease, Secret)> {
        let mut lease: api::Lease = answer(self.mint_request(role)?).await?;
        let mut credential = lease.credential.take().context("no credential in the answer")?;
        let key = credential.fields.remove("key").context("no key in the credential")?;
        Ok((lease, Secret::new(key)))
    }

    fn mint_request(&self, role: &str) -> anyhow::Result<RequestBuilder> {
        let body = json!({ "role": role });
        self.as_task(self.client.post(self.at("/api/v1/leases")).json(&body))
    }

    /// What a service that asks Dayfly about the key would see.
    pub(super) async fn use_key(&self, key: &Secret) -> anyhow::Result<u16> {
        let request = self.client.get(self.at("/verify")).bearer_auth(key.expose());
        Ok(request.send().await?.status().as_u16())
    }

    pub(super) async fn complete(&self, task: &OpenTask) -> anyhow::Result<api::Completed> {
        let url = self.at(&format!("/api/v1/tasks/{}/complete?wait=5s", task.id));
        let request = self.client.post(url).json(&json!({ "outcome": "completed" }));
        answer(self.as_task(request)?).await
    }

    pub(super) async fn lease(&self, id: &str) -> anyhow::Result<api::Lease> {
        let request = self.client.get(self.at(&format!("/api/v1/leases/{id}")));
        answer(self.as_task(request)?).await
    }

    pub(super) async fn life(&self, lease: &str) -> anyhow::Result<Vec<api::AuditRecord>> {
        let request = self.client.get(self.at(&format!("/api/v1/audit?lease={lease}")));
        let page: api::AuditPage = answer(request.bearer_auth(self.admin.expose())).await?;
        Ok(page.data)
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn as_task(&self, request: RequestBuilder) -> anyhow::Result<RequestBuilder> {
        let token = self.task_token.as_ref().context("no task was opened")?;
        Ok(request.bearer_auth(token.expose()))
    }
}

async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> anyhow::Result<T> {
    let response = request.send().await?;
    let status = response.status();
    if !status.is_success() {
        let problem: api::Problem = response.json().await?;
        bail!("answered {status}: {} ({})", problem.detail, problem.code);
    }
    Ok(response.json().await?)
}
