/// Whether a credential may be put into the environment variable `name`: `A-Z`, `0-9` and `_`, and
/// none by which programs are steered, since who makes a role must not run code where its
/// credential is used.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    let legal = |c: u8| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_';
    name.bytes().all(legal)
        && name.starts_with(|c: char| c.is_ascii_uppercase())
        && !dayfly_api::is_reserved(name)
}
