//! Which answer, and in whose name.

use dayfly_lease::Binding;

use super::*;

#[test]
fn a_set_without_rules_denies() {
    let policies = rules("");
    let reader = role("reader", "orders");
    let denial = policies.authorize(&job(&[]), &mint(&reader), &at_noon()).unwrap_err();
    assert_eq!(denial.denied_by(), DEFAULT_DENY);
    assert_eq!(denial.reason(), "no rule permits it");
    assert_eq!(denial.0.evaluation_error, None);
    assert!(!denial.0.allowed);
    for ask in [
        Ask::OpenTask { purpose: "p", ttl_seconds: 1 },
        Ask::ListLeases,
        Ask::ListTasks,
        Ask::ListRoles,
        Ask::ReadAudit,
        Ask::ReadStanding,
    ] {
        assert_eq!(denied_by(&policies, &job(&[]), &ask), DEFAULT_DENY, "{ask:?}");
    }
}

#[test]
fn a_permit_tells_what_was_permitted_and_by_which_rule() {
    let policies = rules(
        r#"@id("a/one") @reason("because") permit(principal, action, resource == Dayfly::Role::"reader");
           @id("a/two") permit(principal, action, resource in Dayfly::Backend::"orders");"#,
    );
    let reader = role("reader", "orders");
    let permit = policies.permit_mint(&job(&[]), &reader, "p", 60, "tsk_1", &at_noon()).unwrap();
    assert_eq!(permit.role(), "reader");
    assert_eq!(permit.principal_id(), "github|repo:a/b");
    assert_eq!(permit.task(), "tsk_1");
    assert_eq!(permit.ttl_seconds(), 60);
    let decision = permit.decision();
    assert!(decision.allowed);
    assert_eq!(decision.policy_hash, policies.hash());
    let ids: Vec<_> = decision.rules.iter().map(|rule| rule.id.as_str()).collect();
    assert_eq!(ids, ["a/one", "a/two"]);
    assert_eq!(decision.rules[0].reason.as_deref(), Some("because"));

    let other = role("writer", "cache");
    let denial = policies.permit_mint(&job(&[]), &other, "p", 60, "tsk_1", &at_noon()).unwrap_err();
    assert_eq!(denial.denied_by(), DEFAULT_DENY);
}

#[test]
fn a_forbid_wins_over_permits_wherever_they_are_pinned() {
    let scopes = [
        "resource",
        r#"resource == Dayfly::Role::"reader""#,
        r#"resource in Dayfly::Backend::"orders""#,
    ];
    let reader = role("reader", "orders");
    for permit in scopes {
        for forbid in scopes {
            let policies = rules(&format!(
                r#"@id("yes") permit(principal, action, {permit});
                   @id("no") @reason("not this one") forbid(principal, action, {forbid});"#
            ));
            let denial = policies.authorize(&job(&[]), &mint(&reader), &at_noon()).unwrap_err();
            assert_eq!(denial.denied_by(), "no", "{permit} {forbid}");
            assert_eq!(denial.reason(), "not this one");
            assert_eq!(denial.0.rules.len(), 1);
        }
    }
}

