//! A person at a browser, as far as signing in needs one: pages, forms and cookies, by `curl`.
//!
//! Invariant: it follows redirects to wherever they lead, as a browser does, and runs no script.

use std::{path::PathBuf, process::Command};

use reqwest::Url;
use tempfile::TempDir;

use crate::run;

/// Somebody with a browser of their own.
#[derive(Debug)]
pub struct Visitor {
    place: TempDir,
    ca_file: PathBuf,
}

/// What is before them.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where they are.
    pub url: String,
    /// The status.
    pub status: u16,
    /// What is shown.
    pub html: String,
}

impl Page {
    /// The address of the link or form that has `part` in it.
    pub fn link(&self, part: &str) -> String {
        let quoted =
            self.html.split('"').find(|text| text.starts_with("http") && text.contains(part));
        quoted.unwrap_or_else(|| panic!("no `{part}` in {}", self.html)).to_owned()
    }

    /// Where its first form goes, and what is in its hidden fields.
    fn form(&self) -> (String, Vec<(String, String)>) {
        let (_, form) =
            self.html.split_once("<form").unwrap_or_else(|| panic!("no form: {self:?}"));
        let (form, _) = form.split_once("</form>").unwrap();
        let hidden = form.split("<input type=\"hidden\"").skip(1);
        let hidden = hidden.map(|input| input.split_once('>').unwrap().0);
        let fields = hidden.map(|input| (value(input, "name"), value(input, "value")));
        let action = Url::parse(&self.url).unwrap().join(&value(form, "action")).unwrap();
        (action.into(), fields.collect())
    }
}

/// The first value of an attribute; empty where there is none.
fn value(text: &str, attribute: &str) -> String {
    let found = text.split_once(&format!(" {attribute}=\""));
    let value = found.and_then(|(_, rest)| rest.split_once('"')).map_or("", |(value, _)| value);
    value.replace("&amp;", "&")
}

impl Visitor {
    /// Somebody who trusts `ca_file`.
    pub fn new(ca_file: PathBuf) -> Self {
        Self { place: tempfile::tempdir().unwrap(), ca_file }
    }

    /// Goes to `url`.
    pub fn open(&self, url: &str) -> Page {
        self.go(url, &[])
    }

    /// Sends the form of `page` with these fields besides the hidden ones.
    pub fn submit(&self, page: &Page, fields: &[(&str, &str)]) -> Page {
        let (url, mut all) = page.form();
        all.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.go(&url, &all)
    }

    /// Signs in as `name` where `page` asks for it, and consents.
    pub fn sign_in(&self, page: &Page, name: &str) -> Page {
        let consent = self.submit(page, &[("login", name), ("password", "any")]);
        self.submit(&consent, &[])
    }

    fn go(&self, url: &str, form: &[(String, String)]) -> Page {
        let jar = self.place.path().join("cookies");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--noproxy", "*", "-L", "--cacert"])
            .arg(&self.ca_file);
        curl.arg("-c").arg(&jar).arg("-b").arg(&jar);
        curl.args(["-w", "\n%{http_code} %{url_effective}"]);
        for (name, value) in form {
            curl.arg("--data-urlencode").arg(format!("{name}={value}"));
        }
        let text = run(curl.arg(url));
        let (html, last) = text.rsplit_once('\n').unwrap();
        let (status, url) = last.split_once(' ').unwrap();
        Page { url: url.to_owned(), status: status.parse().unwrap(), html: html.to_owned() }
    }
}
