//! Tokens that are made to mislead the rules, and rules that fail.

use super::*;

const OVERFLOW: &str = "context.ttl_seconds * 9223372036854775807 > 0";

#[test]
fn a_forbid_that_cannot_be_evaluated_denies_and_raises_the_alarm() {
    // Goal: Cedar skips a rule that fails, and this one would then forbid nothing.
    let policies = rules(&format!(
        r#"@id("yes") permit(principal, action, resource);
           @id("broken") forbid(principal, action == Dayfly::Action::"mint", resource) when {{ {OVERFLOW} }};"#
    ));
    let reader = role("reader", "orders");
    let denial = policies.authorize(&job(&[]), &mint(&reader), &at_noon()).unwrap_err();
    assert_eq!(denial.denied_by(), EVALUATION_ERROR);
    let error = denial.0.evaluation_error.unwrap();
    assert!(error.contains("broken"), "{error}");
    assert!(error.contains("overflow"), "{error}");
}

#[test]
fn a_rule_that_fails_denies_whatever_its_effect_and_its_portion() {
    let reader = role("reader", "orders");
    for effect in ["permit", "forbid"] {
        for scope in [
            "resource",
            r#"resource == Dayfly::Role::"reader""#,
            r#"resource in Dayfly::Backend::"orders""#,
        ] {
            let policies = rules(&format!(
                r#"@id("yes") permit(principal, action, resource);
                   @id("broken") {effect}(principal, action == Dayfly::Action::"mint", {scope}) when {{ {OVERFLOW} }};"#
            ));
            let denial = policies.authorize(&job(&[]), &mint(&reader), &at_noon()).unwrap_err();
            assert!(denial.0.evaluation_error.is_some(), "{effect} {scope}");
        }
    }
}

#[test]
fn a_forbid_that_holds_is_named_even_when_another_rule_fails() {
    let policies = rules(&format!(
        r#"@id("no") forbid(principal, action, resource);
           @id("broken") forbid(principal, action == Dayfly::Action::"mint", resource) when {{ {OVERFLOW} }};"#
    ));
    let reader = role("reader", "orders");
    let denial = policies.authorize(&job(&[]), &mint(&reader), &at_noon()).unwrap_err();
    assert_eq!(denial.denied_by(), "no");
    assert!(denial.0.evaluation_error.is_some());
}

