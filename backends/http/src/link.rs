//! The next page, as `Link` headers say it (RFC 8288).

use reqwest::header::{HeaderMap, LINK};
use url::Url;

/// Where the page after `from` is. Not checked: it may be anywhere.
pub(crate) fn next(headers: &HeaderMap, from: &Url) -> Option<Url> {
    let values = headers.get_all(LINK).into_iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(links)
        .find(|(_, parameters)| is_next(parameters))
        .and_then(|(target, _)| from.join(target).ok())
}

/// The links of one header, each with its parameters.
fn links(header: &str) -> Vec<(&str, &str)> {
    let mut links = Vec::new();
    let mut rest = header;
    while let Some((target, after)) =
        rest.split_once('<').and_then(|(_, link)| link.split_once('>'))
    {
        // A comma may stand in the next target, but no `<` before it begins.
        let (parameters, _) = after.split_once('<').unwrap_or((after, ""));
        links.push((target, parameters));
        rest = after;
    }
    links
}

fn is_next(parameters: &str) -> bool {
    let relation = |parameter: &str| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim().trim_end_matches(',').trim().trim_matches('"');
        let next = value.split_ascii_whitespace().any(|word| word.eq_ignore_ascii_case("next"));
        name.trim().eq_ignore_ascii_case("rel").then_some(next)
    };
    // Only the first `rel` of a link counts.
    parameters.split(';').find_map(relation).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    #[test]
    fn the_next_page_is_the_one_whose_relation_says_so() {
        let from = Url::parse("https://api.example/v4/keys?page=1").unwrap();
        for (header, target) in [
            (r#"<https://api.example/v4/keys?page=2>; rel="next""#, Some("/v4/keys?page=2")),
            (
                r#"<?page=1>; rel="first", <?page=2,3>; title="a"; rel="next""#,
                Some("/v4/keys?page=2,3"),
            ),
            (r#"</k?page=9>; rel="last prev", </k>; REL=NEXT"#, Some("/k")),
            (r#"<?page=0>; rel="prev""#, None),
            (r#"<?page=0>; title="next""#, None),
            (r#"<?page=0; rel="next""#, None),
            ("", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_static(header));
            let next =
                next(&headers, &from).map(|url| url.as_str().replace("https://api.example", ""));
            assert_eq!(next.as_deref(), target, "{header}");
        }
    }
}
