//! The authorization code flow (RFC 6749 §4.1) with PKCE (RFC 7636), as RFC 8252 has it for programs
//! without a secret.
//!
//! Invariant: what proves that an answer is to our question never leaves this process; an answer to
//! another one changes nothing.

use std::{cell::RefCell, collections::BTreeMap, net::Ipv4Addr, process::Stdio, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use tokio::{net::TcpListener, process::Command, sync::oneshot, time::timeout};
use url::{Url, form_urlencoded};

use super::{
    Error,
    pkce::{Pkce, random},
    provider::{Provider, Reply, Tokens, cut},
};
use crate::{
    agent::http::{Answer, accept_all, serve},
    ambient::Ambient,
    output::Terminal,
};

const CALLBACK: &str = "/callback";
/// How long somebody may take to sign in.
const TIMEOUT: Duration = Duration::from_mins(5);
const PAGE: &str = "Dayfly has the answer. You can close this page and go back to the terminal.\n";

/// What the answer must know, and what is asked with.
struct Question {
    redirect_uri: String,
    state: String,
    nonce: String,
    pkce: Pkce,
}

/// Has somebody sign in with a browser, which is opened if `opener` says how.
pub(super) async fn sign_in(
    provider: &Provider,
    opener: Option<&Ambient>,
    terminal: &Terminal,
) -> Result<(Tokens, Option<String>), Error> {
    // A name could mean another address (RFC 8252 §8.3).
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(Error::Listen)?;
    let port = listener.local_addr().map_err(Error::Listen)?.port();
    let question = Question {
        redirect_uri: format!("http://127.0.0.1:{port}{CALLBACK}"),
        state: random()?,
        nonce: random()?,
        pkce: Pkce::new()?,
    };
    let url = question.url(provider)?;
    if let Some(ambient) = opener {
        open(&url, ambient);
        terminal.prompt(&format!("sign in with the browser, or open {url} on this machine"));
    } else {
        terminal.prompt(&format!("open {url} on this machine"));
    }
    let (sender, receiver) = oneshot::channel();
    let sender = RefCell::new(Some(sender));
    let accept = || async { Ok(listener.accept().await?.0) };
    let serving = accept_all(accept, |stream| {
        let (question, sender) = (&question, &sender);
        serve(stream, move |request| {
            let answer = question.answer(&request, sender);
            async move { answer }
        })
    });
    let exchanged = async {
        let wait = timeout(TIMEOUT, receiver);
        let answered = terminal.waiting("waiting for somebody to sign in", wait).await;
        match answered {
            Ok(Ok(answer)) => question.exchange(provider, &answer).await,
            Ok(Err(_)) | Err(_) => Err(Error::TimedOut { within: TIMEOUT }),
        }
    };
    let tokens = tokio::select! {
        tokens = exchanged => tokens?,
        never = serving => match never {},
    };
    Ok((tokens, Some(question.nonce.clone())))
}

/// Parameters of the browser's answer.
type Parameters = BTreeMap<String, String>;

impl Question {
    /// Where the browser is sent.
    fn url(&self, provider: &Provider) -> Result<Url, Error> {
        let unable = || provider.wrong("has no page to sign in at; try `dayfly login --device`");
        let url = provider.endpoints.authorization.as_deref().ok_or_else(unable)?;
        let mut url = Url::parse(url).map_err(|_| unable())?;
        if !["http", "https"].contains(&url.scheme()) {
            return Err(unable());
        }
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &provider.offer.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", &provider.scope())
            .append_pair("state", &self.state)
            .append_pair("nonce", &self.nonce)
            .append_pair("code_challenge", &self.pkce.challenge())
            .append_pair("code_challenge_method", "S256");
        if provider.offer.scopes.iter().any(|scope| scope == "offline_access") {
            // Without it there is no refresh token (OpenID Connect Core 1.0 §11).
            url.query_pairs_mut().append_pair("prompt", "consent");
        }
        Ok(url)
    }

    /// Takes the answer to this question, once, and tells whoever brought it.
    fn answer(
        &self,
        request: &Request<Incoming>,
        sender: &RefCell<Option<oneshot::Sender<Parameters>>>,
    ) -> Answer {
        let uri = request.uri();
        if request.method() != Method::GET || uri.path() != CALLBACK {
            return page(StatusCode::NOT_FOUND, "There is nothing here.\n");
        }
        let query = uri.query().unwrap_or_default().as_bytes();
        let parameters: Parameters = form_urlencoded::parse(query).into_owned().collect();
        if !self.is_ours(&parameters) {
            return page(StatusCode::BAD_REQUEST, "This is no answer to what was asked here.\n");
        }
        if let Some(sender) = sender.take() {
            // Whoever waited has given up.
            let _ = sender.send(parameters);
        }
        page(StatusCode::OK, PAGE)
    }

    fn is_ours(&self, parameters: &Parameters) -> bool {
        parameters.get("state").is_some_and(|state| *state == self.state)
    }

    /// What the code is good for.
    async fn exchange(&self, provider: &Provider, answer: &Parameters) -> Result<Tokens, Error> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code(provider, answer)?),
            ("redirect_uri", self.redirect_uri.as_str()),
            ("client_id", provider.offer.client_id.as_str()),
            ("code_verifier", self.pkce.verifier()),
        ];
        match provider.tokens(&form).await? {
            Reply::Given(tokens) => Ok(tokens),
            Reply::Refused { error, more } => {
                Err(provider.wrong(format!("takes the browser's answer back: {error}{more}")))
            }
        }
    }
}

/// The code that the answer has.
fn code<'a>(provider: &Provider, answer: &'a Parameters) -> Result<&'a str, Error> {
    // RFC 9207 §2.4: another provider's answer is not taken to this one.
    let issuer = answer.get("iss");
    if issuer.map_or(provider.names_itself, |issuer| *issuer != provider.offer.issuer) {
        return Err(provider.wrong("did not give the browser's answer; another one did"));
    }
    if let Some(error) = answer.get("error") {
        let more = answer.get("error_description").map(|text| format!(" ({})", cut(text)));
        return Err(Error::Denied(format!("{}{}", cut(error), more.unwrap_or_default())));
    }
    let code = answer.get("code").map(String::as_str);
    code.ok_or_else(|| provider.wrong("gave the browser no code"))
}

fn page(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, plain);
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    // The code stands in the address.
    headers.insert(header::REFERRER_POLICY, header::HeaderValue::from_static("no-referrer"));
    answer
}

/// Opens a browser, if there is one. Where it fails, the address is on the terminal.
fn open(url: &Url, ambient: &Ambient) {
    let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let named = ambient.text("BROWSER").and_then(|list| list.split(':').next());
    let mut command = Command::new(named.filter(|name| !name.is_empty()).unwrap_or(usual));
    // What it says would stand between our own lines.
    command.arg(url.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(command.spawn());
}
