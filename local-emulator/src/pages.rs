//! The few pages there are: a greeting, and one page per problem.

use axum::{
    Router,
    extract::Path,
    http::header,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use flashsale::problem::{EXPLAINED, Problem};

/// Only what stands in the page itself; no script.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

pub fn router() -> Router {
    Router::new().route("/", get(home)).route("/problems", get(problems)).route("/problems/{slug}", get(problem))
}

async fn home() -> Response {
    page(
        "flashsale",
        "<p>The service runs. Its interface is JSON over HTTP under <code>/api</code>; begin with \
         <a href=\"/api/sales\">/api/sales</a>. Refusals are explained under <a href=\"/problems\">/problems</a>.</p>",
    )
}

async fn problems() -> Response {
    let rows: String = EXPLAINED
        .iter()
        .map(|line| format!("<li><a href=\"/problems/{slug}\">{slug}</a> ({}): {}</li>", line.status, line.title, slug = line.slug))
        .collect();
    page("Problems", &format!("<ul>{rows}</ul>"))
}

async fn problem(Path(slug): Path<String>) -> Response {
    match EXPLAINED.iter().find(|line| line.slug == slug) {
        Some(line) => page(line.title, &format!("<p><code>{}</code>, status {}</p><p>{}</p>", line.slug, line.status, line.meaning)),
        None => Problem::NotFound.into_response(),
    }
}

/// The texts are our own constants, so nothing needs escaping but what they hold themselves: backticks are harmless.
fn page(title: &str, body: &str) -> Response {
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>body{{font:1rem/1.5 system-ui;max-width:40rem;margin:2rem auto;padding:0 1rem}}</style></head>\
         <body><h1>{title}</h1>{body}</body></html>"
    );
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(html)).into_response()
}
