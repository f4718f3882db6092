//! Sends spans to a collector by OTLP/HTTP. The SDK's own thread sends them, so that no request
//! waits for the collector. At most `traces.spans_waiting_max` spans are queued; further ones are
//! dropped.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use flashsale::{
    config::Config,
    logging::{OncePerMinute, SpanLayer},
    trace::{self, Answered, Exporter, STEP, TARGET, TraceContext},
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connect, HttpConnector},
    },
    rt::TokioExecutor,
};
use opentelemetry::{
    KeyValue, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, TracerProvider as _},
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, Span as SdkSpan,
        SpanData, SpanExporter, SpanProcessor,
    },
};
use tokio::runtime::Handle;
use tracing::{Span, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{Layer as _, filter::dynamic_filter_fn};

use crate::requests;

/// Timeout for sending the last spans at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Upper bound of a collector's answer, which is usually a few bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Attributes for log lines only: a span has these ids anyway.
const LOGGED_ONLY: [&str; 2] = ["trace_id", "span_id"];

/// Sends spans until it is closed.
pub struct Sender(SdkTracerProvider);

/// Starts exporting, and returns the layer that receives the spans.
pub fn start(config: &Config) -> anyhow::Result<(SpanLayer, Sender)> {
    let settings = &config.traces;
    let waiting = Arc::new(AtomicUsize::new(0));
    let headers: HashMap<String, String> = settings
        .headers()?
        .iter()
        .map(|(name, value)| {
            (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        })
        .collect();
    let sending = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_shared_http_client(client(
            &settings.endpoint,
            Duration::from_millis(settings.timeout_ms),
        )?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", settings.endpoint.trim_end_matches('/')))
        .with_timeout(Duration::from_millis(settings.timeout_ms))
        .with_headers(headers)
        .build()
        .context("traces")?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.spans_waiting_max)
        .with_max_export_batch_size(settings.batch_spans_max)
        .with_scheduled_delay(Duration::from_millis(settings.batch_wait_ms))
        .build();
    let exporter = Counted { sending, waiting: Arc::clone(&waiting) };
    let batching = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(config))
        // Sampling happens earlier: no span is made for a request that is not exported.
        .with_sampler(Sampler::AlwaysOn)
        .with_span_processor(Bounded { batching, waiting, waiting_max: settings.spans_waiting_max })
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("flashsale"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false);
    // No events, because log lines are not exported. A step's span is made only within an exported
    // span.
    let wanted = dynamic_filter_fn(|metadata, context| {
        metadata.is_span()
            && (metadata.target() == TARGET
                || metadata.target() == STEP && context.lookup_current().is_some())
    });
    trace::install(Box::new(Otlp { sampled_per_million: settings.sampled_per_million }));
    Ok((
        Box::new(layer.with_filter(wanted.with_max_level_hint(LevelFilter::INFO))),
        Sender(provider),
    ))
}

/// The resource that sends. Like other OTEL_ variables for which this product has a setting,
/// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are not read.
fn resource(config: &Config) -> Resource {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let port = config.listen.rsplit_once(':').map_or("", |(_, port)| port);
    Resource::builder_empty()
        .with_service_name("flashsale")
        .with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", format!("{host}:{port}")),
            KeyValue::new("host.name", host),
        ])
        .build()
}

impl Sender {
    /// Sends the remaining spans. Spans that are not sent within a second are lost.
    pub async fn close(self) {
        let closing =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(CLOSE_TIMEOUT));
        match closing.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the last traces were not sent"),
            Err(error) => tracing::warn!(%error, "the last traces were not sent"),
        }
    }
}

/// Converts between our trace contexts and OpenTelemetry's.
#[derive(Debug)]
struct Otlp {
    sampled_per_million: u64,
}

impl Exporter for Otlp {
    fn samples(&self) -> bool {
        trace::random() % 1_000_000 < self.sampled_per_million
    }

    fn continues(&self, span: &Span, parent: TraceContext) {
        let parent = opentelemetry::Context::new().with_remote_span_context(otel(parent));
        if let Err(error) = span.set_parent(parent) {
            tracing::debug!(%error, "a span keeps to its own trace");
        }
    }

    fn context(&self, span: &Span) -> Option<TraceContext> {
        let context = span.context();
        let context = context.span().span_context().clone();
        let (trace_id, span_id) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        context.is_valid().then(|| TraceContext {
            trace_id: u128::from_be_bytes(trace_id),
            span_id: u64::from_be_bytes(span_id),
            sampled: context.is_sampled(),
        })
    }

