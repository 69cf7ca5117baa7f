//! Whose token is sent, and where it comes from.
//!
//! Invariant: a token is never shown; GitHub's request token goes to GitHub's address alone,
//! and over https.

mod aws;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use data_encoding::BASE64URL_NOPAD;
use dayfly_api::OpenedTask;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use crate::{
    ambient::Ambient,
    args::IdentityKind,
    client::{self, check_secure, read_body, secure_http},
    login::{self, Login},
    proof::{self, Key},
};

/// Longer than any token that a broker accepts.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// How a token is shown that whoever has it may use, and one that is bound to a key.
const BEARER: &str = "Bearer ";
const BOUND: &str = "DPoP ";
/// How tasks' tokens begin.
const TASK_TOKEN_PREFIX: &str = "dft_";
const TASK_TOKEN: &str = "the task's token";

/// A token, and the key that is proven with it, if one is.
#[derive(Clone)]
pub(crate) struct Token {
    header: HeaderValue,
    hash: String,
    key: Option<Arc<Key>>,
}

impl Token {
    /// Takes a bearer's token out of `text`; `origin` names it in errors.
    pub(crate) fn parse(text: &str, origin: &str) -> Result<Self, Error> {
        Self::shown_as(BEARER, text, origin)
    }

    /// The token of a task that was opened with a proof of `key`, as it must be shown. A broker
    /// that took no proof says so by its type.
    pub(crate) fn of_task(opened: &OpenedTask, key: Option<&Arc<Key>>) -> Result<Self, Error> {
        let token = Self::parse(&opened.token, TASK_TOKEN)?;
        match key {
            Some(key) if opened.token_type.eq_ignore_ascii_case("dpop") => token.bound_to(key),
            Some(_) | None => Ok(token),
        }
    }

    /// The same as one that is bound to `key`: it is shown as such, and never without a proof.
    pub(crate) fn bound_to(self, key: &Arc<Key>) -> Result<Self, Error> {
        let text = self.header.to_str().ok().and_then(|shown| shown.strip_prefix(BEARER));
        Ok(Self::shown_as(BOUND, text.unwrap_or_default(), TASK_TOKEN)?.with_proof_of(key))
    }

    /// Whether it is a task's, and no identity's.
    pub(crate) fn is_of_a_task(&self) -> bool {
        let shown = self.header.as_bytes();
        [BEARER, BOUND].iter().any(|scheme| {
            let token = shown.strip_prefix(scheme.as_bytes());
            token.is_some_and(|token| token.starts_with(TASK_TOKEN_PREFIX.as_bytes()))
        })
    }

    /// The same with a proof of `key` at each request: what is given for it is bound to that.
    pub(crate) fn with_proof_of(self, key: &Arc<Key>) -> Self {
        Self { key: Some(Arc::clone(key)), ..self }
    }

    fn shown_as(scheme: &str, text: &str, origin: &str) -> Result<Self, Error> {
        let text = one_token(text, origin)?;
        let mut header = HeaderValue::try_from(format!("{scheme}{text}"))
            .map_err(|_| malformed(origin, "holds what a header can't carry"))?;
        header.set_sensitive(true);
        Ok(Self { header, hash: proof::token_hash(text), key: None })
    }

