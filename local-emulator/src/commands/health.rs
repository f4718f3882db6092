//! `health`: whether a running emulator is ready. For scripts and container health checks where
//! curl is not installed.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use anyhow::Context as _;
use axum::body::Body;
use http_body_util::{BodyExt as _, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::cli::{self, Arguments};

/// Larger than any answer of `/readyz`.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Prints the answer of `/readyz`. The exit code after any error is 1, because the emulator is not
/// known to be ready.
pub async fn run(
    arguments: &Arguments,
    address: Option<&str>,
    timeout_ms: u64,
) -> anyhow::Result<ExitCode> {
    let address = match address {
        Some(address) => Ok(address.to_owned()),
        None => configured(arguments),
    };
    let outcome = match address {
        Ok(address) => {
            match tokio::time::timeout(Duration::from_millis(timeout_ms), ask(&address)).await {
                Ok(answer) => answer.with_context(|| format!("http://{address}/readyz")),
                Err(_) => Err(anyhow::anyhow!(
                    "http://{address}/readyz: no answer within {timeout_ms} ms"
                )),
            }
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok((StatusCode::OK, body)) => {
            cli::say(&body)?;
            Ok(ExitCode::SUCCESS)
        }
        Ok((status, body)) => {
            cli::complain(&format!("not ready, {status}: {body}"));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            cli::complain(&format!("not ready: {error:#}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The address at which this machine reaches an emulator with the same settings.
fn configured(arguments: &Arguments) -> anyhow::Result<String> {
    let config = arguments.config()?;
    let listen = if config.admin_listen.is_empty() { &config.listen } else { &config.admin_listen };
    let mut address: SocketAddr = listen.parse().context("the configured address")?;
    anyhow::ensure!(
        address.port() != 0,
        "the configured port is 0: name the address that the emulator has printed"
    );
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() {
            [127, 0, 0, 1].into()
        } else {
            std::net::Ipv6Addr::LOCALHOST.into()
        });
    }
    Ok(address.to_string())
}

async fn ask(address: &str) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the process, if not before.
    tokio::spawn(connection);
    let request = Request::get("/readyz")
        .header(header::HOST, address)
        .header(header::CONNECTION, "close")
        .body(Body::empty())?;
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!(error))?
        .to_bytes();
    Ok((head.status, String::from_utf8_lossy(&body).trim().to_owned()))
}
