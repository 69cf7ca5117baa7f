//! A workload on a person's behalf: both must be permitted, and the answer says who is not.

use super::*;

const OPEN: Ask<'_> = Ask::OpenTask { purpose: "p", ttl_seconds: 1 };

const WORKLOADS: &str = r#"@id("programs") permit(principal is Dayfly::Workload,
    action in [Dayfly::Action::"open_task", Dayfly::Action::"mint"], resource);"#;
const PEOPLE: &str = r#"@id("people") permit(
    principal is Dayfly::Human in Dayfly::Claim::"groups=on-call",
    action in [Dayfly::Action::"open_task", Dayfly::Action::"mint"], resource)
    when { principal in Dayfly::Issuer::"corporate" };"#;

fn both() -> Policies {
    rules(&format!("{WORKLOADS}{PEOPLE}"))
}

fn ada() -> Principal {
    member(&["on-call"])
}

/// The answer: `allow`, or who is denied and by which rule, with the rules in their order.
fn answer(policies: &Policies, who: &Principal, ask: &Ask<'_>, person: &Principal) -> String {
    let names = |decision: &Decision| {
        let ids: Vec<&str> = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
        ids.join(",")
    };
    match policies.authorize(who, ask, &for_person(person)) {
        Ok(allowed) => format!("allow {}", names(allowed.decision())),
        Err(denial) => {
            let denied = denial.0.denied.map_or("somebody", Party::as_str);
            format!("{denied} {}", names(&denial.0))
        }
    }
}

#[test]
fn a_workload_gets_what_both_may_have_and_no_more() {
    let reader = role("reader", "orders");
    for ask in [OPEN, mint(&reader)] {
        for (name, rules, person, expected) in [
            ("both may", both(), ada(), "allow people,programs"),
            ("the person may not", both(), member(&["everyone"]), "person default-deny"),
            ("no person may", rules(WORKLOADS), ada(), "person default-deny"),
            ("the workload may not", rules(PEOPLE), ada(), "workload default-deny"),
            ("neither may", rules(""), ada(), "workload default-deny"),
        ] {
            assert_eq!(answer(&rules, &job(&[]), &ask, &person), expected, "{name}: {ask:?}");
        }
    }
    let policies = both();
    assert!(allows(&policies, &job(&[]), &mint(&reader)), "for itself it needs nobody");
    let elsewhere = principal(Kind::Human, "partner", "ada");
    let elsewhere = Principal { claims: ada().claims, ..elsewhere };
    assert_eq!(answer(&policies, &job(&[]), &OPEN, &elsewhere), "person default-deny");
}

#[test]
fn a_permit_is_the_workloads_and_names_the_rules_of_both() {
    let reader = role("reader", "orders");
    let circumstances = for_person(&ada());
    let permit = both().permit_mint(&job(&[]), &reader, "p", 60, "tsk_1", &circumstances).unwrap();
    assert_eq!(permit.principal_id(), job(&[]).id());
    assert_eq!(permit.decision().rules.len(), 2);
    assert_eq!(permit.decision().denied, None);
    let circumstances = for_person(&member(&[]));
    let denial =
        both().permit_mint(&job(&[]), &reader, "p", 60, "tsk_1", &circumstances).unwrap_err();
    assert_eq!(denial.explanation(), "the person on whose behalf it is asked: no rule permits it");
}

#[test]
fn a_forbid_of_either_is_a_denial() {
    for (who, expected) in [("Workload", "workload no"), ("Human", "person no")] {
        let forbid = format!("@id(\"no\") forbid(principal is Dayfly::{who}, action, resource);");
        let policies = rules(&format!("{WORKLOADS}{PEOPLE}{forbid}"));
        assert_eq!(answer(&policies, &job(&[]), &OPEN, &ada()), expected);
    }
    let policies =
        rules(&format!("{WORKLOADS}{PEOPLE}@id(\"no\") forbid(principal, action, resource);"));
    assert_eq!(answer(&policies, &job(&[]), &OPEN, &ada()), "workload no");
}

