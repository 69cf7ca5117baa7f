//! What is known of each platform, as tables for people.

use super::{Freshness, Preset};
use crate::identity::{Algorithm, Platform};

const PLATFORMS: &str = "\
| preset | `iss` | a token is made | lives at most | signed with | always has | ids | names the work |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

const TRAPS: &str = "\
| preset | trap | its tokens | what it is |
| --- | --- | --- | --- |
";

const SECONDS_PER_HOUR: u64 = 3_600;

/// In Markdown: the platforms, then their traps.
pub fn table() -> String {
    let presets = Platform::ALL.map(Platform::preset);
    let platforms: Vec<_> = presets.iter().map(|preset| platform(preset)).collect();
    let traps: Vec<_> = presets.iter().map(|preset| traps(preset)).collect();
    format!("{PLATFORMS}{}\n{TRAPS}{}", platforms.concat(), traps.concat())
}

fn platform(preset: &Preset) -> String {
    let issuers: Vec<_> = preset.issuers.iter().map(|shape| code(shape.pattern)).collect();
    let algorithms: Vec<_> = preset.algorithms.iter().copied().map(Algorithm::as_str).collect();
    let required: Vec<_> = preset.claims.iter().filter(|claim| claim.required).collect();
    let required: Vec<_> = required.iter().map(|claim| code(claim.name)).collect();
    let named = preset.jobs.iter().map(|job| format!("{}: {}", job.unit, codes(job.claims)));
    let jobs: Vec<_> = named.collect();
    format!(
        "| {} | {} | {} | {} h | {} | {} | {} | {} |\n",
        code(preset.name),
        issuers.join(" "),
        made(preset.freshness),
        preset.life_max.as_secs() / SECONDS_PER_HOUR,
        algorithms.join(" "),
        required.join(" "),
        or_nothing(codes(preset.ids)),
        or_nothing(jobs.join("; ")),
    )
}

fn traps(preset: &Preset) -> String {
    let lines = preset.traps.iter().map(|trap| {
        let fate = if trap.rule.is_some() { "refused" } else { "not told apart" };
        format!("| {} | {} | {fate} | {} |\n", code(preset.name), code(trap.name), trap.text)
    });
    lines.collect::<Vec<_>>().concat()
}

fn made(freshness: Freshness) -> &'static str {
    match freshness {
        Freshness::Kept => "before the last one ends",
        Freshness::PerJob => "for each job",
        Freshness::PerPhase => "for each phase",
        Freshness::PerRequest => "for each request",
        Freshness::PerSecond => "for each request, one a second",
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn codes(texts: &[&str]) -> String {
    texts.iter().map(|text| code(text)).collect::<Vec<_>>().join(" ")
}

fn or_nothing(text: String) -> String {
    if text.is_empty() { "nothing".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_document_has_what_the_presets_say() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/identities.md");
        let document = std::fs::read_to_string(path).unwrap();
        for part in table().split("\n\n") {
            let part = part.trim_end();
            assert!(document.contains(part), "docs/identities.md must have this table:\n{part}");
        }
    }
}
