//! The gateway: takes HTTP connections and hands each request to the function whose route it is.
//!
//! [`Host`] decides how a request reaches its function.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body, extract::ConnectInfo, response::Response};
use flashsale::{
    config::Network,
    http::{self, Found, Routes, TraceSource},
    trace::{self, TraceContext},
};
use hyper::{Request, body::Incoming};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tower::ServiceExt as _;

use crate::{
    connections::Connections,
    draining,
    health::{self, Health},
    host::Host,
    live, openapi, pages,
    refusals::{self, REFUSALS},
    requests::Requests,
};

/// A request, its body read as it comes.
type HttpRequest = Request<Body>;

/// The buffer of a connection in each direction, for a request's head and for unread answers.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long requests in progress may take to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(3_500);

/// What a listener answers.
pub trait Answers: Send + Sync + 'static {
    /// Answers a request.
    fn answer(&self, request: HttpRequest) -> impl Future<Output = Response> + Send;
}

impl Answers for Router {
    async fn answer(&self, request: HttpRequest) -> Response {
        let Ok(response) = self.clone().oneshot(request).await;
        response
    }
}

/// Everything the public port answers: the functions, and beside them pages, documents and health.
///
/// What is done for every request is called here as functions. Layers of a router would box a
/// future each.
pub struct Gateway {
    functions: Routes,
    requests: Requests,
    others: Router,
    source: TraceSource,
    trusted_proxies: Vec<Network>,
    draining: watch::Receiver<bool>,
}

impl Gateway {
    /// The gateway of a host's functions.
    pub fn new(host: &Host, health: &Health, draining: &watch::Receiver<bool>) -> Self {
        let config = &host.app().config;
        let others = pages::router(config)
            .merge(openapi::router())
            .merge(live::router(host.app(), draining))
            .merge(health::router(health));
        Self {
            functions: host.http_routes(),
            requests: Requests::new(host),
            others: http::problems(others),
            source: TraceSource::of_gateway(config),
            trusted_proxies: config.trusted_proxies.clone(),
            draining: draining.clone(),
        }
    }

    async fn route(&self, request: HttpRequest) -> Response {
        match self.functions.find(request.uri().path()) {
            Some(found) => self.call(found, request).await,
            // Boxed, because it is larger than a call of a function and every connection has room
            // for the larger of the two.
            None => Box::pin(self.others.answer(request)).await,
        }
    }

    /// The client's address; `None` when the request will be refused because it can't be read.
    fn client(&self, request: &HttpRequest) -> Option<IpAddr> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
        http::client_address(peer.ip(), request.headers(), &self.trusted_proxies).ok()
    }

    /// Calls a function and counts the request.
    async fn call(&self, found: Found<'_>, request: HttpRequest) -> Response {
        let (begun, route, method) = (Instant::now(), found.index(), request.method().clone());
        let traced = trace::exporter().is_some()
            && request.extensions().get::<TraceContext>().is_some_and(|context| context.sampled);
        let client = if REFUSALS.are_watched() { self.client(&request) } else { None };
        let mut response = found.answer(request).await;
        self.requests.count(route, &method, &response, begun.elapsed());
        if let Some(client) = client.filter(|_| response.status().is_client_error()) {
            // Boxed, because it happens only while somebody watches.
            response = Box::pin(refusals::observe(response, client)).await;
        }
        if traced && let Some((function, pattern)) = self.requests.names(route) {
            let (function, pattern) = (function.to_owned(), pattern.to_owned());
            response.extensions_mut().insert(trace::Route { function, pattern });
        }
        response
    }
}

impl Answers for Gateway {
    async fn answer(&self, request: HttpRequest) -> Response {
        draining::answer(&self.draining, request, |request| {
            http::answer(&self.source, request, |request| self.route(request))
        })
        .await
    }
}

/// Serves until `stop` turns true, then lets requests in progress end.
pub async fn serve(
    listener: TcpListener,
    answers: impl Answers,
    connections: Arc<Connections>,
    idle_timeout: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let (graceful, answers) = (GracefulShutdown::new(), Arc::new(answers));
    let mut builder = hyper::server::conn::http1::Builder::new();
    // The timeout for a request's head starts with the connection or the end of the last answer, so
    // it is the idle timeout too.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(idle_timeout)
        .pipeline_flush(true)
        .max_buf_size(BUFFER_BYTES_MAX);
    loop {
        let admitted = async {
            let (stream, peer) = accept(&listener, &connections).await;
            (connections.admit(peer.ip()).await, stream, peer)
        };
        let (permit, stream, peer) = tokio::select! {
            admitted = admitted => admitted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let Some(permit) = permit else { continue };
        let (answers, requests) = (Arc::clone(&answers), permit.requests());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let active = requests();
            let mut request = request.map(|body| active.request_body(body));
            request.extensions_mut().insert(ConnectInfo(peer));
            let answers = Arc::clone(&answers);
            async move {
                let answer = answers.answer(request).await;
                Ok::<_, Infallible>(answer.map(|body| active.response_body(body)))
            }
        });
        let connection = graceful
            .watch(builder.serve_connection(TokioIo::new(permit.with_timeout(stream)), service));
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = connection => ended,
                () = permit.displaced() => Ok(()),
            };
            if let Err(error) = ended {
                tracing::debug!(%error, %peer, "connection");
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests in progress were cut off");
    }
}

/// The next connection. Running out of file descriptors is temporary, and must not end the server.
async fn accept(listener: &TcpListener, connections: &Connections) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "accept");
                connections.close_idlest();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
