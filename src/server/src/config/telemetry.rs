//! `[telemetry]`: what is logged, and how.

use tracing_subscriber::EnvFilter;

use super::{
    section::{Reading, Section, one_of, text},
    tree::Item,
};

/// `[telemetry]`.
#[derive(Clone, Debug)]
pub struct TelemetryConfig {
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written, in the syntax of `tracing`'s filters.
    pub log_filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person.
    Text,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_format: LogFormat::Text,
            log_filter: "info,tokio_cron_scheduler=warn".to_owned(),
        }
    }
}

pub(super) fn read(section: &Section<'_>) -> TelemetryConfig {
    let formats = [("json", LogFormat::Json), ("text", LogFormat::Text)];
    let default = TelemetryConfig::default();
    TelemetryConfig {
        log_format: section.optional("log_format", one_of(&formats)).unwrap_or(default.log_format),
        log_filter: section.optional("log_filter", filter).unwrap_or(default.log_filter),
    }
}

fn filter(item: &Item) -> Reading<String> {
    let filter = text(item)?;
    match EnvFilter::try_new(&filter) {
        Ok(_) => Ok(filter),
        Err(error) => Err(format!("not a filter: {error}").into()),
    }
}
