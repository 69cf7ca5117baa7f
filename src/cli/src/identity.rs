//! Whose token is sent, and where it comes from.
//!
//! Invariant: a token is never shown; GitHub's request token goes to GitHub's address alone,
//! and over https.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use reqwest::header::HeaderValue;
use serde::Deserialize;
use url::Url;

use crate::{
    ambient::Ambient,
    client::{self, check_secure, read_body, secure_http},
};

/// Longer than any token that a broker accepts.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// A bearer token.
#[derive(Clone)]
pub(crate) struct Token(HeaderValue);

impl Token {
    /// Takes the token out of `text`; `origin` names it in errors.
    pub(crate) fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        let malformed = |reason| Error::Malformed { origin: origin.to_owned(), reason };
        let text = text.trim();
        if text.is_empty() {
            return Err(malformed("is empty"));
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(malformed("is too long for a token"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed("holds more than one token, or not one"));
        }
        let mut header = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| malformed("holds what a header can't carry"))?;
        header.set_sensitive(true);
        Ok(Self(header))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where a token comes from.
#[derive(Debug)]
pub(crate) enum Source {
    File(PathBuf),
    GitHub { url: String, token: Token },
    Variable(Token),
}

impl Source {
    /// The token. GitHub makes a fresh one each time.
    pub(crate) async fn token(&self, audience: &str) -> Result<Token, Error> {
        match self {
            Self::File(path) => from_file(path),
            Self::GitHub { url, token } => from_github(url, token, audience).await,
            Self::Variable(token) => Ok(token.clone()),
        }
    }

