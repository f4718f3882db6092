//! The port `CaptchaProvider` by siteverify, the request that Turnstile, hCaptcha and reCAPTCHA
//! share: the secret, the token and the shopper's address as a form, and JSON as the answer.
//!
//! Deliberately absent: retries. A provider answers a token once, so that a repeat after a lost
//! answer would refuse it.

use std::{net::IpAddr, time::Duration};

use async_trait::async_trait;
use http_body_util::{BodyExt as _, Full, Limited};
use lambda_http::http::{Request, StatusCode, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::{
    adapters::http_client::{AddressError, HttpClient, with_causes},
    domain::CaptchaId,
    ports::{CaptchaProvider, StoreError, Stored},
};

const STORE: &str = "captcha provider";
/// Upper bound of an answer, which is usually some hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Codes of an answer that say that the token can't be judged now.
const TRY_AGAIN: [&str; 1] = ["internal-error"];
/// Codes that say that our own settings are wrong.
const OWN_FAULT: [&str; 4] =
    ["missing-input-secret", "invalid-input-secret", "sitekey-secret-mismatch", "bad-request"];

/// How to reach the provider.
#[derive(Debug)]
pub struct Siteverify {
    client: HttpClient,
    url: Uri,
    secret: SecretString,
    hostnames: Vec<String>,
    timeout: Duration,
    calls: Semaphore,
}

/// What a [`Siteverify`] is made of.
#[derive(Debug)]
pub struct SiteverifySettings {
    /// The provider's address.
    pub url: String,
    /// The secret that belongs to the pages' site key.
    pub secret: SecretString,
    /// Hosts whose tokens are good; empty: those that the provider takes.
    pub hostnames: Vec<String>,
    /// Time limit of a call, including the wait for its turn.
    pub timeout: Duration,
    /// Calls at the same time.
    pub calls_max: usize,
}

impl Siteverify {
    /// Opens no connection.
    ///
    /// # Errors
    /// When the address is wrong, or the machine's certificates can't be read.
    pub fn new(settings: SiteverifySettings) -> Result<Self, AddressError> {
        let SiteverifySettings { url, secret, hostnames, timeout, calls_max } = settings;
        let (client, url) = HttpClient::for_address(&url, calls_max)?;
        Ok(Self { client, url, secret, hostnames, timeout, calls: Semaphore::new(calls_max) })
    }

    async fn ask(&self, token: &str, address: IpAddr) -> Stored<Answer> {
        let form = [
            ("secret", self.secret.expose_secret()),
            ("response", token),
            ("remoteip", &address.to_string()),
        ];
        let form: Vec<String> = form
            .iter()
            .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            .collect();
        let request = Request::post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(form.join("&")))
            .map_err(|error| corrupt(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| unknown(&error))?;
        let (parts, body) = response.into_parts();
        if parts.status != StatusCode::OK {
            return Err(unavailable(format!("it answers {}", parts.status)));
        }
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| unknown(error.as_ref()))?.to_bytes();
        // The answer does not appear in the error, because it may repeat the token.
        serde_json::from_slice(&body)
            .map_err(|_| unavailable("its answer is not that of siteverify".to_owned()))
    }

    fn judge(&self, answer: Answer, action: &str, captcha_id: CaptchaId) -> Stored<bool> {
        let Answer { success, error_codes, hostname, action: made_for, cdata } = answer;
        if !success {
            let says =
                |codes: &[&str]| error_codes.iter().any(|code| codes.contains(&code.as_str()));
            if says(&OWN_FAULT) {
                return Err(corrupt("it refuses captchas.provider.secret".to_owned()));
            }
            if says(&TRY_AGAIN) {
                return Err(unavailable("it can't judge now".to_owned()));
            }
            return Ok(false);
        }
        let captcha_id = captcha_id.to_string();
        // Not every provider tells each of them; one that is told must be right.
        let fits = |told: &Option<String>, wanted: &str| {
            told.as_deref().is_none_or(|told| told.is_empty() || told == wanted)
        };
        let on_our_page = self.hostnames.is_empty()
            || hostname.is_some_and(|hostname| self.hostnames.contains(&hostname));
        Ok(on_our_page && fits(&made_for, action) && fits(&cdata, &captcha_id))
    }
}

/// What is read of an answer.
#[derive(Deserialize)]
struct Answer {
    success: bool,
    #[serde(rename = "error-codes", default)]
    error_codes: Vec<String>,
    hostname: Option<String>,
    action: Option<String>,
    cdata: Option<String>,
}

#[async_trait]
impl CaptchaProvider for Siteverify {
    async fn accepts(
        &self,
        token: &str,
        action: &'static str,
        captcha_id: CaptchaId,
        address: IpAddr,
    ) -> Stored<bool> {
        let asking = async {
            let _turn = self.calls.acquire().await.expect("the semaphore is never closed");
            self.ask(token, address).await
        };
        let answer = tokio::time::timeout(self.timeout, asking).await;
        let answer = answer.map_err(|_| StoreError::Unknown {
            store: STORE,
            cause: format!("no answer within {} ms", self.timeout.as_millis()),
        })??;
        self.judge(answer, action, captcha_id)
    }
}

fn unavailable(cause: String) -> StoreError {
    StoreError::Unavailable { store: STORE, cause }
}

fn corrupt(cause: String) -> StoreError {
    StoreError::Corrupt { store: STORE, cause }
}

/// The call failed after it may have reached the provider. The error's causes, which the text of
/// hyper's errors leaves out, belong to the message.
fn unknown(error: &(dyn std::error::Error + 'static)) -> StoreError {
    StoreError::Unknown { store: STORE, cause: with_causes(error) }
}
