//! Slicing: small portions, the same answers.

use super::*;
use cedar_policy::Policy;

/// A small generator, so that a failing corpus can be named by its seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

const ROLES: [(&str, &str); 5] =
    [("r0", "b0"), ("r1", "b0"), ("r2", "b1"), ("r3", "b1"), ("b0", "r0")];

fn corpus(dice: &mut Dice) -> String {
    let scopes = [
        "principal",
        "principal is Dayfly::Workload",
        "principal is Dayfly::Human",
        r#"principal in Dayfly::Issuer::"github""#,
        r#"principal in Dayfly::Claim::"groups=a""#,
    ];
    let actions = [
        "action",
        r#"action == Dayfly::Action::"mint""#,
        r#"action in [Dayfly::Action::"mint", Dayfly::Action::"read_lease"]"#,
        r#"action in [Dayfly::Action::"renew_lease", Dayfly::Action::"mint", Dayfly::Action::"revoke_lease"]"#,
    ];
    let resources = [
        "resource",
        "resource",
        "resource",
        "resource",
        r#"resource == Dayfly::Role::"r0""#,
        r#"resource == Dayfly::Role::"b0""#,
        r#"resource in Dayfly::Role::"r0""#,
        r#"resource in Dayfly::Role::"r1""#,
        r#"resource in Dayfly::Role::"r3""#,
        r#"resource in Dayfly::Backend::"b0""#,
        r#"resource in Dayfly::Backend::"b1""#,
        r#"resource in Dayfly::Backend::"r0""#,
        r#"resource is Dayfly::Role in Dayfly::Backend::"b0""#,
    ];
    let conditions = [
        "",
        "",
        r#"when { principal.hasTag("x") && principal.getTag("x") == "1" }"#,
        r#"unless { principal.hasTag("x") }"#,
        r#"when { principal.hasTag("x") && principal.getTag("x") == "2" && principal.subject like "*" }"#,
        r#"when { principal.hasTag("y") && (principal.getTag("y") == "1" && principal.hasTag("y")) }"#,
        r#"when { principal.hasTag("x") && principal.getTag("x") == "1" } unless { principal.hasTag("y") }"#,
        r#"unless { principal.hasTag("x") && principal.getTag("x") == "1" }"#,
        r#"when { principal.hasTag("x") || principal.hasTag("y") && principal.getTag("y") == "1" }"#,
        r#"when { context.now.toTime().toSeconds() * 9223372036854775807 > 0 } when { principal.hasTag("x") && principal.getTag("x") == "1" }"#,
        "when { principal.hasTag(principal.issuer) }",
        r#"when { principal in [Dayfly::Claim::"groups=a", Dayfly::Claim::"groups=b"] }"#,
        r#"when { context has own_task && context.own_task == "tsk_1" }"#,
        r#"when { principal.subject like "*a" }"#,
        r#"when { principal.subject like "a*" && context.now.toTime().toSeconds() * 9223372036854775807 > 0 }"#,
    ];
    // Of a role; on one of which nothing else is known they must say the same.
    let of_roles = [
        r#"when { resource has environment && resource.environment == "test" }"#,
        "unless { resource has risk }",
        r#"when { resource.hasTag("team") && resource.getTag("team") == "a" }"#,
        r#"when { resource.name == "r0" || resource.backend == "b1" }"#,
        r#"when { resource in Dayfly::Backend::"b0" || resource == Dayfly::Role::"r3" }"#,
    ];
    let count = 1 + dice.roll(12);
    let rule = |index: usize| {
        let effect = if dice.roll(4) == 0 { "forbid" } else { "permit" };
        let resource = dice.pick(&resources);
        // A rule on a role by `==` or `is` can only be about minting.
        let minting = resource.contains("==") || resource.contains(" is ");
        let action = if minting { actions[1] } else { dice.pick(&actions) };
        let unpinned = resource == "resource";
        let action = if !unpinned && action == "action" { actions[2] } else { action };
        let about_roles = minting || (unpinned && action == actions[1]);
        let (scope, mut condition) = (dice.pick(&scopes), dice.pick(&conditions));
        if about_roles && dice.roll(2) == 0 {
            condition = dice.pick(&of_roles);
        }
        format!("@id(\"p{index}\") {effect}({scope}, {action}, {resource}) {condition};\n")
    };
    (0..count).map(rule).collect()
}

