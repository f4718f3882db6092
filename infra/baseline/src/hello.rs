//! The least that an axum server can do.

use axum::{Router, routing::any};
use tokio::net::TcpListener;

pub async fn serve(address: &str) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    crate::say(&format!("listening on http://{}", listener.local_addr()?))?;
    Ok(axum::serve(listener, Router::new().fallback(any(|| async { "hello" }))).await?)
}
