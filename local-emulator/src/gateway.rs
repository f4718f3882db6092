//! The gateway: takes HTTP connections and hands each request to the function whose route it is.
//!
//! [`Host`] decides how a request reaches its function.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::ConnectInfo,
    middleware::{from_fn, from_fn_with_state},
};
use flashsale::{
    http::{self, TraceSource},
    trace,
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
    requests::{self, Requests},
    traces,
};

/// The buffer of a connection in each direction, for a request's head and for unread answers.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long requests in progress may take to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(3_500);

/// Everything the public port answers.
pub fn public(host: &Host, health: &Health, draining: &watch::Receiver<bool>) -> Router {
    let mut functions =
        host.router().layer(from_fn_with_state(Requests::new(host), requests::count));
    if trace::exporter().is_some() {
        // Only if needed, because a layer costs each request an allocation.
        functions = functions.layer(from_fn(traces::name));
    }
    let config = &host.app().config;
    let pages =
        pages::router(config).merge(openapi::router()).merge(live::router(host.app(), draining));
    let all = functions.merge(pages).merge(health::router(health));
    draining::watched(http::finish(all, TraceSource::of_gateway(config)), draining)
}

/// Serves until `stop` turns true, then lets requests in progress end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Arc<Connections>,
    idle_timeout: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let graceful = GracefulShutdown::new();
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
        let (router, requests) = (router.clone(), permit.requests());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let active = requests();
            let mut request = request.map(|body| active.request_body(body));
            request.extensions_mut().insert(ConnectInfo(peer));
            let answer = router.clone().oneshot(request);
            async move { answer.await.map(|answer| answer.map(|body| active.response_body(body))) }
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
