//! Code that all HTTP functions share: it declares endpoints, reads requests, writes answers and
//! problems, and adds the last layer of a router.

mod body;
mod cached;
mod client;
pub mod endpoints;
mod finish;
mod idempotency;
pub mod openapi;
mod problem;
mod routes;
mod session;
mod traced;

pub use axum;
pub use body::{BODY_BYTES_MAX, Body, PageQuery};
pub use cached::{SERVER_TIME, cached_json, has_tag, takes_gzip};
pub use client::{ClientAddress, client_address};
pub use finish::{REQUEST_ID, RequestId, answer, finish, problems};
pub use idempotency::Idempotency;
pub use problem::HandlerResult;
pub use routes::{Answer, Found, Matched, Params, Routes};
pub use session::{PossibleCaller, no_session_cookie, session_cookie};
pub use traced::TraceSource;
