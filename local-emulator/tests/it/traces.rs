//! Traces: the ids in the log lines of every build, and the export of a build with the feature
//! `otlp`.

use axum::body::Body;
use hyper::Request;
use serde_json::{Value, json};

use crate::{
    client::{Answer, Client},
    emulator::Place,
    shop::follow,
};

const GIVEN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Requests a ticket, then an order with this `traceparent`; returns the order's id and the ticket.
async fn buy(
    client: &Client,
    sale: &str,
    token: &str,
    traceparent: Option<&str>,
) -> (String, String) {
    let ticket = client
        .post(&format!("/api/sales/{sale}/tickets"), Some(token), json!({}))
        .await
        .expect(201)
        .text("ticket");
    let mut request = Request::post(format!("{}/api/sales/{sale}/orders", client.base))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json");
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let body = Body::from(json!({ "ticket": ticket }).to_string());
    let answer: Answer = client.raw(request.body(body).unwrap()).await.unwrap().expect(202);
    let order = answer.text("order_id");
    assert_eq!(follow(std::slice::from_ref(client), &order, token).await, "confirmed");
    (order, ticket)
}

/// The JSON lines of the log.
fn lines(place: &Place) -> Vec<Value> {
    // Lines from before logging starts, or from other programs, are not JSON.
    place.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The ids of the traces in the lines about the request for an order, and in the order worker's
/// line about this order.
fn logged(place: &Place, order: &str) -> (Vec<String>, Vec<String>) {
    let lines = lines(place);
    let text = |line: &Value, field: &str| {
        line[field].as_str().unwrap_or_else(|| panic!("no {field} in {line}")).to_owned()
    };
    let of_request = lines.iter().filter(|line| {
        line["message"] == "answered" && line["path"].as_str().unwrap().ends_with("/orders")
    });
    let of_request = of_request.map(|line| {
        assert_eq!(
            (text(line, "span_id").len(), line["request_id"].is_string()),
            (16, true),
            "{line}"
        );
        text(line, "trace_id")
    });
    let of_worker =
        lines.iter().filter(|line| line["message"] == "recorded" && line["order_id"] == order);
    (of_request.collect(), of_worker.map(|line| text(line, "trace_id")).collect())
}

fn logging(place: Place) -> Place {
    place.set("LOG_FORMAT", "json").with_log("info,flashsale=debug")
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_of_a_request_and_of_the_worker_carry_one_trace_id() {
    let place = logging(Place::embedded());
    let (tokens, sale) = (place.seed(1), place.sale(1));
    let emulator = place.start(&["--no-demo"]);
    // An untrusted client's `traceparent` is ignored.
    let (order, _) = buy(&emulator.client, &sale, &tokens[0], Some(GIVEN)).await;
    emulator.stop();
    let (request, worker) = logged(&place, &order);
    assert_eq!(request.len(), 1);
    assert_eq!(request, worker);
    assert!(request[0].len() == 32 && request[0] != GIVEN[3..35], "{request:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_says_which_trace_it_is() {
    let place = logging(Place::embedded()).set("TRUSTED_PROXIES", "127.0.0.1/32");
    let (tokens, sale) = (place.seed(1), place.sale(1));
    let emulator = place.start(&["--no-demo"]);
    let (order, _) = buy(&emulator.client, &sale, &tokens[0], Some(GIVEN)).await;
    emulator.stop();
    assert_eq!(
        logged(&place, &order),
        (vec![GIVEN[3..35].to_owned()], vec![GIVEN[3..35].to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn processes_of_functions_log_the_gateway_s_trace() {
    let place = logging(Place::processes());
    let (tokens, sale) = (place.seed(1), place.sale(1));
    let emulator = place.start(&["--no-demo"]);
    let (order, _) = buy(&emulator.client, &sale, &tokens[0], Some(GIVEN)).await;
    emulator.stop();
    let (request, worker) = logged(&place, &order);
    assert_eq!(request.len(), 2, "the gateway's line and the function's");
    assert!(request[0] == request[1] && request[0] != GIVEN[3..35], "{request:?}");
    assert_eq!(worker, request[..1]);
}

#[cfg(feature = "otlp")]
mod exported {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
        time::{Duration, Instant},
    };

    use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        common::v1::any_value::Value as Attribute,
        trace::v1::{Span, span::SpanKind},
    };
    use prost::Message as _;

    use super::*;

    /// A collector that accepts spans, or one that accepts requests and never answers.
    struct Collector {
        address: String,
        taken: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    }

    impl Collector {
        async fn start(answers: bool) -> Self {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = format!("http://{}", listener.local_addr().unwrap());
            let taken = Arc::<Mutex<Vec<_>>>::default();
            let taking = Arc::clone(&taken);
            let take = move |headers: HeaderMap, body: Bytes| async move {
                assert_eq!(headers["content-type"], "application/x-protobuf");
                assert_eq!(headers["x-key"], "geheim");
                taking.lock().unwrap().push(ExportTraceServiceRequest::decode(body).unwrap());
                if !answers {
                    std::future::pending::<()>().await;
                }
            };
            let router = Router::new().route("/v1/traces", post(take));
            tokio::spawn(async move {
                let builder = hyper::server::conn::http1::Builder::new();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let service = hyper_util::service::TowerToHyperService::new(router.clone());
                    tokio::spawn(
                        builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service),
                    );
                }
            });
            Self { address, taken }
        }

        /// A `Place` whose emulators send their traces to this collector.
        fn place(&self, per_million: &str) -> Place {
            logging(Place::embedded())
                .set("TRACES__ENDPOINT", &self.address)
                .set("TRACES__HEADERS", "x-key=geheim")
                .set("TRACES__SAMPLED_PER_MILLION", per_million)
                .set("TRACES__BATCH_WAIT_MS", "50")
        }

        fn spans(&self) -> Vec<Span> {
            let taken = self.taken.lock().unwrap();
            let scopes = taken
                .iter()
                .flat_map(|request| &request.resource_spans)
                .flat_map(|resource| &resource.scope_spans);
            scopes.flat_map(|scope| scope.spans.iter().cloned()).collect()
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn attribute(span: &Span, key: &str) -> String {
        let found = span
            .attributes
            .iter()
            .find(|attribute| attribute.key == key)
            .and_then(|attribute| attribute.value.clone()?.value);
        match found {
            Some(Attribute::StringValue(text)) => text,
            Some(Attribute::IntValue(number)) => number.to_string(),
            other => panic!("{key}: {other:?} in {span:?}"),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_purchase_is_one_trace_from_the_request_to_the_ledger() {
        let collector = Collector::start(true).await;
        let place = collector.place("1000000");
        let (tokens, sale) = (place.seed(1), place.sale(1));
        let emulator = place.start(&["--no-demo"]);
        let client = &emulator.client;
        // Secrets and personal data must not be exported, wherever a client puts them.
        const PHONE: &str = "+12015550147";
        const PASSWORD: &str = "a very secret password";
        const ANSWER: &str = "k7vqz";
        let captcha = json!({ "phone": PHONE, "password": PASSWORD, "captcha_id": sale, "captcha_answer": ANSWER });
        client.post("/api/users", None, captcha).await.expect(201);
        let signed_in = client
            .post("/api/sessions", None, json!({ "phone": PHONE, "password": PASSWORD }))
            .await
            .expect(201);
        client.get(&format!("/api/{}?phone={PHONE}", tokens[0]), None).await.expect(404);
        let (order, ticket) = buy(client, &sale, &tokens[0], Some(GIVEN)).await;
        // Wait for the worker and a sweep.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        emulator.stop();

        let spans = collector.spans();
        let named = |name: &str, trace: &[u8]| {
            let mut found = spans.iter().filter(|span| span.name == name && span.trace_id == trace);
            let span = found
                .next()
                .unwrap_or_else(|| panic!("no span {name} of {} in {spans:#?}", hex(trace)));
            assert!(found.next().is_none(), "{name} twice");
            span
        };
        let request = spans
            .iter()
            .find(|span| span.name == "POST /api/sales/{sale_id}/orders")
            .expect("the request's span");
        let trace = request.trace_id.as_slice();
        assert!(
            request.parent_span_id.is_empty(),
            "an untrusted traceparent is not the parent: {request:?}"
        );
        assert_eq!(request.kind(), SpanKind::Server);
        for (key, value) in [
            ("http.request.method", "POST"),
            ("http.route", "/api/sales/{sale_id}/orders"),
            ("http.response.status_code", "202"),
            ("faas.name", "seckill"),
        ] {
            assert_eq!(attribute(request, key), value);
        }
        for (name, kind) in
            [("checkout.reserve", SpanKind::Client), ("orders.publish", SpanKind::Producer)]
        {
            let step = named(name, trace);
            assert_eq!((step.kind(), &step.parent_span_id), (kind, &request.span_id), "{step:?}");
            assert!(
                step.start_time_unix_nano >= request.start_time_unix_nano
                    && step.end_time_unix_nano <= request.end_time_unix_nano
            );
        }
        let publish = named("orders.publish", trace);
        let process = named("process order", trace);
        assert_eq!(
            (process.kind(), &process.parent_span_id),
            (SpanKind::Consumer, &publish.span_id)
        );
        assert_eq!(
            (attribute(publish, "flashsale.order_id"), attribute(process, "flashsale.order_id")),
            (order.clone(), order.clone())
        );
        for name in ["ledger.record", "admission.settle"] {
            let step = named(name, trace);
            assert_eq!(
                (step.kind(), &step.parent_span_id),
                (SpanKind::Client, &process.span_id),
                "{step:?}"
            );
        }
        assert!(
            named("ledger.record", trace).end_time_unix_nano
                <= named("admission.settle", trace).start_time_unix_nano
        );

        // The batch has a trace of its own, linked to those of its orders.
        let batch =
            spans.iter().find(|span| span.name == "record orders").expect("the batch's span");
        assert!(batch.trace_id != request.trace_id && batch.parent_span_id.is_empty());
        assert_eq!(
            batch.links.iter().map(|link| (&link.trace_id, &link.span_id)).collect::<Vec<_>>(),
            [(&request.trace_id, &publish.span_id)]
        );
        assert!(process.links.iter().any(|link| link.span_id == batch.span_id));
        assert_eq!(named("ledger.record", &batch.trace_id).parent_span_id, batch.span_id);
        let sweep = spans.iter().find(|span| span.name == "sweep").expect("a sweep");
        assert_eq!(named("return stock", &sweep.trace_id).parent_span_id, sweep.span_id);

        // Log lines name the same trace.
        assert_eq!(logged(&place, &order), (vec![hex(trace)], vec![hex(trace)]));
        let answered = lines(&place)
            .into_iter()
            .find(|line| line["trace_id"] == hex(trace) && line["message"] == "answered")
            .unwrap();
        assert_eq!(answered["span_id"], hex(&request.span_id));

        let all = format!("{:?}", collector.taken.lock().unwrap());
        assert!(all.contains("POST /api/users") && all.contains("service.instance.id"), "{all}");
        let session = signed_in.text("token");
        let secrets =
            [tokens[0].as_str(), &ticket, &session, PASSWORD, ANSWER, "geheim", "2015550147"];
        for secret in secrets {
            assert!(!all.contains(secret), "{secret} in {all}");
        }
        // The attributes that are meant to be there, and no others.
        let keys: BTreeSet<&str> = spans
            .iter()
            .flat_map(|span| &span.attributes)
            .map(|attribute| attribute.key.as_str())
            .collect();
        let meant = [
            "faas.name",
            "flashsale.order_id",
            "flashsale.orders",
            "flashsale.sales",
            "http.request.method",
            "http.response.status_code",
            "http.route",
            "request_id",
        ];
        assert_eq!(keys, BTreeSet::from(meant));
        assert!(spans.iter().all(|span| span.events.is_empty()), "log lines are not exported");
    }

    /// Buys with a `traceparent` that requests sampling; returns the ids of the exported traces,
    /// and the order's log lines.
    async fn asked_for(
        place: Place,
        collector: &Collector,
    ) -> (BTreeSet<String>, (Vec<String>, Vec<String>)) {
        let (tokens, sale) = (place.seed(1), place.sale(1));
        let emulator = place.start(&["--no-demo"]);
        let (order, _) = buy(&emulator.client, &sale, &tokens[0], Some(GIVEN)).await;
        emulator.stop();
        let traces = collector.spans().iter().map(|span| hex(&span.trace_id)).collect();
        (traces, logged(&place, &order))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nobody_outside_decides_what_is_exported() {
        let given = GIVEN[3..35].to_owned();
        let collector = Collector::start(true).await;
        // An untrusted client does not decide, nor does a header that a proxy may have passed on.
        let (exported, (request, _)) = asked_for(collector.place("0"), &collector).await;
        assert!(exported.is_empty() && request[0] != given, "{exported:?}");
        let trusting =
            |collector: &Collector| collector.place("0").set("TRUSTED_PROXIES", "127.0.0.1/32");
        let (exported, logged) = asked_for(trusting(&collector), &collector).await;
        assert!(exported.is_empty(), "{exported:?}");
        assert_eq!(logged, (vec![given.clone()], vec![given.clone()]));
        // The header decides only if the operator has configured that the proxy does.
        let (exported, _) =
            asked_for(trusting(&collector).set("TRACES__SAMPLING", "proxy"), &collector).await;
        assert!(
            exported.contains(&given) && exported.len() == 2,
            "the request's trace and its batch's: {exported:?}"
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_never_answers_holds_nothing_up() {
        const REQUESTS: usize = 100;
        let collector = Collector::start(false).await;
        for (timeout_ms, lines_about_it) in [("100", 2), ("60000", 1)] {
            let place = collector
                .place("1000000")
                .set("TRACES__TIMEOUT_MS", timeout_ms)
                .set("TRACES__SPANS_WAITING_MAX", "20")
                .set("TRACES__BATCH_SPANS_MAX", "5");
            let (tokens, sale) = (place.seed(1), place.sale(1));
            let emulator = place.start(&["--no-demo"]);
            let mut slowest = Duration::ZERO;
            for _ in 0..REQUESTS {
                let begun = Instant::now();
                emulator.client.get(&format!("/api/sales/{sale}"), None).await.expect(200);
                slowest = slowest.max(begun.elapsed());
            }
            buy(&emulator.client, &sale, &tokens[0], None).await;
            // The collector hangs for much longer than this; the margin is for a busy machine.
            assert!(slowest < Duration::from_secs(5), "{slowest:?}");
            tokio::time::sleep(Duration::from_millis(500)).await;
            emulator.stop();
            let said: Vec<Value> = lines(&place)
                .into_iter()
                .filter(|line| line.to_string().contains("spans are lost"))
                .collect();
            // One line says that the queue of spans is full and, after the timeout, another says
            // why; neither is repeated within the minute.
            assert_eq!(said.len(), lines_about_it, "{said:#?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_down_is_named_once() {
        let place = logging(Place::embedded())
            .set("TRACES__ENDPOINT", "http://127.0.0.1:9")
            .set("TRACES__SAMPLED_PER_MILLION", "1000000")
            .set("TRACES__BATCH_WAIT_MS", "20");
        let (tokens, sale) = (place.seed(1), place.sale(1));
        let emulator = place.start(&["--no-demo"]);
        buy(&emulator.client, &sale, &tokens[0], None).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        emulator.stop();
        let said: Vec<Value> = lines(&place)
            .into_iter()
            .filter(|line| line.to_string().contains("spans are lost"))
            .collect();
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(said[0]["error"].as_str().unwrap().contains("refused"), "{said:?}");
    }
}