    /// What it says of itself if it is a JWT. Nobody has verified it here.
    pub(crate) fn unverified_claims(&self) -> Option<Map<String, Value>> {
        let shown = self.header.to_str().ok()?;
        let token = shown.strip_prefix(BEARER).or_else(|| shown.strip_prefix(BOUND))?;
        let mut parts = token.split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        let claims = BASE64URL_NOPAD.decode(claims.as_bytes()).ok()?;
        serde_json::from_slice(&claims).ok()
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// What a proof calls it.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The key that is proven with it.
    pub(crate) fn key(&self) -> Option<&Key> {
        self.key.as_deref()
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
    Aws(aws::Signer),
    File(PathBuf),
    GitHub { url: String, token: Token },
    Login(Login),
    Variable(Token),
}

impl Source {
    /// The token. GitHub makes a fresh one each time, and so does who signs.
    pub(crate) async fn token(&self, audience: &str) -> Result<Token, Error> {
        match self {
            Self::Aws(signer) => signer.token(audience).await,
            Self::File(path) => from_file(path),
            Self::GitHub { url, token } => from_github(url, token, audience).await,
            Self::Login(login) => login.token().await,
            Self::Variable(token) => Ok(token.clone()),
        }
    }

    /// Whether the next token will be another one, so that a call that used this one up can be
    /// tried again.
    pub(crate) fn is_fresh_each_time(&self) -> bool {
        matches!(self, Self::Aws(_) | Self::GitHub { .. })
    }
}

/// The workload's identity: what opens a task.
pub(crate) fn workload(
    kind: Option<IdentityKind>,
    token_file: Option<&Path>,
    ambient: &Ambient,
) -> Result<Source, Error> {
    if let Some(path) = token_file {
        return Ok(Source::File(path.to_owned()));
    }
    let named = kind.map_or_else(|| named(ambient), |kind| Ok(Some(kind)))?;
    if let Some(IdentityKind::Aws) = named {
        return aws::Signer::new(ambient).map(Source::Aws);
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

/// The variables by which whoever has them is the same workload, beside those that are withheld from
/// every command: what signs, where it is AWS credentials.
pub(crate) fn signing(
    kind: Option<IdentityKind>,
    token_file: Option<&Path>,
    ambient: &Ambient,
) -> &'static [&'static str] {
    let kind = kind.or_else(|| named(ambient).ok().flatten());
    match (token_file, kind) {
        (None, Some(IdentityKind::Aws)) => aws::VARIABLES,
        _ => &[],
    }
}

/// The token of a command that reads or administers: a task's, or a federated one.
pub(crate) fn bearer(
    kind: Option<IdentityKind>,
    token_file: Option<&Path>,
    ambient: &Ambient,
) -> Result<Source, Error> {
    if kind.is_some() {
        return workload(kind, token_file, ambient);
    }
    let named = ambient.value("DAYFLY_TOKEN_FILE").map(Path::new);
    if let Some(path) = token_file.or(named) {
        return Ok(Source::File(path.to_owned()));
    }
    match variable("DAYFLY_TOKEN", ambient)? {
        Some(source) => Ok(source),
        None => workload(None, None, ambient),
    }
}

fn named(ambient: &Ambient) -> Result<Option<IdentityKind>, Error> {
    match ambient.text("DAYFLY_IDENTITY") {
        None => Ok(None),
        Some("aws") => Ok(Some(IdentityKind::Aws)),
        Some(_) => Err(Error::Malformed {
            origin: "DAYFLY_IDENTITY".to_owned(),
            reason: "names an identity that is not known; `aws` is",
        }),
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot sign with AWS credentials: {0}")]
    Aws(String),
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("cannot read the token file `{path}` (--token-file names another)")]
    File {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot get an identity token from GitHub: {0}")]
    GitHub(String),
    #[error(transparent)]
    KeyFile(#[from] proof::file::Error),
    #[error(transparent)]
    Login(#[from] login::Error),
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
        "no identity found; sign in by `dayfly login`, give --token-file, set DAYFLY_ID_TOKEN to your \
         platform's OIDC token, or sign with AWS credentials by --identity aws"
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
    Token::parse(&text_of_file(path)?, &format!("the token file `{}`", path.display()))
}

/// The one token in a file, as a body carries it.
pub(crate) fn text_of_file(path: &Path) -> Result<String, Error> {
    let name = path.display().to_string();
    let text =
        fs::read_to_string(path).map_err(|source| Error::File { path: name.clone(), source })?;
    one_token(&text, &format!("the token file `{name}`")).map(ToOwned::to_owned)
}

/// The token that `text` is, without the white space around it.
fn one_token<'a>(text: &'a str, origin: &str) -> Result<&'a str, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(malformed(origin, "is empty"));
    }
    if text.len() > TOKEN_BYTES_MAX {
        return Err(malformed(origin, "is too long for a token"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(malformed(origin, "holds more than one token, or not one"));
    }
    Ok(text)
}

fn malformed(origin: &str, reason: &'static str) -> Error {
    Error::Malformed { origin: origin.to_owned(), reason }
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
            Source::Aws(_) => "aws".to_owned(),
            Source::File(path) => path.display().to_string(),
            Source::GitHub { .. } => "github".to_owned(),
            Source::Login(_) => "login".to_owned(),
            Source::Variable(token) => token.header().to_str().unwrap().to_owned(),
        }
    }

    #[test]
    fn the_flag_comes_first_then_the_variable_then_the_platform() {
        let everything = Ambient::from([("DAYFLY_ID_TOKEN", "jwt"), GITHUB[0], GITHUB[1]]);
        let of = |file, ambient| shown(&workload(None, file, ambient).unwrap());
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
        let of = |file, ambient| shown(&bearer(None, file, ambient).unwrap());
        assert_eq!(of(Some(Path::new("/f")), &ambient), "/f");
        assert_eq!(of(None, &ambient), "/t");
        let ambient = Ambient::from([("DAYFLY_TOKEN", "dft_x"), ("DAYFLY_ID_TOKEN", "jwt")]);
        assert_eq!(of(None, &ambient), "Bearer dft_x");
        assert_eq!(of(None, &Ambient::from([("DAYFLY_ID_TOKEN", "jwt")])), "Bearer jwt");
    }

    #[test]
    fn aws_is_used_only_where_it_is_named() {
        let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let jwt = ("DAYFLY_ID_TOKEN", "jwt");
        let everything = Ambient::from([jwt, keys[0], keys[1], ("DAYFLY_TOKEN", "dft_x")]);
        let aws = Some(IdentityKind::Aws);
        assert_eq!(shown(&workload(None, None, &everything).unwrap()), "Bearer jwt");
        assert_eq!(shown(&workload(aws, None, &everything).unwrap()), "aws");
        assert_eq!(shown(&bearer(aws, None, &everything).unwrap()), "aws");
        let named = Ambient::from([jwt, keys[0], keys[1], ("DAYFLY_IDENTITY", "aws")]);
        assert_eq!(shown(&workload(None, None, &named).unwrap()), "aws");
        assert_eq!(shown(&bearer(None, None, &named).unwrap()), "aws");
        assert_eq!(shown(&workload(None, Some(Path::new("/f")), &named).unwrap()), "/f");
        let other = Ambient::from([jwt, ("DAYFLY_IDENTITY", "azure")]);
        assert!(matches!(workload(None, None, &other), Err(Error::Malformed { .. })));
        assert!(matches!(workload(aws, None, &Ambient::from([jwt])), Err(Error::Aws(_))));
    }

    #[test]
    fn a_task_token_opens_no_task() {
        assert!(matches!(
            workload(None, None, &Ambient::from([("DAYFLY_TOKEN", "dft_x")])),
            Err(Error::None { is_github: false })
        ));
    }

    #[test]
    fn half_of_github_tells_what_is_missing() {
        let ambient = Ambient::from([("GITHUB_ACTIONS", "true"), GITHUB[0]]);
        let error = workload(None, None, &ambient).unwrap_err();
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
    fn a_bound_token_is_shown_as_one_with_a_proof() {
        let key = Arc::new(Key::generate().unwrap());
        let token = Token::parse("dft_x", "x").unwrap();
        assert!(token.is_of_a_task() && !Token::parse("jwt", "x").unwrap().is_of_a_task());
        let bound = token.clone().bound_to(&key).unwrap();
        assert_eq!(bound.header(), "DPoP dft_x");
        assert_eq!((bound.hash(), bound.key().is_some()), (token.hash(), true));
        assert!(bound.is_of_a_task() && bound.unverified_claims().is_none());
        assert!(token.key().is_none());
    }

    #[test]
    fn a_file_may_end_with_a_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "jwt\n").unwrap();
        assert_eq!(from_file(file.path()).unwrap().header(), "Bearer jwt");
        assert!(matches!(from_file(Path::new("/nonexistent")), Err(Error::File { .. })));
    }
}
