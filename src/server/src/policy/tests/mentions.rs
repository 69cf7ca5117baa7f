//! What rules mention, and that each question fits the schema before anything is left out.

use cedar_policy::{Entities, EvalResult, PolicySet, Request};
use dayfly_lease::Binding;

use super::*;
use crate::policy::{
    mentions::Mentions,
    request::{Beside, Parts},
};

fn mentions(rules: &str) -> Mentions {
    let set: PolicySet = rules.parse().unwrap();
    let mut mentions = Mentions::default();
    for policy in set.policies() {
        mentions.add(policy).unwrap();
    }
    mentions
}

fn named(condition: &str) -> [Option<Vec<String>>; 6] {
    let text = format!("@id(\"t\") permit(principal, action, resource) when {{ {condition} }};");
    let mentions = mentions(&text);
    mentions.named().map(|names| names.map(|names| names.into_iter().map(Into::into).collect()))
}

fn these(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn what_a_rule_reads_is_mentioned() {
    let none = || these(&[]);
    for (condition, attributes, tags, claims) in [
        ("true", none(), none(), none()),
        ("principal.subject == \"context\"", these(&["subject"]), none(), none()),
        ("context.token_binding == \"key\"", these(&["token_binding"]), none(), none()),
        ("context has own_task", these(&["own_task"]), none(), none()),
        ("context has own_task.x", these(&["own_task", "x"]), none(), none()),
        ("principal.hasTag(\"a\") || resource.hasTag(\"b\")", none(), these(&["a", "b"]), none()),
        (
            "if principal.getTag(\"a\") like \"b*\" then context.now.toTime() == duration(\"1h\") else false",
            these(&["now"]),
            these(&["a"]),
            none(),
        ),
        (
            "principal in [Dayfly::Claim::\"groups=a\", Dayfly::Issuer::\"groups=b\"]",
            none(),
            none(),
            these(&["groups=a"]),
        ),
        ("[{x: principal.id}].contains({x: \"1\"})", these(&["id"]), none(), none()),
        ("{x: context.purpose}.x == \"1\"", these(&["purpose", "x"]), none(), none()),
        (
            "context has on_behalf_of && context.on_behalf_of in Dayfly::Claim::\"groups=a\"",
            these(&["on_behalf_of"]),
            none(),
            these(&["groups=a"]),
        ),
        (
            "context.actor.hasTag(\"a\") && context.on_behalf_of.subject == \"1\"",
            these(&["actor", "on_behalf_of", "subject"]),
            these(&["a"]),
            none(),
        ),
    ] {
        let [seen_attributes, seen_tags, seen_claims, ..] = named(condition);
        let seen = [seen_attributes, seen_tags, seen_claims];
        assert_eq!(seen, [attributes, tags, claims].map(Some), "{condition}");
    }
}

#[test]
fn what_a_rule_asks_membership_in_is_mentioned() {
    let text = "@id(\"a\") permit(principal in Dayfly::Issuer::\"ci\", action, resource)
        when { resource in [Dayfly::Backend::\"pg\", Dayfly::Role::\"r\"] };
        @id(\"b\") permit(principal is Dayfly::Workload in Dayfly::Issuer::\"other\", action,
        resource in Dayfly::Backend::\"db\");";
    let mentions = mentions(text);
    let [.., issuers, backends, roles] = mentions.named();
    assert_eq!(issuers, Some(vec!["ci", "other"]));
    assert_eq!((backends, roles), (Some(vec!["db", "pg"]), Some(vec!["r"])));
}

#[test]
fn a_rule_that_does_not_tell_what_it_reads_mentions_everything() {
    for condition in
        ["context == {purpose: \"p\"}", "[context].contains({})", "{c: context}.c.now > 1"]
    {
        let [attributes, ..] = named(condition);
        assert_eq!(attributes, None, "{condition}");
    }
    let [_, tags, ..] = named("principal.hasTag(context.purpose)");
    assert_eq!(tags, None);
    let [_, tags, ..] = named("principal.getTag(if true then \"a\" else \"b\") == \"c\"");
    assert_eq!(tags, None);
}

#[test]
fn a_claim_in_a_scope_is_mentioned() {
    let text =
        "permit(principal is Dayfly::Human in Dayfly::Claim::\"groups=a\", action, resource);
        permit(principal in Dayfly::Claim::\"groups=b\", action, resource);";
    let mentions = mentions(text);
    assert_eq!(mentions.named()[2], Some(vec!["groups=a", "groups=b"]));
    assert!(!mentions.claim("groups=c"));
}

#[test]
fn what_nobody_mentions_is_left_out() {
    let rules = minting_when("principal.hasTag(\"a\") && principal.getTag(\"a\") == \"1\"");
    let who = job(&[("a", "1"), ("b", "2")]);
    let facts = role("reader", "orders");
    let mentions = rules.slices.mentions(&mint(&facts));
    let asker = Asker { vocabulary: rules.vocabulary, mentions };
    let Parts { caller, resource, context, .. } =
        asker.parts(&who, &mint(&facts), &at_noon(), None).unwrap();
    assert!(context.get("token_binding").is_none() && context.get("now").is_none());
    assert!(caller.tag("a").is_some() && caller.tag("b").is_none());
    assert!(caller.attr("subject").is_none() && resource.attr("owner").is_none());
}

#[test]
fn what_a_token_is_bound_to_is_said_to_rules_that_mention_it() {
    let rules = minting_when("context.token_binding != \"certificate\"");
    let facts = role("reader", "orders");
    let mentions = rules.slices.mentions(&mint(&facts));
    let asker = Asker { vocabulary: rules.vocabulary, mentions };
    for (binding, said) in [
        (None, "none"),
        (Some(Binding::Key([1; 32])), "key"),
        (Some(Binding::Certificate([1; 32])), "certificate"),
    ] {
        let circumstances = Circumstances { binding, ..at_noon() };
        let Parts { context, .. } =
            asker.parts(&job(&[]), &mint(&facts), &circumstances, None).unwrap();
        assert_eq!(context.get("token_binding"), Some(EvalResult::String(said.to_owned())));
        assert!(context.get("now").is_none(), "which nobody mentions");
    }
}

#[test]
fn who_stands_beside_is_shown_to_rules_that_ask_for_them() {
    let who = job(&[("a", "1"), ("b", "2")]);
    let ada = member(&["on-call", "everyone"]);
    let facts = role("reader", "orders");
    let text = r#"@id("t") permit(principal is Dayfly::Human, action == Dayfly::Action::"mint", resource)
        when { context has actor && context.actor.hasTag("a") };"#;
    let rules = rules(text);
    let mentions = rules.slices.mentions(&mint(&facts));
    let asker = Asker { vocabulary: rules.vocabulary, mentions };
    let beside = Some(Beside::Actor(&who));
    let Parts { beside, context, .. } =
        asker.parts(&ada, &mint(&facts), &at_noon(), beside).unwrap();
    let actor = beside.unwrap();
    assert!(actor.tag("a").is_some() && actor.tag("b").is_none());
    assert_eq!(context.get("actor"), Some(EvalResult::EntityUid(actor.uid())));
    let mentions = Mentions::default();
    let asker = Asker { vocabulary: rules.vocabulary, mentions: &mentions };
    let beside = Some(Beside::Person(&ada));
    let Parts { beside, context, .. } =
        asker.parts(&who, &mint(&facts), &at_noon(), beside).unwrap();
    assert!(beside.is_none() && context.get("on_behalf_of").is_none());
}

#[test]
fn each_question_fits_the_schema_when_nothing_is_left_out() {
    let vocabulary = Vocabulary::built_in().unwrap();
    let asker = Asker { vocabulary, mentions: &Mentions::everything() };
    let facts = labelled("reader", "orders", &[("environment", "e"), ("risk", "low"), ("x", "y")]);
    let lease = lease("github|repo:a/b", "tsk_1");
    let (task, owner) = ("tsk_1", "github|repo:a/b");
    let asks = [
        Ask::AbandonLease { lease },
        Ask::CompleteTask { task, owner },
        Ask::DisableIdentity,
        Ask::EnableIdentity,
        Ask::HeartbeatTask { task, owner },
        Ask::ListDisabled,
        Ask::ListLeases,
        Ask::ListOwn,
        Ask::ListRoles,
        Ask::ListTasks,
        mint(&facts),
        Ask::OpenTask { purpose: "p", ttl_seconds: 1 },
        Ask::ReadAudit,
        Ask::ReadLease { lease },
        Ask::ReadStanding,
        Ask::ReadTask { task, owner },
        Ask::ReleaseHold,
        Ask::RenewLease { lease, ttl_seconds: 1 },
        Ask::RevokeLease { lease },
        Ask::RotateRoot,
        Ask::Whoami,
    ];
    let asked: std::collections::BTreeSet<_> = asks.iter().map(Ask::action).collect();
    assert_eq!(asked.len(), ask::Action::ALL.len());
    let address = Some([192, 0, 2, 1].into());
    let binding = Some(Binding::Certificate([1; 32]));
    // Others than who asks, since an entity is there once.
    let program = principal(Kind::Workload, "gitlab", "project");
    let person = principal(Kind::Human, "partner", "bob");
    for who in [job(&[("a", "1")]), member(&["a"])] {
        for circumstances in
            [at_noon(), Circumstances { source_address: address, binding, ..with_task(task) }]
        {
            for ask in &asks {
                for beside in besides(ask, &program, &person) {
                    let Parts { caller, action, resource, beside, context, .. } =
                        asker.parts(&who, ask, &circumstances, beside).unwrap();
                    let (by, of) = (caller.uid(), resource.uid());
                    let fits = Some(vocabulary.schema());
                    Request::new(by, action, of, context, fits)
                        .unwrap_or_else(|e| panic!("{ask:?}: {e}"));
                    let entities = [caller, resource].into_iter().chain(beside);
                    Entities::from_entities(entities, fits)
                        .unwrap_or_else(|e| panic!("{ask:?}: {e}"));
                }
            }
        }
    }
}

/// Who may stand beside whoever is asked about.
fn besides<'a>(
    ask: &Ask<'_>,
    program: &'a Principal,
    person: &'a Principal,
) -> Vec<Option<Beside<'a>>> {
    let named = ask.action().names_the_person().then_some(Some(Beside::Person(person)));
    let both = ask.action().takes_both().then_some(Some(Beside::Actor(program)));
    [Some(None), named, both].into_iter().flatten().collect()
}