    fn link(&self, span: &Span, other: TraceContext) {
        span.add_link(otel(other));
    }

    fn answered(&self, span: &Span, answered: &Answered<'_>) {
        let method = match requests::method(answered.method) {
            "OTHER" => "_OTHER",
            known => known,
        };
        let context = span.context();
        let span = context.span();
        span.set_attribute(KeyValue::new("http.request.method", method));
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(answered.status)));
        match answered.route {
            Some(route) => {
                span.update_name(format!("{method} {}", route.pattern));
                span.set_attribute(KeyValue::new("http.route", route.pattern.clone()));
                span.set_attribute(KeyValue::new("faas.name", route.function.clone()));
            }
            None => span.update_name(method),
        }
        if answered.status >= 500 {
            span.set_status(Status::error(""));
        }
    }
}

fn otel(context: TraceContext) -> SpanContext {
    let (trace_id, span_id) = (
        TraceId::from_bytes(context.trace_id.to_be_bytes()),
        SpanId::from_bytes(context.span_id.to_be_bytes()),
    );
    let flags = if context.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    SpanContext::new(trace_id, span_id, flags, true, TraceState::default())
}

/// Limits the number of queued spans, and logs when some are lost.
#[derive(Debug)]
struct Bounded {
    batching: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    waiting_max: usize,
}

impl SpanProcessor for Bounded {
    fn on_start(&self, span: &mut SdkSpan, context: &opentelemetry::Context) {
        self.batching.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        static FULL: OncePerMinute = OncePerMinute::new();
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.waiting_max {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            if let Some(left_out) = FULL.pass() {
                tracing::warn!(
                    left_out,
                    "spans are lost: the collector takes fewer than there are (traces.spans_waiting_max)"
                );
            }
            return;
        }
        self.batching.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batching.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batching.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batching.set_resource(resource);
    }
}

/// Takes the spans that are sent out of the count of queued ones.
#[derive(Debug)]
struct Counted {
    sending: opentelemetry_otlp::SpanExporter,
    waiting: Arc<AtomicUsize>,
}

impl SpanExporter for Counted {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        self.waiting.fetch_sub(batch.len(), Ordering::Relaxed);
        for span in &mut batch {
            span.attributes.retain(|attribute| !LOGGED_ONLY.contains(&attribute.key.as_str()));
            // The kind is set here because the usual field for it (`otel.kind`) would also appear
            // in the request's log lines.
            if span
                .attributes
                .iter()
                .any(|attribute| attribute.key.as_str() == "http.request.method")
            {
                span.span_kind = SpanKind::Server;
            }
        }
        self.sending.export(batch).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.sending.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.sending.set_resource(resource);
    }
}

/// hyper's client on the emulator's runtime; the SDK's thread has none.
#[derive(Debug)]
struct OnRuntime<C> {
    client: Client<C, Full<Bytes>>,
    runtime: Handle,
    timeout: Duration,
}

fn client(endpoint: &str, timeout: Duration) -> anyhow::Result<Arc<dyn HttpClient>> {
    let runtime = Handle::current();
    if !endpoint.starts_with("https:") {
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        return Ok(Arc::new(OnRuntime { client, runtime, timeout }));
    }
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .context("traces.endpoint: the certificates of this machine can't be read")?;
    let client =
        Client::builder(TokioExecutor::new()).build(connector.https_only().enable_http1().build());
    Ok(Arc::new(OnRuntime { client, runtime, timeout }))
}

#[async_trait::async_trait]
impl<C: Connect + Clone + std::fmt::Debug + Send + Sync + 'static> HttpClient for OnRuntime<C> {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        static LOST: OncePerMinute = OncePerMinute::new();
        let (client, timeout) = (self.client.clone(), self.timeout);
        // The whole request runs on the runtime, because a timeout can't be made outside it.
        let asking = async move {
            let asked = async {
                let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
                let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
                Ok::<_, HttpError>(Response::from_parts(parts, body))
            };
            tokio::time::timeout(timeout, asked).await
        };
        let outcome = match self.runtime.spawn(asking).await? {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(elapsed.into()),
        };
        let cause = match &outcome {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answers {}", response.status())),
            Err(error) => Some(chain(error.as_ref())),
        };
        if let Some(error) = cause
            && let Some(left_out) = LOST.pass()
        {
            tracing::warn!(
                error,
                left_out,
                "spans are lost: the collector (traces.endpoint) does not take them"
            );
        }
        outcome
    }
}

/// The error with its causes, which the text of hyper's errors leaves out.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
