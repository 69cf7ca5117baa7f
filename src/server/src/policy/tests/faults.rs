//! Sets that are refused, and how that is said.

use std::fs;

use super::*;

/// The faults of a set, as `line: message`.
fn faults(text: &str) -> Vec<String> {
    let faults = try_rules(text).map(|_| ()).unwrap_err();
    faults
        .iter()
        .map(|fault| {
            assert_eq!(fault.file, "rules.cedar");
            format!("{}: {}", fault.line.map_or("-".to_owned(), |it| it.to_string()), fault.message)
        })
        .collect()
}

#[test]
fn every_rule_has_an_id_and_no_two_have_one() {
    let text = "permit(principal, action, resource);\n\
        @id(\"twice\") permit(principal, action, resource);\n\
        // A comment.\n\
        @id(\"twice\") forbid(principal, action, resource);\n\
        @id(\"\") permit(principal, action, resource);\n";
    assert_eq!(
        faults(text),
        [
            "1: the rule has no `@id(\"…\")`",
            "4: `@id(\"twice\")` is taken by the rule at rules.cedar:2",
            "5: the rule has no `@id(\"…\")`",
        ]
    );
}

#[test]
fn an_id_is_one_word_of_our_own_choosing() {
    for (id, message) in [
        ("base/mine", "is Dayfly's own"),
        (DEFAULT_DENY, "is Dayfly's own"),
        (EVALUATION_ERROR, "is Dayfly's own"),
        ("With Space", "is not up to 100 of"),
        ("line\\nfeed", "is not up to 100 of"),
        (&"a".repeat(RULE_ID_LEN_MAX + 1), "is not up to 100 of"),
    ] {
        let found = faults(&format!("@id(\"{id}\") permit(principal, action, resource);"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(message) && !found[0].contains('\n'), "{found:?}");
    }
}

#[test]
fn what_does_not_parse_is_named_with_its_line() {
    let found = faults("@id(\"a\")\npermit(principal, action, resource)\nwhen { true ;\n");
    assert!(found[0].starts_with("3: "), "{found:?}");
    let found = faults("@id(\"a\")\npermit(principal, action, resource == ?resource);");
    assert!(found.iter().any(|it| it.contains("slots")), "{found:?}");
}

#[test]
fn a_rule_that_could_fail_on_what_is_missing_is_refused() {
    // Goal: strict validation keeps out the rules that Cedar would skip when asked.
    for (line, condition) in [
        (3, r#"principal.getTag("repository_id") == "1""#),
        (3, r#"resource.risk == "high""#),
        (3, "context.source_address.isLoopback()"),
        (3, r#"principal.nickname == "a""#),
        (3, r#"context.ttl_seconds == "60""#),
        (3, "ip(context.purpose).isLoopback()"),
    ] {
        let found = faults(&format!(
            "@id(\"a\")\npermit(principal, action == Dayfly::Action::\"mint\", resource)\nwhen {{ {condition} }};"
        ));
        assert!(found[0].starts_with(&format!("{line}: ")), "{condition}: {found:?}");
    }
}

#[test]
fn a_rule_that_can_never_apply_is_refused() {
    for scope in [
        r#"principal, action == Dayfly::Action::"mint", resource is Dayfly::Lease"#,
        r#"principal, action == Dayfly::Action::"mind", resource"#,
        "principal is Dayfly::Robot, action, resource",
        r#"principal, action == Action::"mint", resource"#,
    ] {
        assert!(!faults(&format!("@id(\"a\")\nforbid({scope});")).is_empty(), "{scope}");
    }
    let found = faults("@id(\"a\")\nforbid(principal, action, resource)\nwhen { 1 == 2 };");
    assert!(found[0].contains("impossible") || found[0].contains("false"), "{found:?}");
}

#[test]
fn hidden_characters_in_a_rule_are_refused() {
    let text = "@id(\"a\")\npermit(principal, action, resource)\nwhen { principal.issuer == \"git\u{202e}hub\" };";
    assert!(!faults(text).is_empty());
    let cyrillic = "@id(\"a\")\npermit(principal, action, resource)\nwhen { principal.issuer == \"g\u{456}thub\" };";
    assert!(!faults(cyrillic).is_empty());
}

#[test]
fn a_rule_on_an_unknown_role_is_refused_with_a_suggestion() {
    assert_eq!(
        faults("\n@id(\"a\") forbid(principal, action, resource == Dayfly::Role::\"raeder\");"),
        ["2: no role is named `raeder`; did you mean `reader`?"]
    );
    assert_eq!(
        faults(
            "@id(\"a\") forbid(principal, action, resource) \
             when { resource in Dayfly::Backend::\"zzz\" };"
        ),
        ["1: no backend with a role is named `zzz`"]
    );
}

#[test]
fn every_fault_of_every_file_is_said_at_once() {
    let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let found = Policies::from_texts(
        &[
            file("a.cedar", "permit(principal, action, resource);"),
            file("b.cedar", "\n\nthis is no rule"),
            file(
                "c.cedar",
                "@id(\"c\")\npermit(principal, action, resource) when { principal.x };",
            ),
            file("d.cedar", "@id(\"c\") permit(principal, action, resource);"),
        ],
        &[],
    )
    .map(|_| ())
    .unwrap_err();
    let places: Vec<_> = found.iter().map(|it| (it.file.as_str(), it.line)).collect();
    for place in
        [("a.cedar", Some(1)), ("b.cedar", Some(3)), ("c.cedar", Some(2)), ("d.cedar", Some(1))]
    {
        assert!(places.contains(&place), "{place:?} not in {found:?}");
    }
    assert!(found[0].to_string().starts_with("a.cedar:1: "), "{}", found[0]);
}

#[test]
fn identical_rules_are_told_apart_by_their_lines() {
    let rule = "permit(principal, action, resource);\n";
    let found = faults(&rule.repeat(12));
    assert_eq!(found.len(), 12);
    for line in 1..=12 {
        assert!(found.iter().any(|it| it.starts_with(&format!("{line}: "))), "{found:?}");
    }
}

#[test]
fn sets_have_a_size() {
    let large = format!("// {}\n", "a".repeat(FILE_BYTES_MAX));
    assert!(faults(&large)[0].contains("are the most"));
}

#[test]
fn a_directory_gives_its_cedar_files_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
    write("b.cedar", b"@id(\"b\") forbid(principal, action, resource);");
    write("a.cedar", b"@id(\"a\") permit(principal, action, resource);");
    write(".#a.cedar", b"what an editor left");
    write("README.md", b"about");
    fs::create_dir(dir.path().join("cases")).unwrap();
    let policies = Policies::load(dir.path(), &[]).unwrap();
    let own: Vec<_> = policies.rule_ids().filter(|id| !id.starts_with("base/")).collect();
    assert_eq!(own, ["a", "b"]);
    assert_eq!(denied_by(&policies, &job(&[]), &Ask::Whoami), "b");

    write("c.cedar", b"\xff\xfe");
    let found = Policies::load(dir.path(), &[]).map(|_| ()).unwrap_err();
    assert!(found[0].file.ends_with("c.cedar") && found[0].message.contains("cannot be read"));
    let found = Policies::load(&dir.path().join("none"), &[]).map(|_| ()).unwrap_err();
    assert!(found[0].message.contains("cannot be read"), "{found:?}");
}

#[test]
fn a_set_that_is_refused_leaves_the_one_in_use_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.cedar");
    fs::write(&file, "@id(\"a\") permit(principal, action, resource);").unwrap();
    let used = Policies::load(dir.path(), &[]).unwrap();
    let hash = used.hash().to_owned();
    fs::write(&file, "@id(\"a\") permit(principal, action, resource) when { oops };").unwrap();
    assert!(Policies::load(dir.path(), &[]).is_err());
    let allowed = used.authorize(&job(&[]), &Ask::ReadAudit, &at_noon()).unwrap();
    assert_eq!(allowed.decision().policy_hash, hash);
}
