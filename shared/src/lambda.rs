//! The `main` of every function: reads the environment, connects, and handles Lambda's events.

use std::sync::Arc;

use axum::body::Body as AxumBody;
use lambda_http::{Body, Request, lambda_runtime, service_fn};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    app::App,
    config::Config,
    http::{self, Routes, TraceSource, endpoints::Endpoints},
    logging,
    wire::{self, Program},
};

/// An error that ends a function.
pub type Error = lambda_http::Error;

/// Serves an HTTP function (API Gateway HTTP API or function URL, payload version 2).
///
/// # Errors
/// When the configuration is bad or the Runtime API fails.
pub async fn serve(program: Program, endpoints: Endpoints) -> Result<(), Error> {
    let app = start(program).await?;
    let routes = Arc::new(endpoints.routes(&app));
    let ended = lambda_http::run_concurrent(service_fn(move |request: Request| {
        answer(Arc::clone(&routes), request)
    }))
    .await;
    app.ports.source.close().await;
    ended
}

/// Serves an event function.
///
/// # Errors
/// As [`serve`].
pub async fn handle<E, T, F, Work>(program: Program, work: F) -> Result<(), Error>
where
    E: DeserializeOwned + Send + 'static,
    T: Serialize + Send + 'static,
    F: Fn(App, E) -> Work + Clone + Send + 'static,
    Work: Future<Output = Result<T, Error>> + Send + 'static,
{
    let app = start(program).await?;
    let worker = app.clone();
    let ended =
        lambda_runtime::run_concurrent(service_fn(move |event: lambda_runtime::LambdaEvent<E>| {
            work(worker.clone(), event.payload)
        }))
        .await;
    // Close cleanly: the server logs an error for a connection that just breaks off.
    app.ports.source.close().await;
    ended
}

/// A cold start contacts no server: a server that is down may not be needed for the coming
/// requests.
async fn start(program: Program) -> Result<App, Error> {
    let config = Config::load(None, Config::environment(), [])?;
    logging::start(&config)?;
    let ports = wire::connect_for(&config, program).await?;
    Ok(App::new(config, ports)?)
}

/// The whole body is read first: a Lambda response must be `Sync`, which axum's streaming body is
/// not.
async fn answer(
    routes: Arc<Routes>,
    request: Request,
) -> Result<lambda_http::Response<Body>, Error> {
    let request = request.map(|body| match body {
        Body::Text(text) => AxumBody::from(text),
        Body::Binary(bytes) => AxumBody::from(bytes),
        _ => AxumBody::empty(),
    });
    let answering = http::answer(&TraceSource::Gateway, request, |request| routes.answer(request));
    let response = answering.await;
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await?;
    let body = match String::from_utf8(bytes.into()) {
        Ok(text) => Body::Text(text),
        Err(binary) => Body::Binary(binary.into_bytes()),
    };
    Ok(lambda_http::Response::from_parts(parts, body))
}
