//! Whose callers an issuer's are, and what is known of their claims.
//!
//! Invariant: what a platform's claims mean is read from its preset. Only the two sources of
//! identities that have no preset, because no platform makes their claims, are described here.

use crate::identity::{Kind, Naming, Platform, Trap, named};

use super::{
    expr::{Atom, Fact},
    paths::Path,
};

/// An issuer, a trust domain or a set of AWS accounts, as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerFacts {
    /// What rules call it.
    pub name: String,
    /// Whose callers its are.
    pub source: Source,
    /// Whether they are people.
    pub kind: Kind,
    /// Its URL; empty where it has none.
    pub url: String,
    /// The audiences that its tokens may be for.
    pub audiences: Vec<String>,
    /// The traps of its preset whose tokens are let in.
    pub allow_traps: Vec<String>,
}

/// Whose callers an issuer's are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// AWS accounts, by signed requests: `[[aws_identity]]`.
    Aws,
    /// Nobody knows: an issuer without a preset.
    Other,
    /// A platform's: an issuer with a preset, and a cluster that is asked about its tokens.
    Preset(Platform),
    /// A trust domain's: `[[trust_domain]]`.
    Spiffe,
}

/// What is known of the claims of one source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    pub(super) title: &'static str,
    pub(super) names: &'static [Naming],
    pub(super) ids: &'static [&'static str],
    pub(super) places: &'static [&'static str],
    pub(super) traps: &'static [Trap],
}

static AWS: Traits = Traits {
    title: "AWS",
    names: &[
        named("arn", &[&["unique_id"], &["user_id"]]),
        named("role", &[&["unique_id"], &["user_id"]]),
        // The subject ends with `#` and the unique id.
        Naming { claim: "sub", pins: &[&["unique_id"], &["user_id"]], own_ids: Some(('#', 1)) },
        named("user", &[&["unique_id"], &["user_id"]]),
    ],
    ids: &["account", "unique_id", "user_id"],
    places: &["sub", "arn", "role", "unique_id", "user", "user_id"],
    traps: &[Trap {
        name: "recycled-names",
        rule: None,
        text: "a role or a user that is deleted and made anew has the same name: whoever may make \
               one gets its rights",
    }],
};

static OTHER: Traits = Traits { title: "", names: &[], ids: &[], places: &[], traps: &[] };

// What a path means, and whether it is given to another later, is the trust domain's business.
static SPIFFE: Traits = Traits {
    title: "SPIFFE",
    names: &[],
    ids: &[],
    places: &["sub", "path", "path.0", "path.1", "path.2", "path.3", "path.4", "path.5"],
    traps: &[],
};

impl Source {
    /// What is known of its claims.
    pub(super) fn traits(self) -> Traits {
        match self {
            Self::Aws => AWS,
            Self::Other => OTHER,
            Self::Preset(platform) => {
                let preset = platform.preset();
                Traits {
                    title: preset.title,
                    names: preset.names,
                    ids: preset.ids,
                    places: preset.places,
                    traps: preset.traps,
                }
            }
            Self::Spiffe => SPIFFE,
        }
    }

    /// What an issuer of this name probably is, whose callers are asked for these claims. For
    /// rules that are looked at without a configuration.
    pub(super) fn guess(issuer: &str, path: &Path) -> Self {
        // A trust domain has dots in its name; an issuer's name has none.
        if issuer.contains('.') {
            return Self::Spiffe;
        }
        let first = issuer.split('-').next().unwrap_or_default();
        let named = Platform::named(issuer).or_else(|| Platform::named(first)).map(Self::Preset);
        // AWS has two sources of callers: tokens, and requests that its roles sign.
        let signed = (first == "aws").then_some(Self::Aws);
        let claims = path.claims();
        let known = |source: &Self| claims.iter().filter(|claim| source.knows(claim)).count();
        let all: Vec<Self> =
            Platform::ALL.into_iter().map(Self::Preset).chain([Self::Aws, Self::Spiffe]).collect();
        let most = all.iter().map(known).max().unwrap_or_default();
        let mut called = named.into_iter().chain(signed).filter(|source| known(source) == most);
        if let Some(first) = called.next() {
            return called.find(|source| source.has_ids_in(path)).unwrap_or(first);
        }
        let mut likely = all.into_iter().filter(|source| known(source) == most);
        match (likely.next(), likely.next()) {
            (Some(only), None) => only,
            _ => Self::Other,
        }
    }

    /// Whether a value that is asked for has the ids in it that this source's names may have.
    fn has_ids_in(self, path: &Path) -> bool {
        let traits = self.traits();
        path.of_claims().any(|(claim, atom)| {
            traits.naming(claim).is_some_and(|naming| values_have_ids(naming, atom))
        })
    }

