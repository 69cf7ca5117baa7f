//! How often an API may be asked.
//!
//! Invariant: when the API asks for less, nobody of the poller asks anything until then, whichever
//! job it was said about; and no answer makes us wait longer than an hour for it.

use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use dayfly_backend_sdk::Timestamp;

use crate::config::HookKind;

/// Whoever says neither for how long nor until when.
const WAIT_DEFAULT: Duration = Duration::from_mins(1);
const WAIT_MIN: Duration = Duration::from_secs(1);
const WAIT_MAX: Duration = Duration::from_hours(1);
/// So many requests of a window are left to others that ask with the same token.
const LEFT_TO_OTHERS: u64 = 5;
/// The longest wait between attempts where the API does not answer.
const GIVEN_UP_MAX: Duration = Duration::from_mins(15);
/// A number from here on is a time, in seconds since 1970; a smaller one says how many of
/// them are left.
const TIMES_FROM: u64 = 1_000_000_000;

/// How many requests are left, and when there are more: of GitHub, of GitLab and of an
/// organization at Buildkite, of a user at Buildkite.
const WINDOWS: [(&str, &str); 3] = [
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
    ("ratelimit-user-remaining", "ratelimit-user-reset"),
];

/// How long an answer asks everybody to wait, if it does. `now` is the wall clock, in whose terms
/// some platforms say when a window ends.
pub(super) fn wait(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
    let window = |(left, end): (&str, &str)| {
        let used_up = number(left)? <= LEFT_TO_OTHERS;
        used_up.then(|| number(end).map_or(WAIT_DEFAULT, |end| until(end, now)))
    };
    let windows = WINDOWS.into_iter().filter_map(window);
    let asked = number("retry-after").map(Duration::from_secs).into_iter().chain(windows).max();
    let unsaid = (status == StatusCode::TOO_MANY_REQUESTS).then_some(WAIT_DEFAULT);
    asked.or(unsaid).map(|wait| wait.clamp(WAIT_MIN, WAIT_MAX))
}

fn until(end: u64, now: Timestamp) -> Duration {
    if end < TIMES_FROM {
        return Duration::from_secs(end);
    }
    let now = u64::try_from(now.seconds()).unwrap_or(0);
    // A second more, since it began somewhere within it.
    Duration::from_secs(end.saturating_sub(now).saturating_add(1))
}

/// Questions in a row, a platform's own distance apart.
#[derive(Debug)]
pub(super) struct Pace {
    every: Duration,
    /// In running time.
    next: Duration,
}

impl Pace {
    /// Well below what a token of the platform has: 5,000 an hour at GitHub, 2,000 a minute at
    /// GitLab, 50 a minute at Buildkite.
    pub(super) fn of(kind: HookKind) -> Self {
        let every = match kind {
            HookKind::Buildkite => Duration::from_millis(1_500),
            HookKind::Github => Duration::from_secs(1),
            HookKind::Gitlab => Duration::from_millis(200),
        };
        Self { every, next: Duration::ZERO }
    }

    /// How many questions there is time for in `time`; at least one.
    pub(super) fn within(&self, time: Duration) -> usize {
        let many = time.as_millis() / self.every.as_millis().max(1);
        usize::try_from(many).unwrap_or(usize::MAX).max(1)
    }

    /// How long the next question has to wait. Each call is a question.
    pub(super) fn next(&mut self, running: Duration) -> Duration {
        let at = self.next.max(running);
        self.next = at.saturating_add(self.every);
        at.saturating_sub(running)
    }
}

/// When the API may be asked again.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    /// In running time.
    not_before: Duration,
    /// How often in a row it was given up.
    given_up: u32,
}

impl Backoff {
    /// How long nothing may be asked yet.
    pub(super) fn left(&self, running: Duration) -> Duration {
        self.not_before.saturating_sub(running)
    }

    /// The API asks everybody to wait.
    pub(super) fn asked_to_wait(&mut self, wait: Duration, running: Duration) {
        self.not_before = self.not_before.max(running.saturating_add(wait));
    }

    /// It does not answer: each time in a row it is left alone for twice as long.
    pub(super) fn gave_up(&mut self, interval: Duration, running: Duration) {
        let wait = interval.saturating_mul(2_u32.saturating_pow(self.given_up));
        self.given_up = self.given_up.saturating_add(1);
        self.asked_to_wait(wait.min(GIVEN_UP_MAX.max(interval)), running);
    }

    /// It does.
    pub(super) fn answered(&mut self) {
        self.given_up = 0;
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    /// The wall clock of these tests, in seconds since 1970.
    const NOW: i64 = 1_790_000_000;
    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);

    type Headers = &'static [(&'static str, &'static str)];

    fn asked(status: u16, headers: Headers) -> Option<u64> {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        wait(status, &map, Timestamp::from_seconds(NOW)).map(|wait| wait.as_secs())
    }