#[test]
fn rules_see_each_of_the_two_beside_the_other() {
    let reader = role("reader", "orders");
    let policies = rules(
        r#"@id("programs") permit(principal is Dayfly::Workload, action == Dayfly::Action::"mint",
               resource)
           when { context has on_behalf_of && context.on_behalf_of.issuer == "corporate" &&
               context.on_behalf_of in Dayfly::Claim::"groups=on-call" && !(context has actor) };
           @id("people") permit(principal is Dayfly::Human, action == Dayfly::Action::"mint",
               resource)
           when { context has actor && context.actor in Dayfly::Issuer::"github" &&
               context.actor.hasTag("repository_id") &&
               context.actor.getTag("repository_id") == "1" && !(context has on_behalf_of) };"#,
    );
    let (one, two) = (job(&[("repository_id", "1")]), job(&[("repository_id", "2")]));
    assert_eq!(answer(&policies, &one, &mint(&reader), &ada()), "allow people,programs");
    assert_eq!(answer(&policies, &two, &mint(&reader), &ada()), "person default-deny");
    let other = member(&["everyone"]);
    assert_eq!(answer(&policies, &one, &mint(&reader), &other), "workload default-deny");
    assert!(!allows(&policies, &one, &mint(&reader)), "not for itself");
    assert!(!allows(&policies, &ada(), &mint(&reader)), "nor she without it");
}

#[test]
fn a_rule_that_cannot_be_evaluated_for_either_denies_and_raises_the_alarm() {
    // Adding one to the largest number cannot be done.
    let faulty = |who: &str| {
        format!(
            "@id(\"faulty\") forbid(principal is Dayfly::{who}, \
             action == Dayfly::Action::\"open_task\", resource) \
             when {{ context.ttl_seconds + 9223372036854775807 > 0 }};"
        )
    };
    for (who, expected) in
        [("Workload", "workload evaluation-error"), ("Human", "person evaluation-error")]
    {
        let policies = rules(&format!("{WORKLOADS}{PEOPLE}{}", faulty(who)));
        assert_eq!(answer(&policies, &job(&[]), &OPEN, &ada()), expected);
    }
    // A decision about the other one goes before it, and the alarm is raised all the same.
    let policies = rules(&format!("{WORKLOADS}{}", faulty("Workload")));
    assert_eq!(answer(&policies, &job(&[]), &OPEN, &ada()), "person default-deny");
    let denial = policies.authorize(&job(&[]), &OPEN, &for_person(&ada())).unwrap_err();
    assert!(denial.0.evaluation_error.is_some(), "{denial:?}");
}

#[test]
fn two_people_are_not_one_caller() {
    let bob = principal(Kind::Human, "corporate", "bob");
    let bob = Principal { claims: ada().claims, ..bob };
    let denied = "workload base/programs-act-for-people";
    assert_eq!(answer(&both(), &bob, &OPEN, &ada()), denied);
    assert_eq!(answer(&both(), &ada(), &OPEN, &ada()), denied, "nor is one of them two");
}

#[test]
fn what_the_task_may_by_itself_takes_no_person() {
    let policies = rules(
        r#"@id("no") forbid(principal is Dayfly::Human, action, resource);
           @id("no-lengthening") forbid(principal, action == Dayfly::Action::"renew_lease",
               resource)
           when { context has on_behalf_of && context.on_behalf_of.subject == "bob" };"#,
    );
    let me = job(&[]);
    let (id, task) = (me.id(), "tsk_1");
    let own = lease(&id, task);
    let on_behalf = |person: &Principal| Circumstances {
        on_behalf_of: Some(person.clone()),
        ..with_task(task)
    };
    let renew = Ask::RenewLease { lease: own, ttl_seconds: 60 };
    for ask in [renew, Ask::ReadLease { lease: own }, Ask::CompleteTask { task, owner: &id }] {
        let allowed = policies.authorize(&me, &ask, &on_behalf(&ada())).unwrap();
        assert!(allowed.decision().rules[0].id.starts_with("base/own-"), "{ask:?}");
    }
    let bob = principal(Kind::Human, "corporate", "bob");
    let denial = policies.authorize(&me, &renew, &on_behalf(&bob)).unwrap_err();
    assert_eq!((denial.denied_by(), denial.0.denied), ("no-lengthening", None));
    assert!(
        policies.authorize(&me, &Ask::CompleteTask { task, owner: &id }, &on_behalf(&bob)).is_ok()
    );
}
