//! `/openapi.json`: the OpenAPI document of the HTTP functions, generated from their code.
//! `/explorer`: a viewer for it, Swagger UI, which can also try every operation.
//!
//! The viewer is served from this binary and loads nothing from elsewhere. Its page has no inline
//! script, so that its content security policy can forbid it.

use std::sync::LazyLock;

use axum::{
    Router,
    extract::Path,
    http::header,
    response::{IntoResponse, Response},
    routing::get,
};
use flashsale::{
    http::openapi::{describe, security},
    problem::Problem,
};
use hyper::body::Bytes;
use utoipa::openapi::{ExternalDocs, Info, OpenApi, OpenApiBuilder, Server, info::License};

use crate::lambda::HTTP_FUNCTIONS;

/// The viewer loads only from this origin; `data:` is for the pictures in the style sheet.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The viewer's files change only with the binary, but have the same names in each version.
const CACHED: &str = "max-age=3600";

const ABOUT: &str = "Bodies are JSON; unknown fields are refused. Refusals are `application/problem+json` (RFC 9457): the last \
part of `type` names the problem, and the address explains it. Money is an integer number of minor units. Times are RFC 3339. \
Every answer has an `X-Request-Id`. API.md says more, with examples.";

/// The document, generated at the first request.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let json =
        document().to_json().expect("what was built of strings and numbers can be written as JSON");
    Bytes::from(json)
});

pub fn router() -> Router {
    Router::new()
        .route("/openapi.json", get(json))
        .route("/explorer", get(page))
        .route("/explorer/{file}", get(file))
}

/// The document of all functions.
pub fn document() -> OpenApi {
    let mut info = Info::new("flashsale", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
    info.license = Some(License::new(env!("CARGO_PKG_LICENSE")));
    let mut document = OpenApiBuilder::new().info(info).servers(Some([Server::new("/")])).build();
    document.external_docs = Some(ExternalDocs::new("/problems"));
    security(&mut document);
    for function in &HTTP_FUNCTIONS {
        describe(&mut document, &(function.endpoints)());
    }
    document
}

async fn json() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    (headers, include_str!("openapi/viewer/index.html")).into_response()
}

async fn file(Path(name): Path<String>) -> Response {
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    let packed = |kind: &'static str, bytes: &'static [u8]| {
        // Stored compressed, which every browser accepts: the binary stays small, and no CPU time
        // goes into compression during a sale.
        (
            [
                (header::CONTENT_TYPE, kind),
                (header::CONTENT_ENCODING, "gzip"),
                (header::CACHE_CONTROL, CACHED),
            ],
            bytes,
        )
            .into_response()
    };
    match name.as_str() {
        "start.js" => ([(header::CONTENT_TYPE, SCRIPT)], include_str!("openapi/viewer/start.js"))
            .into_response(),
        "swagger-ui-bundle.js" => {
            packed(SCRIPT, include_bytes!("openapi/viewer/swagger-ui-bundle.js.gz"))
        }
        "swagger-ui.css" => {
            packed("text/css; charset=utf-8", include_bytes!("openapi/viewer/swagger-ui.css.gz"))
        }
        _ => Problem::NotFound.into_response(),
    }
}
