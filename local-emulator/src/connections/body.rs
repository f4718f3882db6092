//! Bodies of requests and answers that record the activity of their connection.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::body::Body;
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};

use super::activity::Activity;

/// A request in progress.
pub struct ActiveRequest(Arc<Activity>);

impl ActiveRequest {
    pub fn new(activity: Arc<Activity>) -> Self {
        activity.request_began();
        Self(activity)
    }

    /// The body of the request.
    pub fn request_body(&self, body: Incoming) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        Body::new(RequestBody { body, activity: Arc::clone(&self.0) })
    }

    /// The body of the answer. The request is in progress until the body has been sent or dropped.
    pub fn response_body(self, body: Body) -> ResponseBody {
        ResponseBody { body, _request: self }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.request_ended();
    }
}

/// The body of a request. While the rest of it is awaited, its connection may be closed for
/// another.
struct RequestBody {
    body: Incoming,
    activity: Arc<Activity>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let outcome = Pin::new(&mut self.body).poll_frame(cx);
        self.activity.set_receiving(outcome.is_pending());
        outcome
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.activity.set_receiving(false);
    }
}

/// The body of an answer.
pub struct ResponseBody {
    body: Body,
    _request: ActiveRequest,
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
