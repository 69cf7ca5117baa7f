//! A preset: what is known of one platform's tokens, as data.
//!
//! Invariant: a preset takes no check away. Signature, audience and times are verified as for
//! every issuer; a preset fills in what the configuration leaves out, refuses a configuration
//! that the platform cannot have, and refuses tokens that the platform would not make or that
//! fall into one of its traps.

mod shape;
mod table;

use std::{collections::BTreeMap, time::Duration};

use url::form_urlencoded;

use super::{Algorithm, ClaimValue, IssuerConfig, Kind, Platform, Rejection};

pub use shape::Shape;
pub use table::table;

/// A whole number with more digits is no id of any platform.
const DIGITS_MAX: usize = 20;

/// What is known of one platform's tokens.
#[derive(Debug)]
pub struct Preset {
    /// What `preset` calls it in the configuration.
    pub name: &'static str,
    /// What people call it.
    pub title: &'static str,
    /// What `iss` looks like. A token's own is compared with the configured one to the letter;
    /// this is what the configured one is held against. The first that has no gaps is taken
    /// where the configuration gives none.
    pub issuers: &'static [Shape],
    /// When the platform makes a new token.
    pub freshness: Freshness,
    /// How long its tokens live at most, as far as is known.
    pub life_max: Duration,
    /// What it signs with.
    pub algorithms: &'static [Algorithm],
    /// Whether the header of its tokens names a certificate.
    pub sends_x5t: bool,
    /// Claims with their forms. Others are let through as they come.
    pub claims: &'static [Claim],
    /// The claims that are given once and to nobody else afterwards: what rules should pin.
    pub ids: &'static [&'static str],
    /// Claims that are names, and what pins what they name. Whoever fixes a name alone trusts
    /// whoever has it next.
    pub names: &'static [Naming],
    /// What says which branch, environment or account a token is of: a rule that fixes none of
    /// these claims lets in whatever runs there. `sub` is the subject.
    pub places: &'static [&'static str],
    /// The audiences of tokens that jobs ask for when they mean somebody else, or nobody.
    pub other_audiences: &'static [Shape],
    /// What names the work that a token is for, the most exact first. Empty where nothing does.
    pub jobs: &'static [Job],
    /// What its users are caught by.
    pub traps: &'static [Trap],
}

/// When a platform makes a new token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// It is kept, and replaced before it ends.
    Kept,
    /// Once for each job.
    PerJob,
    /// Once for each phase of a run.
    PerPhase,
    /// At each request, so that no honest client sends one twice.
    PerRequest,
    /// At each request, and nothing in it is new but its time: two of one second are the same
    /// token.
    PerSecond,
}

impl Freshness {
    /// Whether a client has a token for each task that it opens.
    pub(super) fn is_for_each(self) -> bool {
        match self {
            Self::PerRequest | Self::PerSecond => true,
            Self::Kept | Self::PerJob | Self::PerPhase => false,
        }
    }
}

impl Freshness {
    /// Whether one job is given a token, and keeps it. What is kept by a machine or a pod is
    /// everybody's there.
    fn is_of_one_job(self) -> bool {
        match self {
            Self::PerJob | Self::PerPhase => true,
            Self::Kept | Self::PerRequest | Self::PerSecond => false,
        }
    }
}

/// A claim whose form is known.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Its path; what is nested has dots.
    pub name: &'static str,
    /// What its value looks like.
    pub form: Form,
    /// Whether every token has it.
    pub required: bool,
}

/// What a claim's value looks like. Rules see text whichever it is (ADR 0004), so a number and
/// its digits in quotes are the same; a value of another form is a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `true` or `false`, in quotes or not, and no other word for it.
    Flag,
    /// A list of single values.
    List,
    /// A whole number, 0 or more, in quotes or not, written in the one way: no sign, no zero
    /// before it, no exponent.
    Number,
    /// Any single value.
    Text,
}

/// A claim that is a name.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    /// The claim; `sub` is the subject.
    pub claim: &'static str,
    /// Sets of ids: who fixes all of one set has pinned what is named. Empty where the platform
    /// gives no id for it.
    pub pins: &'static [&'static [&'static str]],
    /// The character before each id in values that have ids themselves, and how many they have.
    pub own_ids: Option<(char, usize)>,
}

/// Claims that together name the work that a token is for.
#[derive(Debug, Clone, Copy)]
pub struct Job {
    /// What they name.
    pub unit: &'static str,
    /// The claims.
    pub claims: &'static [&'static str],
}

/// Something that users of a platform are caught by.
#[derive(Debug, Clone, Copy)]
pub struct Trap {
    /// What `allow_traps` and the audit log call it.
    pub name: &'static str,
    /// Which tokens are in it, and are refused. Without a rule it is for people to know: no
    /// token shows it.
    pub rule: Option<Rule>,
    /// What happens to whoever does not know of it, and what helps.
    pub text: &'static str,
}

