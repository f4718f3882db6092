//! Text messages in tests: a sender that keeps them, and a gateway that behaves as a test says.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use tokio::net::TcpListener;

use crate::{
    domain::Sms,
    ports::{SmsSender, StoreError, Stored},
};

/// Keeps messages instead of sending them.
#[derive(Default)]
pub struct SmsBox {
    sent: Mutex<Vec<Sms>>,
    failing: Mutex<VecDeque<StoreError>>,
}

impl SmsBox {
    /// All messages, oldest first.
    #[must_use]
    pub fn sent(&self) -> Vec<Sms> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last code that was sent to a phone in E.164 form.
    #[must_use]
    pub fn code_for(&self, phone: &str) -> Option<String> {
        let to = |sms: &Sms| sms.phone.as_str() == phone;
        self.sent().into_iter().rfind(to).map(|sms| sms.code.as_str().to_owned())
    }

    /// Lets the next message fail.
    pub fn fail(&self, error: StoreError) {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).push_back(error);
    }
}

#[async_trait]
impl SmsSender for SmsBox {
    async fn send(&self, sms: &Sms) -> Stored<()> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(error) = failing {
            return Err(error);
        }
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sms.clone());
        Ok(())
    }
}

/// What a gateway does with a request.
#[derive(Debug, Clone, Copy)]
pub enum GatewayAnswer {
    /// Answers with this status.
    Status(u16),
    /// Answers 204 after this long.
    After(Duration),
    /// Answers with this status and a redirection to itself.
    Redirect(u16),
}

/// A request as a gateway received it.
#[derive(Debug, Clone)]
pub struct Received {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Received {
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    }
}

#[derive(Default)]
struct Seen {
    received: Vec<Received>,
    script: VecDeque<GatewayAnswer>,
    at_once: usize,
    at_once_max: usize,
}

type Shared = Arc<Mutex<Seen>>;

/// A gateway on a port of its own, for as long as the runtime runs.
pub struct SmsGateway {
    seen: Shared,
    /// Its address.
    pub url: String,
}

impl SmsGateway {
    /// Starts one. It behaves as `script` says, one entry for each request, and then answers 204.
    pub async fn start(script: impl IntoIterator<Item = GatewayAnswer>) -> Self {
        let script = script.into_iter().collect();
        let seen = Shared::new(Mutex::new(Seen { script, ..Seen::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let router = Router::new().route("/codes", post(receive)).with_state(Arc::clone(&seen));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { seen, url: format!("http://{address}/codes") }
    }

    /// The requests so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).received.clone()
    }

    /// The most requests that were under way at once.
    #[must_use]
    pub fn at_once_max(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).at_once_max
    }
}

/// Counts a request as under way until it is dropped.
struct UnderWay(Shared);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at_once -= 1;
    }
}

async fn receive(
    State(seen): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1]) {
    let behaviour = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.received.push(Received { headers, body });
        seen.at_once += 1;
        seen.at_once_max = seen.at_once_max.max(seen.at_once);
        seen.script.pop_front().unwrap_or(GatewayAnswer::Status(204))
    };
    let _under_way = UnderWay(Arc::clone(&seen));
    let (status, header) = match behaviour {
        GatewayAnswer::Status(status) => (status, ("x-none", "")),
        GatewayAnswer::Redirect(status) => (status, ("location", "/codes")),
        GatewayAnswer::After(time) => {
            tokio::time::sleep(time).await;
            (204, ("x-none", ""))
        }
    };
    (StatusCode::from_u16(status).expect("the script has valid statuses"), [header])
}