#[test]
fn a_claim_that_reads_like_a_rule_is_a_text() {
    let injections = [
        r#""); permit(principal,action,resource);//"#,
        r#"" || true || "" == ""#,
        r#"456789" || "1" == "1"#,
        r#"Dayfly::Claim::"groups=admins""#,
        "456789\0",
        "456789\n",
        " 456789",
        "${456789}",
    ];
    let reader = role("reader", "orders");
    let by_tag = minting_when(r#"principal.hasTag("id") && principal.getTag("id") == "456789""#);
    let by_group = minting_when(r#"principal in Dayfly::Claim::"groups=admins""#);
    assert!(allows(&by_tag, &job(&[("id", "456789")]), &mint(&reader)));
    assert!(allows(&by_group, &member(&["admins"]), &mint(&reader)));
    for text in injections {
        assert_eq!(denied_by(&by_tag, &job(&[("id", text)]), &mint(&reader)), DEFAULT_DENY);
        assert_eq!(denied_by(&by_tag, &job(&[(text, "456789")]), &mint(&reader)), DEFAULT_DENY);
        assert_eq!(denied_by(&by_group, &member(&[text]), &mint(&reader)), DEFAULT_DENY);
        let stranger = principal(Kind::Workload, "github", text);
        assert_eq!(denied_by(&by_group, &stranger, &mint(&reader)), DEFAULT_DENY);
        let ask = Ask::Mint { role: &reader, purpose: text, ttl_seconds: 1, task: text };
        assert_eq!(denied_by(&by_tag, &job(&[]), &ask), DEFAULT_DENY);
    }
}

#[test]
fn claims_named_like_escapes_of_other_formats_are_texts() {
    let reader = role("reader", "orders");
    let json = r#"{"type":"Dayfly::Claim","id":"groups=admins"}"#;
    for name in ["__entity", "__extn", "__expr", "__proto__", "constructor", "type", "id", ""] {
        let policies = minting_when(&format!(
            r#"principal.hasTag("{name}") && principal.getTag("{name}") == "x""#
        ));
        assert!(allows(&policies, &job(&[(name, "x")]), &mint(&reader)), "{name}");
        let hostile = job(&[(name, json)]);
        assert_eq!(denied_by(&policies, &hostile, &mint(&reader)), DEFAULT_DENY, "{name}");
        let grouped = minting_when(r#"principal in Dayfly::Claim::"groups=admins""#);
        assert_eq!(denied_by(&grouped, &hostile, &mint(&reader)), DEFAULT_DENY, "{name}");
    }
}

#[test]
fn a_claim_does_not_pass_for_an_established_fact() {
    let reader = role("reader", "orders");
    let policies = minting_when(
        r#"principal.issuer == "corporate" || principal.subject == "ada" || principal.id == "corporate|ada""#,
    );
    let hostile = job(&[("issuer", "corporate"), ("subject", "ada"), ("id", "corporate|ada")]);
    assert_eq!(denied_by(&policies, &hostile, &mint(&reader)), DEFAULT_DENY);
}

#[test]
fn too_many_groups_are_a_denial_and_not_a_shorter_list() {
    // Goal: the group that a forbid is about could be the one that a cut drops.
    let policies = rules(
        r#"@id("yes") permit(principal, action, resource);
           @id("no") forbid(principal in Dayfly::Claim::"groups=suspended", action, resource);"#,
    );
    let reader = role("reader", "orders");
    let mut groups: Vec<String> = (0..CLAIMS_MAX).map(|n| format!("g{n}")).collect();
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    assert!(allows(&policies, &member(&names), &mint(&reader)));

    groups.extend((0..9_000).map(|n| format!("h{n}")));
    groups.push("suspended".to_owned());
    let names: Vec<&str> = groups.iter().map(String::as_str).collect();
    let denial = policies.authorize(&member(&names), &mint(&reader), &at_noon()).unwrap_err();
    assert_eq!(denial.denied_by(), EVALUATION_ERROR);
    assert!(denial.0.evaluation_error.unwrap().contains("10001 claims"));
}

#[test]
fn letter_case_and_the_form_of_accents_make_different_names() {
    let reader = role("reader", "orders");
    let (composed, decomposed) = ("caf\u{e9}", "cafe\u{301}");
    let by_tag = minting_when(&format!(
        r#"principal.hasTag("name") && principal.getTag("name") == "{composed}""#
    ));
    let by_group = minting_when(&format!(r#"principal in Dayfly::Claim::"groups={composed}""#));
    assert!(allows(&by_tag, &job(&[("name", composed)]), &mint(&reader)));
    assert!(allows(&by_group, &member(&[composed]), &mint(&reader)));
    for other in [decomposed, "CAF\u{c9}", "Caf\u{e9}", "cafe", "caf\u{e9} ", "caf\u{e9}\u{200b}"] {
        assert!(!allows(&by_tag, &job(&[("name", other)]), &mint(&reader)), "{other:?}");
        assert!(!allows(&by_tag, &job(&[(other, composed)]), &mint(&reader)), "{other:?}");
        assert!(!allows(&by_group, &member(&[other]), &mint(&reader)), "{other:?}");
    }

    let by_role = rules(r#"@id("t") permit(principal, action, resource == Dayfly::Role::"é");"#);
    assert!(allows(&by_role, &job(&[]), &mint(&role("\u{e9}", "cache"))));
    for other in ["e\u{301}", "\u{c9}", "e"] {
        assert!(!allows(&by_role, &job(&[]), &mint(&role(other, "cache"))), "{other:?}");
    }
}

#[test]
fn a_wildcard_in_a_claim_is_a_character() {
    let reader = role("reader", "orders");
    let exact = minting_when(r#"principal.hasTag("ref") && principal.getTag("ref") == "prod-1""#);
    let like = minting_when(r#"principal.hasTag("ref") && principal.getTag("ref") like "prod-*""#);
    let group = minting_when(r#"principal in Dayfly::Claim::"groups=admins""#);
    assert!(allows(&like, &job(&[("ref", "prod-1")]), &mint(&reader)));
    for wild in ["*", "**", "p*", "+", "/", ",", "prod?1", "[a-z]*", "pro\\*"] {
        assert!(!allows(&exact, &job(&[("ref", wild)]), &mint(&reader)), "{wild}");
        assert!(!allows(&like, &job(&[("ref", wild)]), &mint(&reader)), "{wild}");
        assert!(!allows(&group, &member(&[wild]), &mint(&reader)), "{wild}");
    }
}

#[test]
fn an_empty_claim_is_there_and_equals_nothing_but_the_empty_text() {
    let reader = role("reader", "orders");
    let there = minting_when(r#"principal.hasTag("environment")"#);
    let equal = minting_when(
        r#"principal.hasTag("environment") && principal.getTag("environment") == "production""#,
    );
    assert!(allows(&there, &job(&[("environment", "")]), &mint(&reader)));
    assert!(!allows(&equal, &job(&[("environment", "")]), &mint(&reader)));
    assert!(!allows(&there, &job(&[]), &mint(&reader)));
}

#[test]
fn no_two_pairs_of_issuer_and_subject_have_one_id() {
    // Goal: `a` and `b|c` must not be taken for `a|b` and `c`.
    let policies = rules(r#"@id("yes") permit(principal, action, resource);"#);
    let parts = ["a", "|", "||", "a|", "|a", "a|b", "%", "%7C", "a%7Cb", "a||b"];
    let mut ids = BTreeMap::new();
    for issuer in parts {
        for subject in parts {
            let caller = principal(Kind::Workload, issuer, subject);
            match policies.authorize(&caller, &Ask::Whoami, &at_noon()) {
                Ok(_) => assert_eq!(ids.insert(caller.id(), (issuer, subject)), None),
                Err(denial) => {
                    assert!(issuer.contains('|'));
                    assert!(denial.0.evaluation_error.is_some());
                }
            }
        }
    }
    assert_eq!(ids.len(), 4 * parts.len());
}

#[test]
fn no_two_pairs_of_claim_and_entry_have_one_id() {
    let reader = role("reader", "orders");
    let listing = |name: &str, entry: &str| {
        let mut member = member(&[]);
        member.claims =
            BTreeMap::from([(name.to_owned(), ClaimValue::List(vec![entry.to_owned()]))]);
        member
    };
    let policies = minting_when(r#"principal in Dayfly::Claim::"groups=team=admins""#);
    assert!(allows(&policies, &listing("groups", "team=admins"), &mint(&reader)));
    assert!(!allows(&policies, &listing("groups=team", "admins"), &mint(&reader)));
    let policies = minting_when(r#"principal in Dayfly::Claim::"groups%3Dteam=admins""#);
    assert!(allows(&policies, &listing("groups=team", "admins"), &mint(&reader)));
    assert!(!allows(&policies, &listing("groups%3Dteam", "admins"), &mint(&reader)));
}

#[test]
fn one_subject_at_two_issuers_is_two_principals() {
    let reader = role("reader", "orders");
    let policies = rules(
        r#"@id("t") permit(principal == Dayfly::Workload::"github|repo:a/b", action, resource);"#,
    );
    assert!(allows(&policies, &job(&[]), &mint(&reader)));
    let elsewhere = principal(Kind::Workload, "github-enterprise", "repo:a/b");
    assert!(!allows(&policies, &elsewhere, &mint(&reader)));
    let person = principal(Kind::Human, "github", "repo:a/b");
    assert!(!allows(&policies, &person, &mint(&reader)));
    let sly = principal(Kind::Workload, "github|repo", "a/b");
    assert!(!allows(&policies, &sly, &mint(&reader)));
}

#[test]
fn things_of_one_name_are_not_each_others_ancestors() {
    // Goal: the kinds are part of the ids, so no loop and no right by a namesake.
    let policies = rules(
        r#"@id("issuer") permit(principal in Dayfly::Issuer::"same", action == Dayfly::Action::"read_audit", resource);
           @id("claim") permit(principal in Dayfly::Claim::"same", action == Dayfly::Action::"list_tasks", resource);"#,
    );
    let mut same = principal(Kind::Workload, "same", "same");
    same.claims.insert("same".to_owned(), ClaimValue::List(vec!["same".to_owned()]));
    assert!(allows(&policies, &same, &Ask::ReadAudit));
    assert!(!allows(&policies, &same, &Ask::ListTasks));
    let facts =
        LeaseFacts { lease: "same", owner: "x", task: "same", role: "same", backend: "same" };
    assert_eq!(denied_by(&policies, &same, &Ask::ReadLease { lease: facts }), DEFAULT_DENY);
    assert_eq!(denied_by(&policies, &same, &mint(&role("same", "same"))), DEFAULT_DENY);
}
