//! The HTTP client of adapters that call a service of the operator or of a provider.

use std::{error::Error, time::Duration};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use lambda_http::http::{Request, Response, Uri};

/// Idle connections are closed after this.
const IDLE: Duration = Duration::from_secs(60);

/// Sends requests to one service. It follows no redirection and repeats nothing.
#[derive(Debug)]
pub(super) enum HttpClient {
    /// `http`.
    Plain(Client<HttpConnector, Full<Bytes>>),
    /// `https`, with the certificates that this machine trusts.
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// Why a service can't be called. The text continues the name of the setting that holds the address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The address is wrong.
    #[error("expected an http or https address")]
    Url,
    /// Certificates can't be checked.
    #[error("the certificates of this machine can't be read: {0}")]
    Certificates(#[from] std::io::Error),
}

impl HttpClient {
    /// A client for the address, which keeps at most `idle_max` idle connections. No connection is
    /// made before the first request.
    ///
    /// # Errors
    /// When the address is not one of HTTP, or this machine's certificates can't be read.
    pub(super) fn for_address(url: &str, idle_max: usize) -> Result<(Self, Uri), AddressError> {
        let uri: Uri = url.parse().map_err(|_| AddressError::Url)?;
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(idle_max);
        let client = match uri.scheme_str() {
            Some("http") => Self::Plain(builder.build(HttpConnector::new())),
            Some("https") => {
                let connector = HttpsConnectorBuilder::new()
                    .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?;
                Self::Tls(builder.build(connector.https_only().enable_http1().build()))
            }
            _ => return Err(AddressError::Url),
        };
        Ok((client, uri))
    }

    /// Sends a request.
    pub(super) async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
        }
    }
}

/// The error with its causes, which the text of hyper's errors leaves out. None of them repeats the
/// request.
pub(super) fn with_causes(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