    /// Whether the next token will be another one, so that a call that used this one up can be
    /// tried again.
    pub(crate) fn is_fresh_each_time(&self) -> bool {
        matches!(self, Self::GitHub { .. })
    }
}

/// The workload's identity: what opens a task.
pub(crate) fn workload(token_file: Option<&Path>, ambient: &Ambient) -> Result<Source, Error> {
    if let Some(path) = token_file {
        return Ok(Source::File(path.to_owned()));
    }
    if let Some(source) = variable("DAYFLY_ID_TOKEN", ambient)? {
        return Ok(source);
    }
    let url = ambient.text("ACTIONS_ID_TOKEN_REQUEST_URL");
    let token = ambient.text("ACTIONS_ID_TOKEN_REQUEST_TOKEN");
    match (url, token) {
        (Some(url), Some(token)) => {
            let token = Token::parse(token, "ACTIONS_ID_TOKEN_REQUEST_TOKEN")?;
            Ok(Source::GitHub { url: url.to_owned(), token })
        }
        _ => Err(Error::None { is_github: ambient.text("GITHUB_ACTIONS").is_some() }),
    }
}

/// The token of a command that reads or administers: a task's, or a federated one.
pub(crate) fn bearer(token_file: Option<&Path>, ambient: &Ambient) -> Result<Source, Error> {
    let named = ambient.value("DAYFLY_TOKEN_FILE").map(Path::new);
    if let Some(path) = token_file.or(named) {
        return Ok(Source::File(path.to_owned()));
    }
    match variable("DAYFLY_TOKEN", ambient)? {
        Some(source) => Ok(source),
        None => workload(None, ambient),
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("cannot read the token file `{path}`")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot get an identity token from GitHub: {0}")]
    GitHub(String),
    #[error("{origin} {reason}")]
    Malformed { origin: String, reason: &'static str },
    #[error("{}", no_identity(*is_github))]
    None { is_github: bool },
}

fn no_identity(is_github: bool) -> &'static str {
    if is_github {
        "no identity found; add `permissions: { id-token: write, contents: read }` to the job \
         (pull requests from forks get no token)"
    } else {
        "no identity found; give --token-file, or set DAYFLY_ID_TOKEN to your platform's OIDC token"
    }
}

fn variable(name: &'static str, ambient: &Ambient) -> Result<Option<Source>, Error> {
    match ambient.value(name) {
        None => Ok(None),
        Some(value) => {
            // What is not UTF-8 has a replacement character afterwards, which is refused.
            let token = Token::parse(&value.to_string_lossy(), name)?;
            Ok(Some(Source::Variable(token)))
        }
    }
}

fn from_file(path: &Path) -> Result<Token, Error> {
    let name = path.display().to_string();
    let text =
        fs::read_to_string(path).map_err(|source| Error::File { path: name.clone(), source })?;
    Token::parse(&text, &format!("the token file `{name}`"))
}

/// GitHub's answer. It calls the token `value`.
#[derive(Deserialize)]
struct GitHubToken {
    value: String,
}

async fn from_github(url: &str, token: &Token, audience: &str) -> Result<Token, Error> {
    let fault = |reason: &str| Error::GitHub(reason.to_owned());
    let mut url =
        Url::parse(url).map_err(|_| fault("ACTIONS_ID_TOKEN_REQUEST_URL is not a URL"))?;
    check_secure(&url).map_err(|()| fault("ACTIONS_ID_TOKEN_REQUEST_URL is not https"))?;
    url.query_pairs_mut().append_pair("audience", audience);
    let http = secure_http(url.scheme() == "http", None).map_err(client::Error::Setup)?;
    let failed = |error: reqwest::Error| Error::GitHub(error.without_url().to_string());
    let request = http.get(url).header(reqwest::header::AUTHORIZATION, token.header());
    let response = request.send().await.map_err(failed)?;
    let status = response.status();
    if !status.is_success() {
        return Err(fault(&format!("it answered {status}")));
    }
    let body = read_body(response).await.map_err(failed)?.unwrap_or_default();
    let answer: GitHubToken =
        serde_json::from_slice(&body).map_err(|_| fault("its answer holds no token"))?;
    Token::parse(&answer.value, "GitHub's token")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GITHUB: [(&str, &str); 2] = [
        ("ACTIONS_ID_TOKEN_REQUEST_URL", "https://token.example/?x=1"),
        ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request"),
    ];

    fn shown(source: &Source) -> String {
        match source {
            Source::File(path) => path.display().to_string(),
            Source::GitHub { .. } => "github".to_owned(),
            Source::Variable(token) => token.header().to_str().unwrap().to_owned(),
        }
    }

    #[test]
    fn the_flag_comes_first_then_the_variable_then_the_platform() {
        let everything = Ambient::from([("DAYFLY_ID_TOKEN", "jwt"), GITHUB[0], GITHUB[1]]);
        let of = |file, ambient| shown(&workload(file, ambient).unwrap());
        assert_eq!(of(Some(Path::new("/f")), &everything), "/f");
        assert_eq!(of(None, &everything), "Bearer jwt");
        assert_eq!(of(None, &Ambient::from(GITHUB)), "github");
    }

    #[test]
    fn administration_prefers_its_own_variables() {
        let ambient = Ambient::from([
            ("DAYFLY_TOKEN_FILE", "/t"),
            ("DAYFLY_TOKEN", "dft_x"),
            ("DAYFLY_ID_TOKEN", "jwt"),
        ]);
        let of = |file, ambient| shown(&bearer(file, ambient).unwrap());
        assert_eq!(of(Some(Path::new("/f")), &ambient), "/f");
        assert_eq!(of(None, &ambient), "/t");
        let ambient = Ambient::from([("DAYFLY_TOKEN", "dft_x"), ("DAYFLY_ID_TOKEN", "jwt")]);
        assert_eq!(of(None, &ambient), "Bearer dft_x");
        assert_eq!(of(None, &Ambient::from([("DAYFLY_ID_TOKEN", "jwt")])), "Bearer jwt");
    }

    #[test]
    fn a_task_token_opens_no_task() {
        assert!(matches!(
            workload(None, &Ambient::from([("DAYFLY_TOKEN", "dft_x")])),
            Err(Error::None { is_github: false })
        ));
    }

    #[test]
    fn half_of_github_tells_what_is_missing() {
        let ambient = Ambient::from([("GITHUB_ACTIONS", "true"), GITHUB[0]]);
        let error = workload(None, &ambient).unwrap_err();
        assert!(error.to_string().contains("id-token: write"), "{error}");
    }

    #[test]
    fn what_is_not_one_token_is_refused_and_not_shown() {
        for bad in ["", " \n", "two tokens", "a\nb", "täglich", &"x".repeat(70_000)] {
            let error = Token::parse(bad, "DAYFLY_TOKEN").unwrap_err().to_string();
            assert!(error.starts_with("DAYFLY_TOKEN "), "{error}");
            assert!(bad.trim().is_empty() || !error.contains(bad), "{error}");
        }
        assert_eq!(format!("{:?}", Token::parse(" jwt\n", "x").unwrap()), "Token(…)");
    }

    #[test]
    fn a_file_may_end_with_a_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "jwt\n").unwrap();
        assert_eq!(from_file(file.path()).unwrap().header(), "Bearer jwt");
        assert!(matches!(from_file(Path::new("/nonexistent")), Err(Error::File { .. })));
    }
}
