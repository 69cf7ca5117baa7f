//! The shared credentials file of AWS' SDKs.
//!
//! Invariant: no value holds what an SDK would take for space, a comment or another line: they
//! differ on quotes and on `#`.

use std::fmt::Write as _;

use super::{Section, Unfit};

const FIELDS: &[&str] = &["access_key_id", "secret_access_key", "session_token"];

/// One role is the profile that is used when none is named.
pub(super) fn write(section: &Section<'_>, alone: bool, text: &mut String) -> Result<(), Unfit> {
    let profile = if alone { "default" } else { section.role };
    let _ = writeln!(text, "[{profile}]");
    for field in FIELDS {
        // A user's own key has no session.
        if *field == "session_token" && section.credential.field(field).is_none() {
            continue;
        }
        let value = section.need(field)?;
        if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(section.unfit(field, "is not plain ASCII without spaces"));
        }
        let _ = writeln!(text, "aws_{field} = {value}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{credential, rendered};
    use crate::{args::FileFormat, exec::deliver::format::render};

    #[test]
    fn one_role_is_the_default_profile_and_several_have_their_names() {
        let session = credential(&[
            ("access_key_id", "ASIA1"),
            ("region", "eu-central-1"),
            ("secret_access_key", "a/b+c="),
            ("session_token", "IQo//8="),
        ]);
        let expected = "[default]\naws_access_key_id = ASIA1\naws_secret_access_key = a/b+c=\n\
                        aws_session_token = IQo//8=\n";
        assert_eq!(rendered(FileFormat::Aws, &session).unwrap(), expected);
        let user = credential(&[("access_key_id", "AKIA1"), ("secret_access_key", "s")]);
        let sections = [("deploy", &session), ("report", &user)]
            .map(|(role, credential)| super::Section { role, credential });
        let text = render(FileFormat::Aws, &sections).unwrap().to_string();
        assert!(text.starts_with("[deploy]\n"), "{text}");
        let second = "[report]\naws_access_key_id = AKIA1\naws_secret_access_key = s\n";
        assert!(text.ends_with(second), "{text}");
    }

    #[test]
    fn what_sdks_differ_on_is_refused() {
        for bad in ["", "a b", "a\nb", "a\tb", "ä", "a\r"] {
            let key = credential(&[("access_key_id", "AKIA1"), ("secret_access_key", bad)]);
            let error = rendered(FileFormat::Aws, &key).unwrap_err();
            let expected = "`secret_access_key` of role `r` is not plain ASCII without spaces";
            assert_eq!(error, expected, "{bad:?}");
        }
    }
}