    #[test]
    fn an_answer_says_how_long_to_wait() {
        let cases: &[(u16, Headers, Option<u64>)] = &[
            (200, &[], None),
            (404, &[], None),
            (403, &[], None),
            (503, &[], None),
            (429, &[], Some(60)),
            (429, &[("retry-after", "7")], Some(7)),
            (429, &[("retry-after", "0")], Some(1)),
            (429, &[("retry-after", "86400")], Some(3_600)),
            (429, &[("retry-after", "-5")], Some(60)),
            (429, &[("retry-after", "Wed, 21 Oct 2026 07:28:00 GMT")], Some(60)),
            (403, &[("retry-after", "30")], Some(30)),
            (503, &[("retry-after", "120")], Some(120)),
            (200, &[("retry-after", "3")], Some(3)),
        ];
        for &(status, headers, seconds) in cases {
            assert_eq!(asked(status, headers), seconds, "{status} {headers:?}");
        }
    }

    #[test]
    fn a_window_that_is_used_up_is_waited_for() {
        let cases: &[(Headers, Option<u64>)] = &[
            // GitHub and GitLab say when, Buildkite how long.
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1790000100")], Some(101)),
            (&[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "1790000100")], Some(101)),
            (&[("x-ratelimit-remaining", "6"), ("x-ratelimit-reset", "1790000100")], None),
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1789999000")], Some(1)),
            (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1800000000")], Some(3_600)),
            (&[("x-ratelimit-remaining", "0")], Some(60)),
            (&[("x-ratelimit-remaining", "none"), ("x-ratelimit-reset", "1790000100")], None),
            (&[("ratelimit-remaining", "1"), ("ratelimit-reset", "1790000009")], Some(10)),
            (&[("ratelimit-remaining", "180"), ("ratelimit-reset", "42")], None),
            (&[("ratelimit-remaining", "0"), ("ratelimit-reset", "42")], Some(42)),
            (&[("ratelimit-user-remaining", "2"), ("ratelimit-user-reset", "42")], Some(42)),
            (
                &[
                    ("ratelimit-remaining", "0"),
                    ("ratelimit-reset", "20"),
                    ("ratelimit-user-remaining", "0"),
                    ("ratelimit-user-reset", "42"),
                    ("retry-after", "30"),
                ],
                Some(42),
            ),
        ];
        for &(headers, seconds) in cases {
            for status in [200, 403, 429] {
                let seconds = seconds.or((status == 429).then_some(60));
                assert_eq!(asked(status, headers), seconds, "{status} {headers:?}");
            }
        }
    }

    #[test]
    fn questions_are_a_distance_apart_also_after_a_pause() {
        let mut pace = Pace::of(HookKind::Github);
        let waits = |pace: &mut Pace, running| [0; 3].map(|_| pace.next(running));
        assert_eq!(waits(&mut pace, MINUTE), [Duration::ZERO, SECOND, SECOND * 2]);
        assert_eq!(pace.next(MINUTE + SECOND), SECOND * 2);
        assert_eq!(waits(&mut pace, MINUTE * 2), [Duration::ZERO, SECOND, SECOND * 2]);
    }

    #[test]
    fn there_is_time_for_so_many_questions() {
        let many = |kind, time| Pace::of(kind).within(time);
        assert_eq!(many(HookKind::Github, MINUTE), 60);
        assert_eq!(many(HookKind::Gitlab, MINUTE), 300);
        assert_eq!(many(HookKind::Buildkite, MINUTE), 40);
        assert_eq!(many(HookKind::Github, SECOND * 10), 10);
        assert_eq!(many(HookKind::Buildkite, SECOND), 1);
    }

    #[test]
    fn what_the_api_asks_for_is_kept_to_and_never_shortened() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.left(MINUTE), Duration::ZERO);
        backoff.asked_to_wait(SECOND * 30, MINUTE);
        backoff.asked_to_wait(SECOND * 5, MINUTE);
        assert_eq!(backoff.left(MINUTE), SECOND * 30);
        backoff.answered();
        assert_eq!(backoff.left(MINUTE + SECOND * 10), SECOND * 20);
        assert_eq!(backoff.left(MINUTE * 2), Duration::ZERO);
    }

    #[test]
    fn an_api_that_does_not_answer_is_left_alone_longer_each_time() {
        let mut backoff = Backoff::default();
        let mut running = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..40 {
            backoff.gave_up(MINUTE, running);
            waits.push(backoff.left(running).as_secs() / 60);
            running += backoff.left(running);
        }
        assert_eq!(waits[..6], [1, 2, 4, 8, 15, 15]);
        assert_eq!(waits.last(), Some(&15));
        backoff.answered();
        backoff.gave_up(MINUTE, running);
        assert_eq!(backoff.left(running), MINUTE);
        let hour = Duration::from_hours(1);
        let mut rarely = Backoff::default();
        rarely.gave_up(hour, Duration::ZERO);
        assert_eq!(rarely.left(Duration::ZERO), hour, "never sooner than it would ask anyway");
    }
}
