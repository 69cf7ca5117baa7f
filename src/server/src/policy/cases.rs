//! Cases kept beside the rules, and running them.
//!
//! Invariant: a case passes only if the answer and the rules that decided are exactly those
//! that it names. No cases at all is a failure, never a success.

mod file;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use self::file::{CaseFile, CaseTable};
use super::{Circumstances, Decision, Party, Policies, PolicyFault, RoleFacts};

/// The directory of the cases, beside the rules.
const CASES: &str = "cases";

/// Why the cases could not be run.
#[derive(Debug, thiserror::Error)]
pub enum CasesError {
    /// Something is wrong in the cases.
    #[error("{} in the cases", faults(.0))]
    Cases(Vec<PolicyFault>),
    /// There are none.
    #[error("no cases in `{}`", .0.display())]
    Empty(PathBuf),
    /// Something is wrong in the rules.
    #[error("{} in the rules", faults(.0))]
    Policies(Vec<PolicyFault>),
}

impl CasesError {
    /// What is wrong, one by one.
    pub fn faults(&self) -> &[PolicyFault] {
        match self {
            Self::Cases(faults) | Self::Policies(faults) => faults,
            Self::Empty(_) => &[],
        }
    }
}

/// An answer and the rules that decided it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Yes or no.
    pub allowed: bool,
    /// The ids of the rules that decided.
    pub rules: BTreeSet<String>,
    /// Who of two is denied, where a workload acts on a person's behalf.
    pub denied: Option<Party>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<&str> = self.rules.iter().map(String::as_str).collect();
        let verdict = if self.allowed { "allow" } else { "deny" };
        match self.denied {
            Some(party) => write!(f, "{verdict} to the {} by {}", party.as_str(), rules.join(", ")),
            None => write!(f, "{verdict} by {}", rules.join(", ")),
        }
    }
}

impl From<&Decision> for Verdict {
    fn from(decision: &Decision) -> Self {
        let rules = decision.rules.iter().map(|rule| rule.id.clone()).collect();
        Self { allowed: decision.allowed, rules, denied: decision.denied }
    }
}

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where the case stands.
    pub file: String,
    /// What it is called.
    pub name: String,
    /// What it says the answer is.
    pub expected: Verdict,
    /// What the answer was.
    pub got: Verdict,
    /// Set when a rule could not be evaluated.
    pub evaluation_error: Option<String>,
}

impl Outcome {
    /// Whether the answer was the expected one.
    pub fn passed(&self) -> bool {
        self.expected == self.got
    }
}

/// What became of all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The rules that were asked.
    pub policy_hash: String,
    /// One for each case, in the order of files and cases.
    pub outcomes: Vec<Outcome>,
    /// Rules of the directory that decided no case.
    pub untested: Vec<String>,
}

impl Report {
    /// Whether all cases passed, and there was one.
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && self.failed().next().is_none()
    }

    /// Those that did not.
    pub fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(|outcome| !outcome.passed())
    }
}

/// Runs the cases in `DIR/cases/*.toml` on the rules in `DIR`. A role that any file of cases
/// describes is known to all of them.
///
/// # Errors
/// When there is something wrong in the rules or in the cases, or there are no cases.
pub fn run(dir: &Path) -> Result<Report, CasesError> {
    let files = read(&dir.join(CASES)).map_err(CasesError::Cases)?;
    let roles = roles(&files).map_err(CasesError::Cases)?;
    if files.iter().all(|(_, file)| file.cases.is_empty()) {
        return Err(CasesError::Empty(dir.join(CASES)));
    }
    let facts: Vec<RoleFacts> = roles.values().map(|(_, facts)| facts.clone()).collect();
    let policies = Policies::load(dir, &facts).map_err(CasesError::Policies)?;
    let roles = roles.into_iter().map(|(name, (_, facts))| (name, facts)).collect();
    let mut outcomes = Vec::new();
    let mut faults = Vec::new();
    for (path, file) in &files {
        for case in &file.cases {
            match outcome(&policies, path, file, case, &roles) {
                Ok(outcome) => outcomes.push(outcome),
                Err(message) => {
                    let message = format!("case `{}`: {message}", case.name);
                    faults.push(PolicyFault::new(path, None, message));
                }
            }
        }
    }
    if !faults.is_empty() {
        return Err(CasesError::Cases(faults));
    }
    let decided: BTreeSet<&String> =
        outcomes.iter().flat_map(|outcome| &outcome.got.rules).collect();
    let untested = policies
        .rule_ids()
        .filter(|id| !id.starts_with("base/"))
        .map(ToOwned::to_owned)
        .filter(|id| !decided.contains(id))
        .collect();
    Ok(Report { policy_hash: policies.hash().to_owned(), outcomes, untested })
}

fn outcome(
    policies: &Policies,
    path: &str,
    file: &CaseFile,
    case: &CaseTable,
    roles: &BTreeMap<String, RoleFacts>,
) -> Result<Outcome, String> {
    let principal = file.principal(case)?;
    let on_behalf_of = file.person(case)?;
    let circumstances = Circumstances { on_behalf_of, ..case.circumstances()? };
    let ask = case.ask(roles)?;
    let answer = policies.authorize(&principal, &ask, &circumstances);
    let decision = answer.as_ref().map_or_else(|denial| &denial.0, |allowed| allowed.decision());
    let expected = case.expected(&ask, &circumstances)?;
    Ok(Outcome {
        file: path.to_owned(),
        name: case.name.clone(),
        expected,
        got: Verdict::from(decision),
        evaluation_error: decision.evaluation_error.clone(),
    })
}

fn read(dir: &Path) -> Result<Vec<(String, CaseFile)>, Vec<PolicyFault>> {
    let fault = |path: &Path, error: &io::Error| {
        PolicyFault::new(&path.display().to_string(), None, format!("cannot be read: {error}"))
    };
    let mut paths: Vec<PathBuf> = match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<_>>()
            .map_err(|error| vec![fault(dir, &error)])?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(vec![fault(dir, &error)]),
    };
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    let mut files = Vec::new();
    let mut faults = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let parsed = fs::read_to_string(&path)
            .map_err(|error| fault(&path, &error))
            .and_then(|text| CaseFile::parse(&name, &text));
        match parsed {
            Ok(file) => files.push((name, file)),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

/// Each role, and the file that describes it.
fn roles(
    files: &[(String, CaseFile)],
) -> Result<BTreeMap<String, (String, RoleFacts)>, Vec<PolicyFault>> {
    let mut roles: BTreeMap<String, (String, RoleFacts)> = BTreeMap::new();
    let mut faults = Vec::new();
    for (path, file) in files {
        for facts in file.role_facts() {
            match roles.get(&facts.name) {
                Some((first, known)) if *known != facts => {
                    let message =
                        format!("role `{}` is described otherwise in {first}", facts.name);
                    faults.push(PolicyFault::new(path, None, message));
                }
                Some(_) => {}
                None => {
                    roles.insert(facts.name.clone(), (path.clone(), facts));
                }
            }
        }
    }
    if faults.is_empty() { Ok(roles) } else { Err(faults) }
}

fn faults(faults: &[PolicyFault]) -> String {
    match faults.len() {
        1 => "one fault".to_owned(),
        count => format!("{count} faults"),
    }
}