    /// Whether its callers have such a claim.
    fn knows(self, claim: &str) -> bool {
        let preset = match self {
            Self::Preset(platform) => platform.preset().claims,
            Self::Aws | Self::Other | Self::Spiffe => &[],
        };
        let traits = self.traits();
        preset.iter().any(|known| known.name == claim)
            || traits.names.iter().any(|naming| naming.claim == claim)
            || traits.ids.contains(&claim)
            || traits.places.contains(&claim)
    }
}

impl Traits {
    /// What is known of a claim that is a name.
    pub(super) fn naming(&self, claim: &str) -> Option<&'static Naming> {
        self.names.iter().find(|naming| naming.claim == claim)
    }

    /// What a trap of its platform is, by the trap's name.
    pub(super) fn trap(&self, name: &str) -> Option<&'static str> {
        self.traps.iter().find(|trap| trap.name == name).map(|trap| trap.text)
    }
}

/// Whether each value that is asked for has the ids in it that its form may have.
pub(super) fn values_have_ids(naming: &Naming, atom: &Atom) -> bool {
    match &atom.fact {
        Fact::OneOf(_, values) => values.iter().all(|value| has_own_ids(naming, value)),
        Fact::Like(_, pattern) => has_own_ids(naming, &pattern.to_string()),
        Fact::Constant(_)
        | Fact::Equal(..)
        | Fact::Has(_)
        | Fact::In(_)
        | Fact::Kind(..)
        | Fact::Member(_)
        | Fact::Other => false,
    }
}

/// `repo:acme@1/app@2:…`.
fn has_own_ids(naming: &Naming, value: &str) -> bool {
    naming.own_ids.is_some_and(|(mark, count)| {
        let is_id = |part: &&str| part.starts_with(|c: char| c.is_ascii_digit() || c == 'A');
        value.split(mark).skip(1).filter(is_id).count() >= count
    })
}

const NAMES: &str = "\
| claims of | names | what pins each | one of these fixes the place |
| --- | --- | --- | --- |
";

/// What is known of names and places, as a table in Markdown.
pub(super) fn table() -> String {
    let presets = Platform::ALL.map(|platform| {
        let name = format!("preset `{}`", platform.preset().name);
        row(&name, &Source::Preset(platform).traits())
    });
    format!("{NAMES}{}{}", presets.concat(), row("`[[aws_identity]]`", &AWS))
}

fn row(name: &str, traits: &Traits) -> String {
    let codes = |texts: &[&str], between: &str| {
        texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(between)
    };
    let pins = |naming: &Naming| {
        let sets: Vec<_> = naming.pins.iter().map(|pin| codes(pin, " and ")).collect();
        if sets.is_empty() { "nothing".to_owned() } else { sets.join(" or ") }
    };
    let claims: Vec<_> = traits.names.iter().map(|naming| format!("`{}`", naming.claim)).collect();
    let pins: Vec<_> = traits.names.iter().map(pins).collect();
    let (claims, pins) = (claims.join("; "), pins.join("; "));
    let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
    let places = codes(traits.places, " ");
    format!("| {name} | {} | {} | {places} |\n", or_none(claims), or_none(pins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_with_ids_in_it_is_known_from_one_without() {
        let github = Source::Preset(Platform::Github).traits();
        let subject = github.naming("sub").unwrap();
        assert!(has_own_ids(subject, "repo:acme@1/app@2:environment:production"));
        assert!(has_own_ids(subject, "repo:acme@1/app@2:*"));
        for other in ["repo:acme/app:*", "repo:acme@1/app:*", "repo:*@*/*@*:*", "repo:a@b/c@d:e"] {
            assert!(!has_own_ids(subject, other), "{other}");
        }
        let aws = Source::Aws.traits();
        let role = "arn:aws:sts::123456789012:assumed-role/deploy";
        assert!(has_own_ids(aws.naming("sub").unwrap(), &format!("{role}#AROAEXAMPLEROLE00001")));
        assert!(!has_own_ids(aws.naming("sub").unwrap(), &format!("{role}*")));
    }

    #[test]
    fn each_pin_of_a_name_is_a_claim_that_no_name_is() {
        for platform in Platform::ALL {
            let preset = platform.preset();
            for naming in preset.names {
                for pin in naming.pins.iter().copied().flatten() {
                    let hash = pin.ends_with("_sha");
                    assert!(hash || preset.ids.contains(pin), "{}: {pin}", preset.name);
                    let is_name = preset.names.iter().any(|other| other.claim == *pin);
                    assert!(!is_name, "{}: {pin} is an id and a name", preset.name);
                }
            }
        }
    }
}
