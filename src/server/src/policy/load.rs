//! From files to a checked set of rules.
//!
//! Invariant: a set in which anything is wrong is refused whole, and everything that is wrong
//! is said at once, each with its file and line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::Path,
};

use cedar_policy::{Policy, PolicyId, PolicySet, ValidationMode, Validator, ffi::DetailedError};
use data_encoding::HEXLOWER;
use ring::digest;

use super::{
    ask::RoleFacts,
    decision::{DEFAULT_DENY, EVALUATION_ERROR},
    request::{SCHEMA, Vocabulary},
};

/// The most bytes of rules that one file may have.
pub const FILE_BYTES_MAX: usize = 1 << 20;
/// The most rules that one set may have.
pub const RULES_MAX: usize = 20_000;
/// The longest `@id`.
pub const RULE_ID_LEN_MAX: usize = 100;

const BASE: &str = include_str!("base.cedar");
pub(super) const BASE_FILE: &str = "(built in) base.cedar";
pub(super) const BASE_PREFIX: &str = "base/";

/// Something wrong in a set of rules.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct PolicyFault {
    /// The file, or the directory if no file is to blame.
    pub file: String,
    /// The line, counted from 1, if one is to blame.
    pub line: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl PolicyFault {
    pub(super) fn new(file: &str, line: Option<usize>, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

/// A set without faults.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) policies: Vec<Policy>,
    /// Where each of them stands, in the same order: file and line.
    pub(super) places: Vec<(String, usize)>,
    /// SHA-256 of the schema and of all files with their names, in hexadecimal.
    pub(super) hash: String,
}

/// The rules' files in a directory, in the order of their names. Other files, hidden files
/// (an editor's, or the links of a Kubernetes volume) and directories are left alone.
pub(super) fn read(dir: &Path) -> Result<Vec<(String, String)>, Vec<PolicyFault>> {
    let fault = |path: &Path, error: &io::Error| {
        PolicyFault::new(&path.display().to_string(), None, format!("cannot be read: {error}"))
    };
    let listed = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut paths: Vec<_> = match listed {
        Ok(entries) => entries.iter().map(fs::DirEntry::path).collect(),
        Err(error) => return Err(vec![fault(dir, &error)]),
    };
    paths.sort();
    let hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    paths.retain(|path| path.extension().is_some_and(|it| it == "cedar") && !hidden(path));
    let mut files = Vec::new();
    let mut faults = Vec::new();
    for path in &paths {
        match fs::read_to_string(path) {
            Ok(text) => files.push((path.display().to_string(), text)),
            Err(error) => faults.push(fault(path, &error)),
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

/// Parses, names and validates the built-in rules and those of `files`. Without `roles`, what
/// rules call roles and backends is not held against anything.
pub(super) fn check(
    files: &[(String, String)],
    roles: Option<&[RoleFacts]>,
    vocabulary: &Vocabulary,
) -> Result<Checked, Vec<PolicyFault>> {
    let mut faults = Vec::new();
    let base = (BASE_FILE.to_owned(), BASE.to_owned());
    let files: Vec<&(String, String)> = std::iter::once(&base).chain(files).collect();
    let mut placed = Vec::new();
    for (file, text) in files.iter().copied() {
        parse(file, text, &mut placed, &mut faults);
    }
    if placed.len() > RULES_MAX {
        let message = format!("{} rules, and {RULES_MAX} are the most", placed.len());
        let file = files.last().map_or(BASE_FILE, |(file, _)| file);
        return Err(vec![PolicyFault::new(file, None, message)]);
    }
    name(&mut placed, &mut faults);
    if let Some(roles) = roles {
        for rule in &placed {
            references(rule, roles, &mut faults);
        }
    }
    validate(&placed, vocabulary, &mut faults);
    if faults.is_empty() {
        let places = placed.iter().map(|rule| (rule.file.to_owned(), rule.line)).collect();
        let policies = placed.into_iter().map(|rule| rule.policy).collect();
        return Ok(Checked { policies, places, hash: hash(&files) });
    }
    faults.sort();
    faults.dedup();
    Err(faults)
}

/// A rule and where it stands.
struct Placed<'a> {
    policy: Policy,
    file: &'a str,
    text: &'a str,
    line: usize,
}

impl Placed<'_> {
    fn fault(&self, message: impl Into<String>) -> PolicyFault {
        PolicyFault::new(self.file, Some(self.line), message)
    }
}

fn parse<'a>(
    file: &'a str,
    text: &'a str,
    placed: &mut Vec<Placed<'a>>,
    faults: &mut Vec<PolicyFault>,
) {
    if text.len() > FILE_BYTES_MAX {
        let message = format!("{} bytes, and {FILE_BYTES_MAX} are the most", text.len());
        faults.push(PolicyFault::new(file, None, message));
        return;
    }
    let set: PolicySet = match text.parse::<PolicySet>() {
        Ok(set) => set,
        Err(errors) => {
            let details = errors.iter().map(DetailedError::from);
            faults.extend(details.map(|detail| located(file, text, None, &detail)));
            return;
        }
    };
    if set.num_of_templates() > 0 {
        faults.push(PolicyFault::new(file, None, "rules with slots (`?principal`) are not used"));
    }
    // Cedar numbers the rules in the order of the text (`policy0`, `policy1`, …) and gives
    // each one's own text back, which is where its line comes from.
    let mut policies: Vec<&Policy> = set.policies().collect();
    let number = |policy: &Policy| -> Option<usize> {
        policy.id().to_string().strip_prefix("policy")?.parse().ok()
    };
    policies.sort_by_key(|policy| number(policy));
    let mut from = 0;
    for policy in policies {
        let own = policy.to_cedar().unwrap_or_default();
        let found = text.get(from..).and_then(|rest| rest.find(&own));
        let at = from.saturating_add(found.unwrap_or_default());
        from = at.saturating_add(own.len());
        placed.push(Placed { policy: policy.clone(), file, text, line: line(text, at) });
    }
}

/// Gives each rule its `@id`. A rule without a usable one gets its place for a name, so that
/// the rest of it is still checked.
fn name(placed: &mut [Placed<'_>], faults: &mut Vec<PolicyFault>) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for (index, rule) in placed.iter_mut().enumerate() {
        let place = format!("{}:{}", rule.file, rule.line);
        let id = rule.policy.annotation("id").unwrap_or_default().to_owned();
        let wrong = wrong_id(&id, rule.file).or_else(|| {
            let first = seen.get(&id)?;
            Some(format!("`@id(\"{id}\")` is taken by the rule at {first}"))
        });
        let named = match wrong {
            None => {
                seen.insert(id.clone(), place);
                id
            }
            Some(message) => {
                faults.push(rule.fault(message));
                format!("{place}#{index}")
            }
        };
        rule.policy = rule.policy.new_id(PolicyId::new(named));
    }
}

fn wrong_id(id: &str, file: &str) -> Option<String> {
    if id.is_empty() {
        return Some("the rule has no `@id(\"…\")`".to_owned());
    }
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "/._-".contains(c);
    if id.len() > RULE_ID_LEN_MAX || !id.chars().all(legal) {
        return Some(format!(
            "`@id(\"{}\")` is not up to {RULE_ID_LEN_MAX} of a-z, 0-9, `/`, `.`, `_` and `-`",
            id.escape_debug()
        ));
    }
    let reserved = id.starts_with(BASE_PREFIX) && file != BASE_FILE;
    if reserved || [DEFAULT_DENY, EVALUATION_ERROR].contains(&id) {
        return Some(format!("`@id(\"{id}\")` is Dayfly's own"));
    }
    None
}

/// A rule on a role that does not exist guards nothing, or opens nothing, without anyone
/// noticing.
fn references(rule: &Placed<'_>, roles: &[RoleFacts], faults: &mut Vec<PolicyFault>) {
    let literals: BTreeSet<(String, String)> = rule
        .policy
        .entity_literals()
        .iter()
        .map(|uid| (uid.type_name().to_string(), uid.id().unescaped().to_owned()))
        .collect();
    for (kind, name) in literals {
        let (what, known): (&str, BTreeSet<&str>) = match kind.as_str() {
            "Dayfly::Role" => ("role", roles.iter().map(|it| it.name.as_str()).collect()),
            "Dayfly::Backend" => {
                ("backend with a role", roles.iter().map(|it| it.backend.as_str()).collect())
            }
            _ => continue,
        };
        if known.contains(name.as_str()) {
            continue;
        }
        let hint = hint(&known, &name);
        faults.push(rule.fault(format!("no {what} is named `{}`{hint}", name.escape_debug())));
    }
}

/// The name that was probably meant, as the end of a sentence; nothing if none is near.
pub(super) fn hint(known: &BTreeSet<&str>, name: &str) -> String {
    let alike = |known: &str| strsim::jaro_winkler(known, name);
    let near = known.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
    let near = near.filter(|near| alike(near) > 0.8);
    near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default()
}

/// Strictly, and warnings count: a rule that can never apply is a mistake, and one with
/// hidden or mixed-up characters is a trick.
fn validate(placed: &[Placed<'_>], vocabulary: &Vocabulary, faults: &mut Vec<PolicyFault>) {
    let rules: BTreeMap<&PolicyId, &Placed<'_>> =
        placed.iter().map(|rule| (rule.policy.id(), rule)).collect();
    let set = match PolicySet::from_policies(placed.iter().map(|rule| rule.policy.clone())) {
        Ok(set) => set,
        Err(error) => {
            faults.push(PolicyFault::new(BASE_FILE, None, error.to_string()));
            return;
        }
    };
    let validator = Validator::new(vocabulary.schema().clone());
    let result = validator.validate(&set, ValidationMode::Strict);
    let errors = result.validation_errors().map(|it| (it.policy_id(), DetailedError::from(it)));
    let warnings = result.validation_warnings().map(|it| (it.policy_id(), DetailedError::from(it)));
    for (id, detail) in errors.chain(warnings) {
        faults.push(match rules.get(id) {
            Some(rule) => located(rule.file, rule.text, Some(rule.line), &detail),
            None => PolicyFault::new(BASE_FILE, None, detail.message),
        });
    }
}

/// A fault at the place that Cedar points to, or else at `otherwise`.
fn located(
    file: &str,
    text: &str,
    otherwise: Option<usize>,
    detail: &DetailedError,
) -> PolicyFault {
    let at = detail.source_locations.first().map(|label| line(text, label.loc.start));
    let help = detail.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
    PolicyFault::new(file, at.or(otherwise), format!("{}{help}", detail.message))
}

fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().iter().take(at);
    before.filter(|byte| **byte == b'\n').count().saturating_add(1)
}

fn hash(files: &[&(String, String)]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(SCHEMA.as_bytes());
    for (file, text) in files.iter().copied() {
        // By its name alone: replicas may keep the same files in different places.
        let file = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        for part in [file.as_ref(), text] {
            // With the length before it, no text can pass for the end of one file and the
            // beginning of the next.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
    }
    HEXLOWER.encode(context.finish().as_ref())
}
