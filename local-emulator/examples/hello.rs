//! The least that an axum server can do: what `infra/bench` compares the product with.

use axum::{Router, routing::any};

#[tokio::main]
async fn main() -> Result<(), std::io::Error> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8090".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    axum::serve(listener, Router::new().fallback(any(|| async { "hello" }))).await
}