/// Which tokens are in a trap.
#[derive(Debug, Clone, Copy)]
pub enum Rule {
    /// Those whose claim is none of the parts between the slashes of `iss`.
    NotInIssuer {
        /// The claim.
        claim: &'static str,
    },
    /// Those whose claim has one of these values. That it is there is not this rule's concern.
    OneOf {
        /// The claim.
        claim: &'static str,
        /// The values.
        values: &'static [&'static str],
    },
    /// Those in which two claims differ, or one of them is missing.
    Unequal {
        /// One claim.
        one: &'static str,
        /// The other.
        other: &'static str,
    },
}

/// A claim that every token of a platform has.
pub(super) const fn required(name: &'static str, form: Form) -> Claim {
    Claim { name, form, required: true }
}

/// A claim that some tokens of a platform have.
pub(super) const fn optional(name: &'static str, form: Form) -> Claim {
    Claim { name, form, required: false }
}

/// A name that these sets of ids pin.
pub(crate) const fn named(claim: &'static str, pins: &'static [&'static [&'static str]]) -> Naming {
    Naming { claim, pins, own_ids: None }
}

/// The audiences that services take whose tokens are asked for on many platforms.
const SERVICES: [&str; 7] = [
    "api://AzureADTokenExchange",
    "crates.io",
    "npm:registry.npmjs.org",
    "pypi",
    "rubygems.org",
    "sigstore",
    "sts.amazonaws.com",
];
/// The trap of a platform whose tokens have one audience, whoever asks.
const FIXED_AUDIENCE: &str = "fixed-audience";

impl Preset {
    /// Whether tokens for `audience` are made for other services as well, or for nobody in
    /// particular. Where a platform leaves no choice, nothing is said.
    pub fn shares_audience(&self, audience: &str) -> bool {
        let fixed = self.traps.iter().any(|trap| trap.name == FIXED_AUDIENCE);
        let theirs = || self.other_audiences.iter().any(|shape| shape.matches(audience));
        !fixed && (SERVICES.contains(&audience) || theirs())
    }

    /// The one `iss` that the platform has for everybody, if it has one.
    pub fn issuer(&self) -> Option<&'static str> {
        self.issuers.iter().find_map(Shape::exact)
    }

    /// Sets what the configuration does not say; `written` says of a key whether it does.
    pub fn fill(&self, config: &mut IssuerConfig, written: impl Fn(&str) -> bool) {
        if !written("algorithms") {
            config.algorithms = self.algorithms.to_vec();
        }
        if !written("single_use") {
            config.single_use = self.freshness.is_for_each();
        }
        if !written("first_key_binds") {
            config.first_key_binds = !config.single_use && self.freshness.is_of_one_job();
        }
        if !written("token_age_max_seconds") {
            config.token_age_max_seconds = self.life_max.as_secs();
        }
        if !written("ignore_x5t") {
            config.ignore_x5t = self.sends_x5t;
        }
        if !written("jwks_url") && !written("jwks_file") {
            let known = self.shape(&config.issuer).and_then(|shape| shape.jwks_url);
            config.jwks_url = known.map(str::to_owned);
        }
    }

    /// What a configuration says that the platform cannot have, each beginning with its key.
    pub(super) fn contradictions(&self, config: &IssuerConfig) -> Vec<String> {
        let (name, title) = (self.name, self.title);
        let mut faults = Vec::new();
        if self.shape(&config.issuer).is_none() {
            let shapes: Vec<_> = self.issuers.iter().map(|shape| shape.pattern).collect();
            let (given, shapes) = (&config.issuer, shapes.join(" or "));
            faults.push(format!("issuer `{given}` is none of preset `{name}`: expected {shapes}"));
        }
        if config.kind == Kind::Human {
            faults.push(format!("kind is human, and preset `{name}` is of workloads"));
        }
        if self.freshness == Freshness::PerRequest && !config.single_use {
            faults.push(format!("single_use is false, and {title} makes a token for each request"));
        }
        if self.sends_x5t && !config.ignore_x5t {
            faults.push(format!("ignore_x5t is false, and each token of {title} has `x5t`"));
        }
        let foreign = config.algorithms.iter().filter(|one| !self.algorithms.contains(one));
        faults.extend(foreign.map(|algorithm| {
            format!("algorithms has {}, with which {title} does not sign", algorithm.as_str())
        }));
        let refusing: Vec<_> = self.traps.iter().filter(|trap| trap.rule.is_some()).collect();
        let unknown = |name: &&String| !refusing.iter().any(|trap| trap.name == name.as_str());
        faults.extend(config.allow_traps.iter().filter(unknown).map(|trap| {
            format!("allow_traps has `{trap}`, which preset `{name}` does not refuse")
        }));
        faults
    }

    /// Holds verified claims against the forms and the traps.
    pub(super) fn check(
        &self,
        claims: &BTreeMap<String, ClaimValue>,
        allow_traps: &[String],
    ) -> Result<(), Rejection> {
        for claim in self.claims {
            claim.check(claims)?;
        }
        for trap in self.traps {
            let caught = trap.rule.is_some_and(|rule| rule.catches(claims));
            if caught && !allow_traps.iter().any(|name| name == trap.name) {
                return Err(Rejection::Trapped { trap: trap.name });
            }
        }
        Ok(())
    }

    /// What names the work that a token is for: `name=value` pairs as in a URL's query, one
    /// text for one job of this issuer. The issuer is not in it: two of one platform may use
    /// the same numbers.
    pub fn job_key(&self, claims: &BTreeMap<String, ClaimValue>) -> Option<String> {
        self.jobs.iter().find_map(|job| job.key(claims))
    }

    /// The shape of `issuer`. A host that anybody may have is refused where it holds the name
    /// of a host that the platform itself has: `https://gitlab.com.evil.example` looks right.
    fn shape(&self, issuer: &str) -> Option<&'static Shape> {
        let found = self.issuers.iter().find(|shape| shape.matches(issuer))?;
        let feigned = found.has_any_host() && self.issuers.iter().any(|own| own.is_in(issuer));
        (!feigned).then_some(found)
    }
}

