use std::collections::BTreeMap;

use dayfly_api::Credential;

use super::*;

const TASK_ENDS: &str = "2026-01-01T06:00:00Z";

fn lease(expires_at: &str, renewable: bool) -> Lease {
    Lease {
        on_behalf_of: None,
        id: "lse_1".into(),
        task: "tsk_1".into(),
        principal: "ci:repo".into(),
        role: "r".into(),
        backend: "main".into(),
        handle: "df_x".into(),
        state: "active".into(),
        cause: None,
        credential: Some(Credential { fields: BTreeMap::new(), environment: BTreeMap::new() }),
        issued_at: "2026-01-01T00:00:00Z".into(),
        expires_at: expires_at.into(),
        max_expires_at: TASK_ENDS.into(),
        revoked_at: None,
        renewable,
        belts: Vec::new(),
        exposure_seconds: None,
        residual_until: None,
        attempts: 0,
        last_error: None,
        abandonment: None,
    }
}

/// Made at second 100 of the machine.
fn held(expires_at: &str, renewable: bool) -> Held {
    Held::read(lease(expires_at, renewable), seconds(100), TASK_ENDS).unwrap()
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn renewed(ttl_seconds: i64, truncated: bool) -> Renewed {
    Renewed {
        id: "lse_1".into(),
        ttl_seconds,
        expires_at: "2026-01-01T00:22:00Z".into(),
        max_expires_at: TASK_ENDS.into(),
        truncated,
    }
}

fn renewal() -> Step {
    Step::Renew { lease: "lse_1".into(), asked: seconds(900) }
}

#[test]
fn a_renewable_one_is_renewed_at_half_of_its_life_until_the_last_time() {
    let mut one = held("2026-01-01T00:15:00Z", true);
    assert_eq!(one.next(false), (seconds(550), renewal()));
    one.renewed(&renewed(900, false), seconds(560), TASK_ENDS);
    assert_eq!(one.next(false), (seconds(1010), renewal()));
    assert_eq!(one.handed.expires_at, "2026-01-01T00:22:00Z");
    assert!(one.is_fresh(seconds(1234)), "it is about to be renewed");
    assert!(!one.is_fresh(seconds(1236)), "that does not work");
    // Its maximum is near: another one is needed while this one still lives.
    one.renewed(&renewed(400, true), seconds(1010), TASK_ENDS);
    assert_eq!(one.next(true), (seconds(1210), Step::Replace));
}

#[test]
fn one_that_cannot_be_renewed_is_replaced_before_its_end_where_it_is_wanted() {
    let mut hour = held("2026-01-01T01:00:00Z", false);
    assert_eq!(hour.next(true), (seconds(3100), Step::Replace), "ten minutes before");
    assert_eq!(hour.next(false), (seconds(3700), Step::Lapse), "nobody has it");
    hour.give(Use::Told);
    assert_eq!(hour.next(false), (seconds(3100), Step::Replace));
    assert!(hour.is_fresh(seconds(3099)) && !hour.is_fresh(seconds(3100)));
    assert!(hour.is_alive(seconds(3699)) && !hour.is_alive(seconds(3700)));
    let quarter = held("2026-01-01T00:15:00Z", false);
    assert_eq!(quarter.next(true), (seconds(550), Step::Replace), "half of a short life");
}

#[test]
fn one_that_lasts_as_long_as_the_task_is_not_replaced() {
    let mut one = held("2026-01-01T05:59:59.5Z", false);
    one.give(Use::Told);
    let end = seconds(100 + 6 * 3600 - 1) + Duration::from_millis(500);
    assert_eq!(one.next(true), (end, Step::Lapse));
    assert!(one.is_fresh(seconds(100 + 6 * 3600 - 2)), "there is no better one");
    assert!(!one.is_fresh(end));
}

#[test]
fn lives_of_seconds_do_not_make_a_loop_of_mints() {
    let mut one = held("2026-01-01T00:00:01Z", false);
    one.give(Use::Told);
    assert_eq!(one.next(true), (seconds(101), Step::Lapse));
    let none = held("2026-01-01T00:00:00Z", true);
    assert_eq!(none.next(true), (seconds(100), Step::Lapse));
}

#[test]
fn a_failure_puts_the_next_attempt_off_and_a_refusal_ends_them() {
    let mut one = held("2026-01-01T00:15:00Z", true);
    one.not_renewed(Some(seconds(700)));
    assert_eq!(one.next(true), (seconds(700), renewal()));
    one.not_renewed(Some(seconds(1000)));
    assert_eq!(one.next(true), (seconds(1000), Step::Lapse), "too late for anything");
    let mut one = held("2026-01-01T00:15:00Z", true);
    one.not_renewed(None);
    assert_eq!(one.next(true), (seconds(550), Step::Replace));
    one.not_replaced(seconds(800));
    assert_eq!(one.next(true), (seconds(800), Step::Replace));
}

#[test]
fn a_replaced_one_is_left_to_who_was_told_its_end() {
    let (now, overlap) = (seconds(600), seconds(60));
    let mut one = held("2026-01-01T00:15:00Z", false);
    assert_eq!(one.retire(now, overlap), Some(now), "nobody has it");
    one.give(Use::Untold);
    assert_eq!(one.retire(now, overlap), Some(seconds(660)));
    assert_eq!(one.retire(now, seconds(900)), None, "it ends before");
    one.give(Use::Told);
    one.give(Use::Untold);
    assert_eq!(one.retire(now, overlap), None);
}

#[test]
fn the_earliest_thing_is_done_first() {
    let one = held("2026-01-01T00:15:00Z", true);
    let retired = [("lse_0".to_owned(), seconds(200)), ("lse_9".to_owned(), seconds(150))];
    let first = Some((seconds(150), Step::Revoke("lse_9".into())));
    assert_eq!(next(Some(&one), &retired, false), first);
    assert_eq!(next(Some(&one), &[], false), Some((seconds(550), renewal())));
    assert_eq!(next(None, &[], true), None);
}

#[test]
fn what_has_no_credential_or_no_times_is_not_held() {
    let none = Lease { credential: None, ..lease("2026-01-01T00:15:00Z", true) };
    assert!(Held::read(none, seconds(1), TASK_ENDS).is_none());
    assert!(Held::read(lease("soon", true), seconds(1), TASK_ENDS).is_none());
    assert!(Held::read(lease("2025-01-01T00:15:00Z", true), seconds(1), TASK_ENDS).is_none());
}
