//! Which trace a request belongs to, and whose `traceparent` is trusted.

use std::{net::SocketAddr, sync::Arc};

use axum::extract::{ConnectInfo, Request};
use lambda_http::http::HeaderMap;
use tracing::Span;

use super::client::is_trusted;
use crate::{
    config::{Config, Network, Sampling},
    trace::{self, Exporter, TARGET, TRACEPARENT, TraceContext},
};

/// Paths of health checks: they are called every few seconds and would only add noise to the
/// traces.
const NOT_EXPORTED: [&str; 2] = ["/healthz", "/readyz"];

/// Whose `traceparent` a router trusts.
#[derive(Debug, Clone)]
pub enum TraceSource {
    /// No sender's.
    Nobody,
    /// Every sender's: a function has a gateway in front, which decides for its clients.
    Gateway,
    /// The configured proxies'.
    Proxies {
        /// The proxies' addresses.
        networks: Arc<[Network]>,
        /// Whether the proxies also decide which traces are exported. Otherwise only the ids are
        /// taken over: behind a proxy that passes on its clients' headers, any client could have
        /// everything exported.
        decide: bool,
    },
}

impl TraceSource {
    /// The source that the gateway trusts: the configured proxies.
    #[must_use]
    pub fn of_gateway(config: &Config) -> Self {
        Self::Proxies {
            networks: config.trusted_proxies.clone().into(),
            decide: config.traces.sampling == Sampling::Proxy,
        }
    }

    /// The request's trace context, if its sender is trusted.
    fn believed(&self, request: &Request) -> Option<TraceContext> {
        let from = |headers: &HeaderMap| {
            headers.get(TRACEPARENT)?.to_str().ok()?.parse::<TraceContext>().ok()
        };
        match self {
            Self::Nobody => None,
            Self::Gateway => from(request.headers()),
            Self::Proxies { networks, decide } => {
                let context = from(request.headers())?;
                let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
                is_trusted(peer.ip().to_canonical(), networks)
                    .then_some(TraceContext { sampled: context.sampled && *decide, ..context })
            }
        }
    }
}

/// A request's span and trace.
pub(super) struct RequestSpan {
    /// The span of the request's log lines, if it is exported. It has the highest level, so that
    /// lines of every level carry it.
    pub(super) span: Span,
    /// `None` when traces are neither logged nor exported.
    pub(super) context: Option<TraceContext>,
    /// `None` when the span is not exported.
    pub(super) exporter: Option<&'static dyn Exporter>,
}

impl RequestSpan {
    pub(super) fn begin(request: &Request, request_id: &str, source: &TraceSource) -> Self {
        if !trace::wanted() {
            return Self { span: Span::none(), context: None, exporter: None };
        }
        let incoming = source.believed(request);
        let decided =
            incoming.filter(|_| matches!(source, TraceSource::Proxies { decide: true, .. }));
        let exporter = match decided {
            Some(incoming) => trace::exporter().filter(|_| incoming.sampled),
            None if NOT_EXPORTED.contains(&request.uri().path()) => None,
            None => trace::sample(),
        };
        if let Some(exporter) = exporter {
            let empty = tracing::field::Empty;
            let span = tracing::error_span!(target: TARGET, "request", request_id, trace_id = empty, span_id = empty);
            if let Some(incoming) = incoming {
                exporter.continues(&span, incoming);
            }
            if let Some(context) = exporter.context(&span) {
                span.record("trace_id", context.trace_id_text())
                    .record("span_id", context.span_id_text());
                return Self { span, context: Some(context), exporter: Some(exporter) };
            }
        }
        let context = trace::unexported(incoming);
        Self { span: Span::none(), context: Some(context), exporter: None }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn request(peer: &str, traceparent: &str) -> Request {
        let peer = ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4711));
        Request::get("/")
            .header(TRACEPARENT, traceparent)
            .extension(peer)
            .body(Body::empty())
            .unwrap()
    }

    fn proxies(sampling: &str) -> TraceSource {
        let set = [("TRUSTED_PROXIES", "10.0.0.0/8"), ("TRACES__SAMPLING", sampling)];
        let env = set.map(|(name, value)| (format!("FLASHSALE_{name}"), value.to_owned()));
        TraceSource::of_gateway(&Config::load(None, env, []).unwrap())
    }

    #[test]
    fn only_trusted_proxies_say_which_trace_it_is_and_none_what_is_exported() {
        let source = proxies("own");
        let believed = source.believed(&request("10.0.0.1", GIVEN)).unwrap();
        assert_eq!(believed.to_string(), GIVEN.replace("-01", "-00"));
        assert_eq!(source.believed(&request("::ffff:10.0.0.1", GIVEN)), Some(believed));
        assert_eq!(source.believed(&request("192.0.2.1", GIVEN)), None);
        assert_eq!(source.believed(&request("10.0.0.1", "00-4bf9")), None);
        assert_eq!(
            source.believed(
                &Request::get("/").header(TRACEPARENT, GIVEN).body(Body::empty()).unwrap()
            ),
            None,
            "from nowhere"
        );
    }

    #[test]
    fn proxies_decide_where_the_operator_says_so() {
        let source = proxies("proxy");
        assert_eq!(source.believed(&request("10.0.0.1", GIVEN)), Some(GIVEN.parse().unwrap()));
        assert_eq!(source.believed(&request("192.0.2.1", GIVEN)), None);
    }

    #[test]
    fn a_function_believes_its_gateway_and_other_ports_nobody() {
        let given = request("192.0.2.1", GIVEN);
        assert_eq!(TraceSource::Gateway.believed(&given), Some(GIVEN.parse().unwrap()));
        assert_eq!(TraceSource::Nobody.believed(&given), None);
    }
}
