//! The gateway: takes HTTP connections and hands each request to the function whose route it is.
//!
//! How the request gets from here to the function is the [`Host`]'s affair.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo};
use flashsale::http;
use hyper::{Request, body::Incoming};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tower::ServiceExt as _;

use crate::{health, host::Host, live, metrics, openapi, pages};

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 20_000;
/// A connection must send its request head within this time, so that idle ones can't pile up.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may take to end at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(3_500);

/// Everything the public port answers.
pub fn public(host: &Host, draining: &watch::Receiver<bool>) -> Router {
    let functions = host.router().layer(axum::middleware::from_fn(metrics::count));
    let config = &host.app().config;
    let pages = pages::router(config).merge(openapi::router()).merge(live::router(host.app(), draining));
    http::finish(functions.merge(pages).merge(health::router(host, draining)))
}

/// Serves until `stop` turns true, then lets requests under way end.
pub async fn serve(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).pipeline_flush(true);
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit.expect("the semaphore is never closed"),
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let router = router.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ConnectInfo(peer));
            router.clone().oneshot(request)
        });
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, %peer, "connection");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("requests still under way were cut off");
    }
}

/// The next connection. Running out of file descriptors passes, and must not end the server.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Small answers must not wait for an acknowledgement. Without it they are only slower.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "nodelay");
                }
                return (stream, peer);
            }
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
