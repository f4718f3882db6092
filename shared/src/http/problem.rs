//! Problems as `application/problem+json` (RFC 9457), with `Retry-After` and the `RateLimit`
//! headers.

use std::sync::OnceLock;

use axum::{
    body::Bytes,
    response::{IntoResponse, Response},
};
use lambda_http::http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::problem::{EXPLAINED, Problem};

/// The result of a handler.
pub type HandlerResult<T> = Result<T, Problem>;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.log_cause();
        let line = self.explained();
        let status = StatusCode::from_u16(line.status).expect("the table holds valid statuses");
        let mut response = (status, body(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(ms) = self.retry_after_ms() {
            // Whole seconds, rounded up so that a client does not retry too early.
            headers.insert(header::RETRY_AFTER, HeaderValue::from(ms.div_ceil(1_000)));
        }
        if let Self::RateLimited { name, quota, retry_after_ms } = &self {
            let seconds = retry_after_ms.div_ceil(1_000);
            let (limit, window) =
                quota.map_or((1, 1), |quota| (quota.limit, quota.window_ms.div_ceil(1_000)));
            for (header, value) in [
                ("ratelimit", format!("\"{name}\";r=0;t={seconds}")),
                ("ratelimit-policy", format!("\"{name}\";q={limit};w={window}")),
            ] {
                headers.insert(
                    header,
                    HeaderValue::from_str(&value)
                        .expect("digits and a static name make a header value"),
                );
            }
        }
        if line.status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The body. Most refusals of a crowd do not vary; their bodies are made once.
fn body(problem: &Problem) -> Bytes {
    static MADE: [OnceLock<Bytes>; EXPLAINED.len()] = [const { OnceLock::new() }; EXPLAINED.len()];
    if problem.varies() {
        return make_body(problem);
    }
    MADE[problem.kind() as usize].get_or_init(|| make_body(problem)).clone()
}

fn make_body(problem: &Problem) -> Bytes {
    let line = problem.explained();
    let mut body = problem.members();
    for (name, value) in [
        ("type", json!(format!("/problems/{}", line.slug))),
        ("title", json!(line.title)),
        ("status", json!(line.status)),
        ("detail", json!(problem.detail())),
    ] {
        body.insert(name.to_owned(), value);
    }
    Value::Object(body).to_string().into()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tracing_subscriber::{Layer, Registry, layer::SubscriberExt as _};

    use super::*;
    use crate::{domain::Quota, ports::StoreError};

    /// Counts log lines about stores.
    #[derive(Clone, Default)]
    struct StoreLines(Arc<AtomicUsize>);

    impl Layer<Registry> for StoreLines {
        fn on_event(
            &self,
            event: &tracing::Event<'_>,
            _: tracing_subscriber::layer::Context<'_, Registry>,
        ) {
            if event.metadata().target() == "flashsale::problem" {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    #[test]
    fn the_answer_logs_the_store_s_error_and_making_the_problem_does_not() {
        let lines = StoreLines::default();
        let subscriber = Registry::default().with(lines.clone());
        tracing::subscriber::with_default(subscriber, || {
            let error = StoreError::Corrupt { store: "ledger", cause: "a row".to_owned() };
            let problem = Problem::from(error);
            assert_eq!((problem.slug(), problem.retry_after_ms()), ("internal", None));
            assert_eq!(lines.0.load(Ordering::SeqCst), 0);
            assert_eq!(problem.into_response().status(), 500);
            assert_eq!(lines.0.load(Ordering::SeqCst), 1);
        });
        let error = StoreError::Unknown { store: "ledger", cause: "no answer".to_owned() };
        let problem = Problem::from(error);
        assert_eq!((problem.slug(), problem.retry_after_ms()), ("unavailable", Some(1_000)));
    }

    #[tokio::test]
    async fn a_body_that_is_kept_is_no_other_occurrence_s() {
        async fn body_of(problem: Problem) -> Value {
            let body = problem.into_response().into_body();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            serde_json::from_slice(&bytes).unwrap()
        }
        for _ in 0..2 {
            assert_eq!(body_of(Problem::SoldOut).await["type"], "/problems/sold-out");
            assert_eq!(body_of(Problem::SaleEnded).await["type"], "/problems/sale-ended");
            for text in ["one reason", "another reason"] {
                assert_eq!(body_of(Problem::Forbidden(text)).await["detail"], text);
            }
            for until in [None, Some(crate::testing::START)] {
                let said = body_of(Problem::Banned { until }).await;
                assert_eq!(said.get("until").is_some(), until.is_some());
            }
        }
    }

    #[test]
    fn a_refusal_by_a_limit_says_when_to_come_back() {
        let problem = Problem::RateLimited {
            name: "ticket",
            quota: Some(Quota::per(10, 10_000)),
            retry_after_ms: 1_001,
        };
        let response = problem.into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["ratelimit"], "\"ticket\";r=0;t=2");
        assert_eq!(response.headers()["ratelimit-policy"], "\"ticket\";q=10;w=10");
        assert_eq!(response.headers()["content-type"], "application/problem+json");
    }
}