#[test]
fn a_decision_goes_into_the_audit_log_and_comes_back() {
    let policies = rules("");
    let allowed = policies.authorize(&job(&[]), &Ask::Whoami, &at_noon()).unwrap();
    let text = serde_json::to_string(allowed.decision()).unwrap();
    assert!(text.contains(r#""id":"base/whoami""#), "{text}");
    assert!(!text.contains("evaluation_error"), "{text}");
    assert_eq!(&serde_json::from_str::<Decision>(&text).unwrap(), allowed.decision());
}

#[test]
fn the_hash_tells_sets_apart_and_directories_not() {
    let text = r#"@id("a") permit(principal, action, resource);"#;
    let load = |file: &str, text: &str| {
        let files = [(file.to_owned(), text.to_owned())];
        Policies::from_texts(&files, &[]).unwrap().hash().to_owned()
    };
    assert_eq!(load("/etc/a/x.cedar", text), load("/srv/b/x.cedar", text));
    assert_ne!(load("x.cedar", text), load("y.cedar", text));
    assert_ne!(load("x.cedar", text), load("x.cedar", &format!("{text} ")));
    assert_ne!(load("x.cedar", text), rules("").hash());
}

#[test]
fn a_tasks_token_reaches_its_own_task_and_leases_alone() {
    let policies = rules("");
    let job = job(&[]);
    let me = job.id();
    let own = lease(&me, "tsk_1");
    let asks = [
        Ask::RenewLease { lease: own, ttl_seconds: 60 },
        Ask::RevokeLease { lease: own },
        Ask::ReadLease { lease: own },
        Ask::CompleteTask { task: "tsk_1", owner: &me },
        Ask::HeartbeatTask { task: "tsk_1", owner: &me },
        Ask::ReadTask { task: "tsk_1", owner: &me },
    ];
    for ask in asks {
        let allowed = policies.authorize(&job, &ask, &with_task("tsk_1")).unwrap();
        assert!(allowed.decision().rules[0].id.starts_with("base/own-"), "{ask:?}");
        // The same principal, but the token of another of its tasks.
        let denial = policies.authorize(&job, &ask, &with_task("tsk_2")).unwrap_err();
        assert!(denial.denied_by().starts_with("base/task-token-"), "{ask:?}");
        // The right task, but somebody else's token.
        let stranger = principal(Kind::Workload, "github", "repo:a/c");
        assert!(policies.authorize(&stranger, &ask, &with_task("tsk_1")).is_err(), "{ask:?}");
    }
}

/// A task's token carries its opener's claims; it must not carry the opener's other rights.
#[test]
fn an_administrators_task_token_is_no_administrators_token() {
    let policies = rules(r#"@id("all") @reason("") permit (principal, action, resource);"#);
    let admin = principal(Kind::Human, "corporate", "ada");
    let others = lease("corporate|bob", "tsk_9");
    let asks = [
        Ask::ListLeases,
        Ask::ListTasks,
        Ask::ListRoles,
        Ask::ReadAudit,
        Ask::ReadStanding,
        Ask::ReadLease { lease: others },
        Ask::RevokeLease { lease: others },
        Ask::RenewLease { lease: others, ttl_seconds: 60 },
        Ask::CompleteTask { task: "tsk_9", owner: "corporate|bob" },
        Ask::HeartbeatTask { task: "tsk_9", owner: "corporate|bob" },
        Ask::ReadTask { task: "tsk_9", owner: "corporate|bob" },
        Ask::OpenTask { purpose: "more", ttl_seconds: 60 },
    ];
    for ask in asks {
        assert!(policies.authorize(&admin, &ask, &at_noon()).is_ok(), "{ask:?}");
        let denial = policies.authorize(&admin, &ask, &with_task("tsk_1")).unwrap_err();
        assert!(denial.denied_by().starts_with("base/task-token-"), "{ask:?}");
    }
}

#[test]
fn without_its_tasks_token_a_workload_looks_and_a_person_may_end() {
    let policies = rules("");
    for (kind, may_end) in [(Kind::Workload, false), (Kind::Human, true)] {
        let owner = principal(kind, "corporate", "ada");
        let me = owner.id();
        let own = lease(&me, "tsk_1");
        assert!(allows(&policies, &owner, &Ask::ReadLease { lease: own }));
        assert!(allows(&policies, &owner, &Ask::ReadTask { task: "tsk_1", owner: &me }));
        assert!(!allows(&policies, &owner, &Ask::RenewLease { lease: own, ttl_seconds: 1 }));
        let beat = Ask::HeartbeatTask { task: "tsk_1", owner: &me };
        assert!(!allows(&policies, &owner, &beat), "the task's token alone speaks for its work");
        assert_eq!(allows(&policies, &owner, &Ask::RevokeLease { lease: own }), may_end);
        let complete = Ask::CompleteTask { task: "tsk_1", owner: &me };
        assert_eq!(allows(&policies, &owner, &complete), may_end);
        let others = lease("corporate|bob", "tsk_1");
        assert!(!allows(&policies, &owner, &Ask::ReadLease { lease: others }));
        assert!(!allows(&policies, &owner, &Ask::RevokeLease { lease: others }));
    }
}

#[test]
fn the_operators_forbid_takes_a_built_in_right_away() {
    let policies = rules(
        r#"@id("frozen") forbid(principal, action == Dayfly::Action::"renew_lease",
                                resource in Dayfly::Backend::"orders");"#,
    );
    let job = job(&[]);
    let me = job.id();
    let own = lease(&me, "tsk_1");
    let renew = Ask::RenewLease { lease: own, ttl_seconds: 60 };
    let denial = policies.authorize(&job, &renew, &with_task("tsk_1")).unwrap_err();
    assert_eq!(denial.denied_by(), "frozen");
    let elsewhere = LeaseFacts { backend: "cache", ..own };
    let renew = Ask::RenewLease { lease: elsewhere, ttl_seconds: 60 };
    assert!(policies.authorize(&job, &renew, &with_task("tsk_1")).is_ok());
}

#[test]
fn a_listing_goes_round_no_forbid() {
    // Goal: listing one's own is no key to everybody's, and the right to list everything
    // still leaves each row to `read_lease`.
    let policies = rules(
        r#"@id("admin") permit(principal in Dayfly::Claim::"groups=admins", action, resource);
           @id("sealed") forbid(principal, action == Dayfly::Action::"read_lease",
                                resource in Dayfly::Role::"reader");"#,
    );
    let nobody = member(&[]);
    assert!(allows(&policies, &nobody, &Ask::ListOwn));
    assert!(!allows(&policies, &nobody, &Ask::ListLeases));
    assert!(!allows(&policies, &nobody, &Ask::ListTasks));
    let admin = member(&["admins"]);
    assert!(allows(&policies, &admin, &Ask::ListLeases));
    let read = Ask::ReadLease { lease: lease("github|x", "tsk_1") };
    assert_eq!(denied_by(&policies, &admin, &read), "sealed");
}

#[test]
fn rules_see_the_role_the_time_the_address_and_the_request() {
    let reader = labelled("reader", "orders", &[("risk", "low"), ("team", "core")]);
    let holds = |condition: &str| allows(&minting_when(condition), &job(&[]), &mint(&reader));
    assert!(holds(r#"resource.name == "reader" && resource.backend == "orders""#));
    assert!(holds(r#"resource.owner == "a-team" && resource has risk"#));
    assert!(holds(r#"resource has risk && resource.risk == "low""#));
    assert!(holds(r#"resource.hasTag("team") && resource.getTag("team") == "core""#));
    assert!(holds(r#"resource.hasTag("risk") && resource.getTag("risk") == "low""#));
    assert!(!holds("resource has environment"));
    assert!(holds(r#"context.now == datetime("2026-01-05T12:00:00Z")"#));
    assert!(holds(r#"context.ttl_seconds == 60 && context.purpose == "a test""#));
    assert!(holds(r#"context.task == "tsk_1" && !(context has own_task)"#));
    assert!(holds(r#"context.token_binding == "none""#));
    assert!(holds(r#"principal.issuer == "github" && principal.subject == "repo:a/b""#));
    assert!(holds(r#"principal.id == "github|repo:a/b" && principal is Dayfly::Workload"#));
    assert!(!holds("context has source_address"));

    let policies = minting_when(
        r#"context has source_address && context.source_address.isInRange(ip("10.0.0.0/8"))"#,
    );
    for (address, inside) in
        [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("11.1.2.3", false), ("::a01:203", false)]
    {
        let circumstances =
            Circumstances { source_address: Some(address.parse().unwrap()), ..at_noon() };
        let answer = policies.authorize(&job(&[]), &mint(&reader), &circumstances);
        assert_eq!(answer.is_ok(), inside, "{address}");
    }
}

#[test]
fn a_caller_is_told_what_rules_hear_besides_them() {
    let reader = role("reader", "orders");
    let circumstances = Circumstances {
        source_address: Some("::ffff:10.1.2.3".parse().unwrap()),
        ..for_person(&member(&["on-call"]))
    };
    let told = Policies::context(&mint(&reader), &circumstances);
    let told: Vec<_> = told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let expected = [
        ("now", "2026-01-05T12:00:00Z"),
        ("on_behalf_of", "corporate|ada"),
        ("purpose", "a test"),
        ("source_address", "10.1.2.3"),
        ("task", "tsk_1"),
        ("token_binding", "none"),
        ("ttl_seconds", "60"),
    ];
    assert_eq!(told, expected);
    // Rules on other things hear nothing of the person.
    let told = Policies::context(&Ask::Whoami, &circumstances);
    assert!(!told.contains_key("on_behalf_of"), "{told:?}");
}

#[test]
fn a_rule_can_ask_what_the_tasks_token_is_bound_to() {
    let reader = role("reader", "orders");
    let policies = minting_when(r#"context.token_binding == "key""#);
    let bindings = [None, Some(Binding::Key([1; 32])), Some(Binding::Certificate([1; 32]))];
    let allowed = bindings.map(|binding| {
        let circumstances = Circumstances { binding, ..at_noon() };
        policies.authorize(&job(&[]), &mint(&reader), &circumstances).is_ok()
    });
    assert_eq!(allowed, [false, true, false]);
}

#[test]
fn every_instant_and_every_number_can_be_put_to_the_rules() {
    let policies = minting_when("context.ttl_seconds < 1");
    let reader = role("reader", "orders");
    for now in [Timestamp::EPOCH, Timestamp::MAX, Timestamp::from_micros(1_999_999)] {
        let circumstances = Circumstances { now, ..at_noon() };
        for (ttl_seconds, allowed) in [(i64::MIN, true), (0, true), (1, false), (i64::MAX, false)] {
            let ask = Ask::Mint { role: &reader, purpose: "", ttl_seconds, task: "" };
            match policies.authorize(&job(&[]), &ask, &circumstances) {
                Ok(_) => assert!(allowed, "{now} {ttl_seconds}"),
                Err(denial) => {
                    assert!(!allowed, "{now} {ttl_seconds}");
                    assert_eq!(denial.denied_by(), DEFAULT_DENY);
                }
            }
        }
    }
}

/// Whatever the operator's rules say, no program gives up on a credential, believes a clock again
/// or trusts somebody again, and no task's token does.
#[test]
fn only_people_in_person_give_up_or_let_go() {
    let policies = rules(r#"@id("all") @reason("") permit (principal, action, resource);"#);
    let (admin, job) = (principal(Kind::Human, "corporate", "ada"), job(&[]));
    let me = admin.id();
    let given_up = Ask::AbandonLease { lease: lease(&me, "tsk_1") };
    for ask in [given_up, Ask::EnableIdentity, Ask::ReleaseHold] {
        assert!(policies.authorize(&admin, &ask, &at_noon()).is_ok(), "{ask:?}");
        for (who, circumstances) in
            [(&admin, with_task("tsk_1")), (&job, at_noon()), (&job, with_task("tsk_1"))]
        {
            let denial = policies.authorize(who, &ask, &circumstances).unwrap_err();
            assert_eq!(denial.denied_by(), "base/only-people-in-person", "{ask:?}");
        }
    }
    // Owning it gives no right to it.
    let none = rules("");
    let own = Ask::AbandonLease { lease: lease(&me, "tsk_1") };
    assert_eq!(denied_by(&none, &admin, &own), DEFAULT_DENY);
}
