//! A small HTTP client: keeps connections open, uses JSON, never retries.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body_util::BodyExt as _;
use hyper::{HeaderMap, Request, StatusCode, header};
use hyper_util::{
    client::legacy::{Client as Pool, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one emulator.
#[derive(Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Body>,
    pub base: String,
    unanswered: Arc<AtomicUsize>,
    patience: Duration,
}

/// Server-sent events.
pub struct Events {
    body: hyper::body::Incoming,
    text: String,
}

impl Events {
    /// The data of the next event; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event
                    .lines()
                    .find_map(|line| line.strip_prefix("data: "))
                    .map(|data| serde_json::from_str(data).unwrap());
                self.text = rest.to_owned();
                if data.is_some() {
                    return data;
                }
                continue;
            }
            let frame = tokio::time::timeout(TIMEOUT, self.body.frame())
                .await
                .expect("an event every second")?
                .ok()?;
            self.text.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    /// The body as JSON; `null` if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or(Value::Null)
    }

    /// The last part of a problem's `type`; empty if the answer is not a problem.
    pub fn slug(&self) -> String {
        let json = self.json();
        json["type"]
            .as_str()
            .and_then(|kind| kind.strip_prefix("/problems/"))
            .unwrap_or_default()
            .to_owned()
    }

    /// A string field of the body's top level.
    pub fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_else(|| panic!("no {field} in {self:?}")).to_owned()
    }

    /// Panics unless the status is the expected one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.bytes));
        self
    }

    /// Panics unless this is the expected problem.
    #[track_caller]
    pub fn expect_problem(self, status: u16, slug: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.slug(), slug);
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
        for member in ["title", "detail"] {
            assert!(answer.json()[member].is_string(), "{answer:?}");
        }
        assert_eq!(answer.json()["status"], status);
        answer
    }
}

impl Client {
    pub fn new(base: &str) -> Self {
        Self {
            pool: Pool::builder(TokioExecutor::new()).build_http(),
            base: base.to_owned(),
            unanswered: Arc::default(),
            patience: TIMEOUT,
        }
    }

    /// A client with a longer timeout.
    pub fn patient(base: &str, patience: Duration) -> Self {
        Self { patience, ..Self::new(base) }
    }

    /// Sends one request. An error means that the connection failed: the server may or may not have
    /// handled the request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let body = match body {
            Some(json) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(json.to_string())
            }
            None => Body::empty(),
        };
        self.raw(request.body(body).unwrap()).await
    }

    /// How many requests got no answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.load(Ordering::Relaxed)
    }

    pub async fn raw(&self, request: Request<Body>) -> Result<Answer, String> {
        let answer = tokio::time::timeout(self.patience, async {
            let response =
                self.pool.request(request).await.map_err(|error| format!("{error:?}"))?;
            let (parts, body) = response.into_parts();
            let bytes = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, bytes })
        })
        .await
        .unwrap_or_else(|_| Err("timed out".to_owned()));
        if answer.is_err() {
            self.unanswered.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Opens a stream of server-sent events.
    pub async fn events(&self, path: &str, token: &str) -> Events {
        let request = Request::get(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {token}"));
        let response = self.pool.request(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }

    #[track_caller]
    fn must(answer: Result<Answer, String>) -> Answer {
        answer.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn get(&self, path: &str, token: Option<&str>) -> Answer {
        Self::must(self.send("GET", path, token, None).await)
    }

    pub async fn post(&self, path: &str, token: Option<&str>, body: Value) -> Answer {
        Self::must(self.send("POST", path, token, Some(body)).await)
    }

    pub async fn call(&self, method: &str, path: &str, token: Option<&str>, body: Value) -> Answer {
        Self::must(self.send(method, path, token, Some(body)).await)
    }
}
