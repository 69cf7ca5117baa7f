//! A form, strictly.
//!
//! Invariant: a parameter has one value or none. Which of two another reader would take is
//! anybody's guess, so a form with two is refused, whatever they are (RFC 6749, section 3.2).

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};

use super::{MEDIA_TYPE, OauthFault};

/// The parameters of a form. Nothing shows them: some are secrets.
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a form. What nobody asks for is left alone, and what has no value counts as absent.
    pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, OauthFault> {
        if !is_form(headers) {
            return Err(OauthFault::invalid_request(format!("the body must be {MEDIA_TYPE}")));
        }
        let mut parameters = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if parameters.insert(name.into_owned(), value.into_owned()).is_some() {
                return Err(OauthFault::invalid_request("a parameter is there twice"));
            }
        }
        parameters.retain(|_, value| !value.is_empty());
        Ok(Self(parameters))
    }

    /// Whether a parameter is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A parameter's value, once.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The same of one that must be there.
    pub(super) fn required(&mut self, name: &str) -> Result<String, OauthFault> {
        let missing = || OauthFault::invalid_request(format!("`{name}` is missing"));
        self.take(name).ok_or_else(missing)
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let essence = value.to_str().ok().and_then(|value| value.split(';').next()).map(str::trim);
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case(MEDIA_TYPE))
}

#[cfg(test)]
impl Form {
    /// Of a body alone.
    pub(super) fn of(body: &str) -> Result<Self, OauthFault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, axum::http::HeaderValue::from_static(MEDIA_TYPE));
        Self::parse(&headers, body.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn each_parameter_is_read_once_and_decoded() {
        let mut form = Form::of("a=1&b=x%2Cy+z&c=&d=%C3%A9&unknown=1").ok().unwrap();
        assert_eq!(form.take("a").as_deref(), Some("1"));
        assert_eq!(form.take("a"), None, "it was taken");
        assert_eq!(form.required("b").unwrap(), "x,y z");
        assert!(!form.has("c"), "without a value it is absent");
        assert_eq!(form.take("d").as_deref(), Some("é"));
        let fault = form.required("c").unwrap_err();
        assert_eq!(fault, OauthFault::invalid_request("`c` is missing"));
    }

    #[test]
    fn two_values_are_none() {
        for body in ["a=1&a=1", "a=1&b=2&a=", "a=&a=", "%61=1&a=2", "x=1&x=2&token=y"] {
            let fault = Form::of(body).err().unwrap();
            assert_eq!(fault, OauthFault::invalid_request("a parameter is there twice"), "{body}");
        }
    }

    #[test]
    fn only_a_form_is_read_as_one() {
        let read = |types: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in types.iter().copied() {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
            }
            Form::parse(&headers, b"a=1").is_ok()
        };
        assert!(read(&[MEDIA_TYPE]));
        assert!(read(&["Application/X-WWW-Form-URLencoded; charset=UTF-8"]));
        let none: [&'static str; 0] = [];
        assert!(!read(&none) && !read(&[MEDIA_TYPE; 2]));
        for other in ["application/json", "text/plain", "multipart/form-data"] {
            assert!(!read(&[other]), "{other}");
        }
    }
}
