//! Hands text messages to the operator's gateway: one signed POST per message, in the form of
//! Standard Webhooks (standardwebhooks.com), so that receivers can use its libraries.
//!
//! Bounded in every way: messages under way, messages that wait, the time of one attempt and of all,
//! and the number of attempts. A message is repeated with the same id when the gateway can't be
//! reached, does not answer in time, or answers 408, 425, 429 or 5xx. Redirections are not followed.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http_body_util::{BodyExt as _, Full, Limited};
use lambda_http::http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use ring::hmac;
use serde_json::json;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    adapters::http_client::{AddressError, HttpClient, with_causes},
    domain::Sms,
    ports::{Clock, Random, SmsSender, StoreError, Stored},
};

/// The display name in errors.
const STORE: &str = "SMS gateway";
/// First pause between two attempts; it doubles, and up to as much again is added at random.
const PAUSE_FIRST: Duration = Duration::from_millis(150);
/// Upper bound of a gateway's answer, which is read only so that the connection can be used again.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

type Body = Full<hyper::body::Bytes>;

/// How the gateway is reached.
pub struct WebhookSettings {
    /// The gateway's address, `http` or `https`.
    pub url: String,
    /// Secrets; each signs every message, so that one can be replaced by another.
    pub secrets: Vec<Vec<u8>>,
    /// Time limit of all attempts, waiting for a place included.
    pub timeout: Duration,
    /// Time limit of one attempt.
    pub attempt_timeout: Duration,
    /// Most attempts for one message.
    pub attempts_max: u32,
    /// Messages under way at once.
    pub at_once_max: usize,
    /// Messages that may wait for one of these places.
    pub waiting_max: usize,
}

/// The operator's gateway.
pub struct WebhookSms {
    client: HttpClient,
    url: Uri,
    keys: Vec<hmac::Key>,
    settings: WebhookSettings,
    /// One permit for each message under way or waiting.
    places: Semaphore,
    /// One permit for each message under way.
    turns: Semaphore,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
}

/// Why an attempt has failed.
struct Failed {
    cause: String,
    /// The message may be delivered all the same.
    maybe_sent: bool,
    /// Another attempt may succeed.
    passing: bool,
}

impl WebhookSms {
    /// Prepares the client; no connection is made before the first message.
    ///
    /// # Errors
    /// When the address is wrong, or this machine's certificates can't be read.
    pub fn new(
        settings: WebhookSettings,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, AddressError> {
        let (client, url) = HttpClient::for_address(&settings.url, settings.at_once_max)?;
        let key = |secret: &Vec<u8>| hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Self {
            client,
            url,
            keys: settings.secrets.iter().map(key).collect(),
            places: Semaphore::new(settings.at_once_max + settings.waiting_max),
            turns: Semaphore::new(settings.at_once_max),
            settings,
            clock,
            random,
        })
    }

    async fn send_by(&self, sms: &Sms, deadline: Instant) -> Result<(), Failed> {
        let busy =
            |cause: &str| Failed { cause: cause.to_owned(), maybe_sent: false, passing: true };
        let _place = self
            .places
            .try_acquire()
            .map_err(|_| busy("too many messages wait (sms_webhook.waiting_max)"))?;
        let _turn = timeout_at(deadline, self.turns.acquire())
            .await
            .map_err(|_| busy("messages before it took too long (sms_webhook.at_once_max)"))?
            .expect("the semaphore is never closed");
        let mut pause = PAUSE_FIRST;
        let mut maybe_sent = false;
        for attempt in 1.. {
            let Err(failed) = self.post_by(sms, deadline).await else { return Ok(()) };
            maybe_sent |= failed.maybe_sent;
            let wait = pause + pause.mul_f64(self.fraction());
            if !failed.passing
                || attempt >= self.settings.attempts_max
                || Instant::now() + wait >= deadline
            {
                return Err(Failed { maybe_sent, ..failed });
            }
            sleep(wait).await;
            pause *= 2;
        }
        unreachable!("the loop ends by returning")
    }

    /// One attempt.
    async fn post_by(&self, sms: &Sms, deadline: Instant) -> Result<(), Failed> {
        let end = deadline.min(Instant::now() + self.settings.attempt_timeout);
        let late = || Failed {
            cause: "it did not answer in time".to_owned(),
            maybe_sent: true,
            passing: true,
        };
        let status = timeout_at(end, self.post(sms)).await.map_err(|_| late())??;
        if status.is_success() {
            return Ok(());
        }
        let passing = status.is_server_error()
            || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS]
                .contains(&status);
        Err(Failed {
            cause: format!("it answers {status}"),
            // A server that fails may have passed the message on before.
            maybe_sent: status.is_server_error(),
            passing,
        })
    }

    async fn post(&self, sms: &Sms) -> Result<StatusCode, Failed> {
        let asked = self.client.request(self.request(sms)).await;
        let answer = asked.map_err(|error| Failed {
            cause: with_causes(&error),
            maybe_sent: !error.is_connect(),
            passing: true,
        })?;
        let (status, body) = (answer.status(), answer.into_body());
        // The head is the answer; the rest is read if it comes at once, and never waited for long.
        let _ = timeout(PAUSE_FIRST, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        Ok(status)
    }

    fn request(&self, sms: &Sms) -> Request<Body> {
        let id = sms.sms_id.to_string();
        let timestamp = (self.clock.now().epoch_ms() / 1_000).to_string();
        let body = json!({
            "type": "phone-code",
            "phone": sms.phone,
            "code": sms.code.as_str(),
            "expires_at": sms.expires_at,
        })
        .to_string();
        let signed = format!("{id}.{timestamp}.{body}");
        let signatures: Vec<String> = self
            .keys
            .iter()
            .map(|key| format!("v1,{}", BASE64.encode(hmac::sign(key, signed.as_bytes()))))
            .collect();
        let mut request = Request::new(Full::from(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("flashsale"));
        for (name, value) in [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", signatures.join(" ")),
        ] {
            let value = HeaderValue::try_from(value).expect("digits, letters and + / = , - only");
            headers.insert(name, value);
        }
        request
    }

    /// A random number from 0 to 1.
    fn fraction(&self) -> f64 {
        let mut byte = [0];
        self.random.fill(&mut byte);
        f64::from(byte[0]) / 255.0
    }
}

#[async_trait]
impl SmsSender for WebhookSms {
    async fn send(&self, sms: &Sms) -> Stored<()> {
        let deadline = Instant::now() + self.settings.timeout;
        self.send_by(sms, deadline).await.map_err(|Failed { cause, maybe_sent, .. }| {
            if maybe_sent {
                StoreError::Unknown { store: STORE, cause }
            } else {
                StoreError::Unavailable { store: STORE, cause }
            }
        })
    }
}
