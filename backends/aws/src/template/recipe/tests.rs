use serde_json::json;

use super::*;

fn config(more: &Value) -> AwsConfig {
    let mut raw = json!({ "region": "eu-central-1" });
    raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let mut config: AwsConfig = serde_json::from_value(raw).unwrap();
    "df_".clone_into(&mut config.prefix);
    config
}

fn sealed(raw: &Value, config: &AwsConfig) -> Result<Template, String> {
    let template = AwsTemplate::parse(raw).map_err(|error| error.to_string())?;
    template.sealed(config).map_err(|error| error.to_string())
}

fn role(more: &Value) -> Value {
    let mut raw = json!({ "type": "assume_role", "role_arn": "arn:aws:iam::123456789012:role/a" });
    raw.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    raw
}

#[test]
fn each_rule_has_its_fault() {
    let sessions = config(&json!({}));
    let statement = json!([{ "Effect": "Allow", "Action": "s3:*", "Resource": "*" }]);
    assert!(sealed(&role(&json!({ "policy": { "Statement": statement } })), &sessions).is_ok());
    let long = json!({ "Statement": "x".repeat(2_048) });
    let many = vec!["arn:aws:iam::aws:policy/a"; 11];
    for (more, text) in [
        (json!({ "role_arn": "arn:aws:iam::123456789012:user/a" }), "is no ARN of a role"),
        (json!({ "role_arn": "*" }), "is no ARN of a role"),
        (json!({ "policy": long }), "longer than 2048"),
        (json!({ "policy": "{" }), "is no JSON"),
        (json!({ "policy": [] }), "is no object with a `Statement`"),
        (json!({ "policy": { "Statement": "☃" } }), "beyond Latin-1"),
        (json!({ "policy_arns": many }), "more than 10 policies"),
        (json!({ "policy_arns": ["x"] }), "is no ARN of a managed policy"),
        (json!({ "external_id": "a b" }), "the external id `a b`"),
        (json!({ "tags": { "aws:x": "" } }), "is reserved"),
        (json!({ "duration_max_s": 899 }), "900 to 43200"),
        (json!({ "duration_max_s": 43_201 }), "900 to 43200"),
        (json!({ "duration": 900 }), "cannot be read"),
        (json!({ "type": "root" }), "cannot be read"),
        (json!({ "type": "iam_user" }), "cannot be read"),
    ] {
        let error = sealed(&role(&more), &sessions).unwrap_err();
        assert!(error.contains(text), "{more}: {error}");
    }
}

#[test]
fn a_belt_reaches_its_own_account_only() {
    let belted = config(&json!({ "deny_policies": ["arn:aws:iam::123456789012:policy/deny"] }));
    let plan = sealed(&role(&json!({})), &belted).unwrap().plan().clone();
    let plan: SessionPlan = serde_json::from_value(plan.0).unwrap();
    assert_eq!((plan.role.as_deref(), plan.longest_s), (Some("a"), 3_600));
    let other = role(&json!({ "role_arn": "arn:aws:iam::210987654321:role/a" }));
    assert!(sealed(&other, &belted).unwrap_err().contains("another account"));
    assert!(sealed(&other, &config(&json!({}))).is_ok());
}

#[test]
fn each_mode_mints_its_own() {
    let (sessions, users) = (config(&json!({})), config(&json!({ "mode": "user" })));
    let user = json!({ "type": "iam_user", "groups": ["readers"] });
    assert!(sealed(&user, &users).is_ok());
    assert!(sealed(&user, &sessions).unwrap_err().contains("mints none"));
    assert!(sealed(&role(&json!({})), &users).unwrap_err().contains("mints none"));
    for (raw, text) in [
        (json!({ "type": "iam_user" }), "allows nothing"),
        (json!({ "type": "iam_user", "groups": ["a b"] }), "no name of a group"),
        (json!({ "type": "iam_user", "permissions_boundary": "x" }), "no ARN of a managed"),
        (json!({ "type": "iam_user", "groups": ["a"], "path": "/" }), "cannot be read"),
    ] {
        assert!(sealed(&raw, &users).unwrap_err().contains(text), "{raw}");
    }
}

#[test]
fn a_federated_name_is_short() {
    let token = json!({ "type": "federation_token", "policy_arns": ["arn:aws:iam::aws:policy/a"] });
    let mut config = config(&json!({}));
    assert!(sealed(&token, &config).is_ok());
    "dayfly_".clone_into(&mut config.prefix);
    assert!(sealed(&token, &config).unwrap_err().contains("at most 6"));
    "df_".clone_into(&mut config.prefix);
    let nothing = json!({ "type": "federation_token" });
    assert!(sealed(&nothing, &config).unwrap_err().contains("allows nothing"));
}
