//! AWS's own clock, as its answers tell it.
//!
//! Invariant: it is never ahead of AWS's: it stands still between answers. What is past by it
//! is past, whatever this machine's clock says.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use aws_sdk_sts::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::BeforeDeserializationInterceptorContextRef,
    },
    error::BoxError,
    primitives::{DateTime, DateTimeFormat},
};

/// Read from the `Date` of each answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    /// Seconds since 1970 at the latest answer, and 0 before there was one.
    pub(crate) fn seconds(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    fn saw(&self, date: &str) {
        if let Ok(date) = DateTime::from_str(date, DateTimeFormat::HttpDate) {
            // Answers overtake each other.
            self.0.fetch_max(date.secs(), Ordering::Relaxed);
        }
    }
}

impl Intercept for Clock {
    fn name(&self) -> &'static str {
        "dayfly-clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            self.saw(date);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_go_back() {
        let clock = Clock::default();
        clock.saw("yesterday");
        assert_eq!(clock.seconds(), 0);
        clock.saw("Sun, 22 Nov 2026 06:00:01 GMT");
        clock.saw("Sun, 22 Nov 2026 06:00:00 GMT");
        assert_eq!(clock.seconds(), 1_795_327_201);
    }
}