#[test]
fn slicing_changes_no_answer() {
    // Goal: over many sets and questions, portions answer as the whole set, in the same name.
    let roles: Vec<RoleFacts> = ROLES.iter().map(|(name, backend)| role(name, backend)).collect();
    let mut answers = [0_usize; 3];
    for seed in 1..=100_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text = corpus(&mut dice);
        let files = [("p.cedar".to_owned(), text.clone())];
        let vocabulary = Vocabulary::built_in().unwrap();
        let checked = load::check(&files, Some(&roles), vocabulary)
            .unwrap_or_else(|faults| panic!("seed {seed}: {faults:?}\n{text}"));
        let set = |slices| Policies { vocabulary, slices, ids: Vec::new(), hash: String::new() };
        let sliced = set(Slices::cut(&checked.policies).unwrap());
        let whole = set(Slices::whole(&checked.policies).unwrap());
        for _ in 0..60 {
            let who = match dice.roll(4) {
                0 => job(&[]),
                1 => job(&[(dice.pick(&["x", "y", "github"]), dice.pick(&["1", "2"]))]),
                2 => member(&[dice.pick(&["a", "b", "c"])]),
                _ => member(&[]),
            };
            let (name, backend) = ROLES[dice.roll(ROLES.len())];
            let labels = [("environment", "test"), ("risk", "high"), ("team", "a")];
            let facts = labelled(name, backend, &labels[..dice.roll(4)]);
            let me = who.id();
            let lease = LeaseFacts { role: name, backend, ..lease(&me, "tsk_1") };
            let ask = match dice.roll(6) {
                0 => Ask::RenewLease { lease, ttl_seconds: 1 },
                1 => Ask::RevokeLease { lease },
                2 => Ask::ReadLease { lease },
                3 => Ask::ListLeases,
                _ => mint(&facts),
            };
            let decide = |policies: &Policies| {
                let answer = policies.authorize(&who, &ask, &with_task("tsk_1"));
                answer.map_or_else(|denial| denial.0, Allowed::into_decision)
            };
            let (got, expected) = (decide(&sliced), decide(&whole));
            assert_eq!(got, expected, "seed {seed}: {ask:?} by {who:?}\n{text}");
            answers[if got.evaluation_error.is_some() { 2 } else { usize::from(got.allowed) }] += 1;
        }
    }
    // A corpus in which nearly everything is denied would prove little.
    assert!(answers.iter().all(|count| *count > 100), "{answers:?}");
}

#[test]
fn a_thousand_pinned_rules_leave_a_small_portion() {
    let roles: Vec<RoleFacts> =
        (0..1000).map(|n| role(&format!("r{n}"), &format!("b{}", n % 50))).collect();
    let rule = |n: usize| {
        format!(
            "@id(\"p{n}\") permit(principal, action == Dayfly::Action::\"mint\", \
             resource == Dayfly::Role::\"r{n}\");\n"
        )
    };
    let mut text = (0..1000).map(rule).collect::<Vec<_>>().concat();
    text.push_str("@id(\"b\") permit(principal, action, resource in Dayfly::Backend::\"b7\");\n");
    text.push_str(
        "@id(\"all\") forbid(principal, action, resource) when { principal.issuer == \"x\" };",
    );
    let policies = Policies::from_texts(&[("p.cedar".to_owned(), text)], &roles).unwrap();
    // Its own, the one about an issuer, and the built-in one about who acts for people.
    assert_eq!(policies.slices.count(&mint(&roles[8]), &job(&[])), 3);
    assert_eq!(policies.slices.count(&mint(&roles[7]), &job(&[])), 4);
    // The rule without an action, and the built-in one about tasks' tokens.
    assert_eq!(policies.slices.count(&Ask::ReadAudit, &job(&[])), 2);
    let allowed = policies.authorize(&job(&[]), &mint(&roles[8]), &at_noon()).unwrap();
    assert_eq!(allowed.decision().rules[0].id, "p8");
    // A role that came after the set was cut is on no rule of its own.
    assert_eq!(denied_by(&policies, &job(&[]), &mint(&role("new", "b8"))), DEFAULT_DENY);
    // A role that moved to another backend is judged where it is now.
    assert!(allows(&policies, &job(&[]), &mint(&role("new", "b7"))));
}

#[test]
fn each_action_of_the_schema_has_its_portion() {
    // Goal: an action in the schema that the code does not know would fall out of the index.
    let vocabulary = Vocabulary::built_in().unwrap();
    let mut named: Vec<String> =
        vocabulary.schema().actions().map(|uid| uid.id().unescaped().to_owned()).collect();
    named.sort();
    let known: Vec<_> = ask::Action::ALL.iter().map(|action| action.as_str()).collect();
    assert_eq!(named, known);
    let any = Policy::parse(None, "permit(principal, action, resource);").unwrap();
    let slices = Slices::cut([&any]).unwrap();
    assert_eq!(slices.count(&Ask::Whoami, &job(&[])), 1);
    assert_eq!(slices.count(&Ask::ListRoles, &job(&[])), 1);
}

/// The more of them there are, the more of them are about others.
#[test]
fn a_thousand_rules_for_repositories_leave_a_small_portion() {
    let rule = |n: usize| {
        format!(
            "@id(\"p{n}\") permit(principal, action == Dayfly::Action::\"mint\", resource) when \
             {{ principal.hasTag(\"repository_id\") && principal.getTag(\"repository_id\") == \
             \"{n}\" && principal.getTag(\"repository_id\") != \"x\" }};\n"
        )
    };
    let text = (0..1000).map(rule).collect::<Vec<_>>().concat();
    let roles = [role("r0", "b0")];
    let policies = Policies::from_texts(&[("p.cedar".to_owned(), text)], &roles).unwrap();
    // Its own, and the built-in one about who acts for people.
    let job = |id| job(&[("repository_id", id)]);
    assert_eq!(policies.slices.count(&mint(&roles[0]), &job("17")), 2);
    let allowed = policies.authorize(&job("17"), &mint(&roles[0]), &at_noon()).unwrap();
    assert_eq!(allowed.decision().rules[0].id, "p17");
    assert_eq!(denied_by(&policies, &job("1000"), &mint(&roles[0])), DEFAULT_DENY);
}
