//! The Lambda Runtime API, as one instance sees it: `next`, `response`, `error` and `init/error`.
//!
//! Each instance has a loopback port of its own, which identifies it. As in Lambda there is no
//! authentication: users of this machine could impersonate the function and are trusted not to.
//! Pages in a browser are not trusted, and `Host` is checked against DNS rebinding.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::loopback::names_listener;

use super::{
    dispatcher::InstanceId,
    invocation::{FunctionError, PAYLOAD_BYTES_MAX},
    pool::{Pool, Work},
};

const PREFIX: &str = "/2018-06-01/runtime/";
/// An error report is a few lines with a stack trace.
const ERROR_BYTES_MAX: usize = 256 * 1024;
/// How much of a body that is too large is read and discarded.
const DISCARDED_BYTES_MAX: usize = 64 * 1024 * 1024;

type HttpResponse = Response<Full<Bytes>>;

/// The Runtime API of one instance.
pub struct RuntimeApi {
    pool: Arc<Pool>,
    instance: InstanceId,
    arn: String,
    /// Where it listens.
    address: SocketAddr,
}

impl RuntimeApi {
    pub fn new(
        pool: Arc<Pool>,
        instance: InstanceId,
        arn: String,
        address: SocketAddr,
    ) -> Arc<Self> {
        Arc::new(Self { pool, instance, arn, address })
    }

    /// Serves the instance until dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let stream = match accepted {
                        Ok((stream, _)) => stream,
                        Err(error) => {
                            tracing::warn!(%error, "runtime API: accept");
                            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                            continue;
                        }
                    };
                    // Without `TCP_NODELAY` answers are only slower: ignore the error.
                    let _ = stream.set_nodelay(true);
                    let api = Arc::clone(&self);
                    let service = service_fn(move |request| {
                        let api = Arc::clone(&api);
                        async move { Ok::<_, Infallible>(api.respond(request).await) }
                    });
                    // Answers are small: one copy costs less than a write of many parts.
                    connections.spawn(hyper::server::conn::http1::Builder::new().writev(false).serve_connection(TokioIo::new(stream), service));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> HttpResponse {
        if !names_listener(request.headers(), request.uri(), self.address) {
            return refusal(
                StatusCode::FORBIDDEN,
                "Forbidden",
                "Host must be what AWS_LAMBDA_RUNTIME_API says",
            );
        }
        if ["origin", "sec-fetch-site"].iter().any(|name| request.headers().contains_key(*name)) {
            return refusal(StatusCode::FORBIDDEN, "Forbidden", "not for browsers");
        }
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.strip_prefix(PREFIX).unwrap_or_default().split('/').collect();
        match (request.method(), parts.as_slice()) {
            (&Method::GET, ["invocation", "next"]) => {
                self.event(self.pool.next(self.instance).await)
            }
            (&Method::POST, ["invocation", id, "response"]) => {
                let result = match read(request, PAYLOAD_BYTES_MAX).await {
                    Ok(body) => Ok(body),
                    Err(Unread::TooLarge) => Err(FunctionError::response_too_large(id)),
                    // The process is ending; its instance reports that.
                    Err(Unread::Cut) => {
                        return refusal(
                            StatusCode::BAD_REQUEST,
                            "InvalidRequest",
                            "the body did not come whole",
                        );
                    }
                };
                let too_large = result.is_err();
                match self.pool.answered(self.instance, id, result) {
                    true if too_large => refusal(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "RequestEntityTooLarge",
                        "Exceeded maximum allowed payload size",
                    ),
                    done => accepted(done),
                }
            }
            (&Method::POST, ["invocation", id, "error"]) => {
                let error = report(request).await;
                accepted(self.pool.answered(self.instance, id, Err(FunctionError::reported(error))))
            }
            (&Method::POST, ["init", "error"]) => {
                let error = report(request).await;
                match self.pool.init_failed(self.instance, &FunctionError::reported(error)) {
                    true => accepted(true),
                    false => refusal(
                        StatusCode::FORBIDDEN,
                        "InvalidStateTransition",
                        "it was told already, or has asked for work",
                    ),
                }
            }
            _ => refusal(
                StatusCode::NOT_FOUND,
                "NotFound",
                "this Runtime API has next, response, error and init/error",
            ),
        }
    }

    /// An invocation, as `next` gives it.
    fn event(&self, work: Work) -> HttpResponse {
        let headers = [
            ("lambda-runtime-aws-request-id", Some(work.id)),
            ("lambda-runtime-deadline-ms", Some(work.deadline_ms.to_string())),
            ("lambda-runtime-invoked-function-arn", Some(self.arn.clone())),
            ("lambda-runtime-trace-id", Some(work.trace_id)),
            ("lambda-runtime-client-context", work.client_context),
        ];
        let mut response = Response::new(Full::new(work.payload));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in headers {
            // A client context that is not a valid header value is left out.
            if let Some(value) =
                value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok())
            {
                response.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// Why a body can't be used.
enum Unread {
    TooLarge,
    Cut,
}

async fn read(request: Request<Incoming>, bytes_max: usize) -> Result<Bytes, Unread> {
    let mut body = request.into_body();
    match Limited::new(&mut body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            // The rest is read and discarded: an answer before the end of the body would break the
            // runtime's connection.
            let mut left = DISCARDED_BYTES_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
            Err(Unread::TooLarge)
        }
        Err(_) => Err(Unread::Cut),
    }
}

/// The error as the function reports it; without a usable report, the type from the header.
async fn report(request: Request<Incoming>) -> Bytes {
    let kind = request
        .headers()
        .get("lambda-runtime-function-error-type")
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    match read(request, ERROR_BYTES_MAX).await {
        Ok(body) if serde_json::from_slice::<serde_json::Map<_, _>>(&body).is_ok() => body,
        _ => {
            let kind = kind.unwrap_or_else(|| "Runtime.UnknownReason".to_owned());
            Bytes::from(
                serde_json::json!({ "errorType": kind, "errorMessage": "no usable error report" })
                    .to_string(),
            )
        }
    }
}

fn accepted(known: bool) -> HttpResponse {
    if !known {
        return refusal(StatusCode::BAD_REQUEST, "InvalidRequestID", "Invalid request ID");
    }
    json(StatusCode::ACCEPTED, &serde_json::json!({ "status": "OK" }))
}

fn refusal(status: StatusCode, kind: &str, message: &str) -> HttpResponse {
    json(status, &serde_json::json!({ "errorType": kind, "errorMessage": message }))
}

fn json(status: StatusCode, body: &serde_json::Value) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