impl IssuerConfig {
    /// An issuer of a platform, with every default of its preset.
    pub fn of(
        platform: Platform,
        name: impl Into<String>,
        issuer: impl Into<String>,
        audience: impl Into<String>,
    ) -> Self {
        let mut config = Self::new(name, issuer, audience);
        config.preset = Some(platform);
        platform.preset().fill(&mut config, |_| false);
        config
    }
}

impl Claim {
    fn check(&self, claims: &BTreeMap<String, ClaimValue>) -> Result<(), Rejection> {
        let claim = self.name;
        match claims.get(claim) {
            Some(ClaimValue::Text(text)) if self.required && text.is_empty() => {
                Err(Rejection::ClaimMissing { claim })
            }
            Some(value) if self.form.has(value) => Ok(()),
            Some(_) => Err(Rejection::ClaimMalformed { claim }),
            None if has_inner(claims, claim) => Err(Rejection::ClaimMalformed { claim }),
            None if self.required => Err(Rejection::ClaimMissing { claim }),
            None => Ok(()),
        }
    }
}

/// Whether an object, or a list of them, stands where a claim should: flattened, it is not
/// there under its own name.
fn has_inner(claims: &BTreeMap<String, ClaimValue>, claim: &str) -> bool {
    let inner = format!("{claim}.");
    let first = claims.range(inner.clone()..).next();
    first.is_some_and(|(path, _)| path.starts_with(&inner))
}

impl Form {
    fn has(self, value: &ClaimValue) -> bool {
        match (self, value) {
            (Self::Flag, ClaimValue::Text(text)) => ["true", "false"].contains(&text.as_str()),
            (Self::List, ClaimValue::List(_)) | (Self::Text, ClaimValue::Text(_)) => true,
            (Self::Number, ClaimValue::Text(text)) => is_number(text),
            (Self::List, ClaimValue::Text(_))
            | (Self::Flag | Self::Number | Self::Text, ClaimValue::List(_)) => false,
        }
    }
}

fn is_number(text: &str) -> bool {
    (1..=DIGITS_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

impl Job {
    fn key(&self, claims: &BTreeMap<String, ClaimValue>) -> Option<String> {
        let mut key = form_urlencoded::Serializer::new(String::new());
        for name in self.claims {
            let value = text_of(claims, name).filter(|value| !value.is_empty())?;
            key.append_pair(name, value);
        }
        Some(key.finish())
    }
}

impl Rule {
    /// The claims that it looks at.
    pub fn claims(self) -> Vec<&'static str> {
        match self {
            Self::NotInIssuer { claim } | Self::OneOf { claim, .. } => vec![claim],
            Self::Unequal { one, other } => vec![one, other],
        }
    }

    fn catches(self, claims: &BTreeMap<String, ClaimValue>) -> bool {
        match self {
            Self::NotInIssuer { claim } => {
                let issuer = text_of(claims, "iss").unwrap_or_default();
                text_of(claims, claim).is_none_or(|value| issuer.split('/').all(|it| it != value))
            }
            Self::OneOf { claim, values } => match claims.get(claim) {
                Some(ClaimValue::Text(text)) => values.contains(&text.as_str()),
                Some(ClaimValue::List(entries)) => {
                    entries.iter().any(|entry| values.contains(&entry.as_str()))
                }
                None => false,
            },
            Self::Unequal { one, other } => match (text_of(claims, one), text_of(claims, other)) {
                (Some(one), Some(other)) => one != other,
                (None, _) | (_, None) => true,
            },
        }
    }
}

fn text_of<'a>(claims: &'a BTreeMap<String, ClaimValue>, name: &str) -> Option<&'a str> {
    match claims.get(name)? {
        ClaimValue::Text(text) => Some(text),
        ClaimValue::List(_) => None,
    }
}
