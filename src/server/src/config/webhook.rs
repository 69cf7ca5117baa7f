//! `[[webhook]]`: who may tell us that a job ended.
//!
//! Invariant: a webhook belongs to one issuer of the configuration, and all webhooks and pollers
//! of an issuer are of one kind, so that a job has one name. None is without a secret.

use super::{
    fault::Wrong,
    poller::PollerConfig,
    section::{Origin, Reading, Section, name, one_of, text},
    tree::{Item, Value},
};
use crate::webhook::{HookKey, is_scope};

/// Which platform sends it, or is asked by a `[[poller]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Buildkite: `job.finished`.
    Buildkite,
    /// GitHub: `workflow_job` and `workflow_run`.
    Github,
    /// GitLab: job and pipeline events.
    Gitlab,
}

impl HookKind {
    pub(super) const WORDS: [(&str, Self); 3] =
        [("buildkite", Self::Buildkite), ("github", Self::Github), ("gitlab", Self::Gitlab)];

    /// Its word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Buildkite => "buildkite",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
        }
    }
}

/// `[[webhook]]`.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    /// Its name, in its path and in the audit log.
    pub name: String,
    /// Which platform sends it.
    pub kind: HookKind,
    /// The name of the issuer whose tasks it may end.
    pub issuer: String,
    /// What its requests are proved with: the secret, and the one before.
    pub keys: Vec<HookKey>,
    /// `only`: what of the issuer it may speak of; everything where nothing is said.
    pub only: Option<Vec<String>>,
    origin: Origin,
}

/// Who ended a task stands in the audit log as `webhook|NAME`.
pub(super) const ACTOR: &str = "webhook";

/// Reads a webhook of a configuration with these issuers of tokens; `taken` where an issuer of any
/// kind has the name [`ACTOR`].
pub(super) fn read(section: &Section<'_>, issuers: &[&str], taken: bool) -> Option<WebhookConfig> {
    let name = section.required("name", name);
    let kind = section.required("kind", one_of(&HookKind::WORDS));
    let issuer = section.required("issuer", text);
    if section.item("secret").is_none() {
        section.missing("secret");
    }
    let key = |which: &'static str| {
        let (secret, kind) = (section.secret(which)?, kind?);
        let key = HookKey::parse(kind, &secret);
        if key.is_none() {
            let min = HookKey::LEN_MIN;
            let whole = "and what begins with `whsec_` is a signing token of GitLab, whole";
            section.fault(which, format!("must have at least {min} bytes, {whole}"));
        }
        key
    };
    let (secret, previous) = (key("secret"), key("previous_secret"));
    if let Some(issuer) = &issuer
        && !issuers.contains(&issuer.as_str())
    {
        let unknown = Wrong::unknown("issuer", issuer, issuers);
        let message = format!("no issuer has the name `{issuer}`");
        section.fault_absent("issuer", Wrong { message, ..unknown });
    }
    // Asked for in any case, or it would be taken for an unknown key.
    let only = section.item("only").and(kind);
    let only = only.and_then(|kind| section.optional("only", scopes(kind)));
    if taken {
        section.fault("issuer", "an issuer is called `webhook`; the audit log would mix them up");
    }
    Some(WebhookConfig {
        name: name?,
        kind: kind?,
        issuer: issuer?,
        keys: secret.into_iter().chain(previous).collect(),
        only,
        origin: section.origin(),
    })
}

/// What a webhook may be bound to.
fn scopes(kind: HookKind) -> impl FnOnce(&Item) -> Reading<Vec<String>> {
    move |item| {
        let what = match kind {
            HookKind::Buildkite => "organizations, or ORGANIZATION/PIPELINE",
            HookKind::Github => "ids of repositories, as texts",
            HookKind::Gitlab => "ids of projects, as texts",
        };
        let wrong = || Wrong::from(format!("expected a list of {what}"));
        let Value::Array(items) = &item.value else { return Err(wrong()) };
        let scope = |item: &Item| text(item).ok().filter(|text| is_scope(kind, text));
        let scopes: Option<Vec<String>> = items.iter().map(scope).collect();
        // An empty list would be a webhook for nothing.
        scopes.filter(|scopes| !scopes.is_empty()).ok_or_else(wrong)
    }
}

/// Notes the webhooks and pollers whose issuer has one of another kind.
pub(super) fn check_kinds(
    root: &Section<'_>,
    webhooks: &[WebhookConfig],
    pollers: &[PollerConfig],
) {
    let told = webhooks.iter().map(|one| ("webhook", &one.issuer, one.kind, &one.origin));
    let asked = pollers.iter().map(|one| ("poller", &one.issuer, one.kind, &one.origin));
    let all: Vec<_> = told.chain(asked).collect();
    for (index, (_, issuer, kind, origin)) in all.iter().enumerate() {
        let mut before = all.iter().take(index);
        if let Some((what, _, other, _)) =
            before.find(|(_, other, other_kind, _)| other == issuer && other_kind != kind)
        {
            let message = format!(
                "the issuer `{issuer}` has a {what} of the kind \"{}\", and runs one platform only",
                other.as_str()
            );
            root.context.report.note(origin.fault("kind", message));
        }
    }
}
