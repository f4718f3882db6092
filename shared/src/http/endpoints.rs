//! The endpoints of an HTTP function, each declared once: method, path, handler, and its
//! description in the OpenAPI document.
//!
//! [`Endpoints`] is all that a function exports. Its router, the paths that the gateway and Lambda
//! send to it, and its part of the document ([`super::openapi`]) are derived from the same
//! declarations.
//!
//! A declaration is plain data: it names the functions that make a schema but calls none of them,
//! so the description does not slow a function's start. The document itself adds the parts that all
//! endpoints share, and those that follow from an endpoint's input and access.

use axum::handler::Handler;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{HttpMethod, RefOr, Schema, path::ParameterIn},
};

use super::routes::{Answer, Routes, WithApp, erased};
use crate::{app::App, problem::ProblemKind};

/// The endpoints of one HTTP function.
pub struct Endpoints {
    pub(super) group: &'static str,
    pub(super) about: &'static str,
    pub(super) endpoints: Vec<Endpoint>,
}

impl Endpoints {
    /// Declares a function's endpoints. The document shows them as one group with this name and
    /// text.
    pub fn new(
        group: &'static str,
        about: &'static str,
        endpoints: impl Into<Vec<Endpoint>>,
    ) -> Self {
        Self { group, about, endpoints: endpoints.into() }
    }

    /// The function's routes.
    #[must_use]
    pub fn routes(self, app: &App) -> Routes {
        Routes::default().with(self, app)
    }

    /// Path, method and handler of each endpoint.
    pub(super) fn handlers(self) -> impl Iterator<Item = (&'static str, &'static str, WithApp)> {
        let parts = |endpoint: Endpoint| (endpoint.path, endpoint.method, endpoint.handler);
        self.endpoints.into_iter().map(parts)
    }

    /// The paths, each once. All methods of a path belong to one function, so that the function
    /// that knows the allowed methods refuses the others.
    #[must_use]
    pub fn paths(&self) -> Vec<&'static str> {
        let mut paths: Vec<&str> = Vec::new();
        for endpoint in &self.endpoints {
            if !paths.contains(&endpoint.path) {
                paths.push(endpoint.path);
            }
        }
        paths
    }

    /// The endpoints, in the order of their declaration.
    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter()
    }
}

/// One endpoint: a method of a path.
pub struct Endpoint {
    method: &'static str,
    path: &'static str,
    handler: WithApp,
    pub(super) operation: Operation,
}

/// An endpoint's description in the document.
pub(super) struct Operation {
    pub(super) method: HttpMethod,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) about: Option<&'static str>,
    pub(super) access: Access,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<SchemaOf>,
    pub(super) success: Success,
    pub(super) refusals: Vec<ProblemKind>,
}

/// Who may call an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone, also without a session.
    Public,
    /// Signed-in users.
    SignedIn,
    /// Signed-in administrators.
    Admin,
}

pub(super) struct Parameter {
    pub(super) place: ParameterIn,
    pub(super) name: &'static str,
    pub(super) required: bool,
    pub(super) about: &'static str,
    pub(super) value: Value,
}

/// The allowed values of a parameter.
pub(super) enum Value {
    Of(fn() -> RefOr<Schema>),
    /// The number of items on a page.
    Limit,
    /// One of these words, or any text if the list is empty.
    Words(&'static [&'static str]),
}

/// The schema of a type, and the schemas that it refers to.
#[derive(Clone, Copy)]
pub(super) struct SchemaOf {
    pub(super) name: fn() -> std::borrow::Cow<'static, str>,
    pub(super) schema: fn() -> RefOr<Schema>,
    pub(super) inner: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl SchemaOf {
    fn new<T: ToSchema>() -> Self {
        Self { name: T::name, schema: T::schema, inner: T::schemas }
    }
}

/// The answer on success.
pub(super) struct Success {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) content: Content,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

pub(super) enum Content {
    Nothing,
    Json(SchemaOf),
    /// Bytes of a media type.
    Bytes(&'static str),
}

/// An async function that axum can call with a request and the app.
pub trait HandlerFn<T>: Handler<T, App, Future = Answer> {}

impl<T, H: Handler<T, App, Future = Answer>> HandlerFn<T> for H {}

/// Answers `GET`.
pub fn get<H: HandlerFn<T>, T: 'static>(path: &'static str, handler: H) -> Endpoint {
    Endpoint::new("GET", HttpMethod::Get, path, erased(handler))
}

/// Answers `POST`.
pub fn post<H: HandlerFn<T>, T: 'static>(path: &'static str, handler: H) -> Endpoint {
    Endpoint::new("POST", HttpMethod::Post, path, erased(handler))
}

/// Answers `PUT`.
pub fn put<H: HandlerFn<T>, T: 'static>(path: &'static str, handler: H) -> Endpoint {
    Endpoint::new("PUT", HttpMethod::Put, path, erased(handler))
}

/// Answers `PATCH`.
pub fn patch<H: HandlerFn<T>, T: 'static>(path: &'static str, handler: H) -> Endpoint {
    Endpoint::new("PATCH", HttpMethod::Patch, path, erased(handler))
}

/// Answers `DELETE`.
pub fn delete<H: HandlerFn<T>, T: 'static>(path: &'static str, handler: H) -> Endpoint {
    Endpoint::new("DELETE", HttpMethod::Delete, path, erased(handler))
}

impl Endpoint {
    fn new(
        method: &'static str,
        described: HttpMethod,
        path: &'static str,
        handler: WithApp,
    ) -> Self {
        let success =
            Success { status: 204, about: "", content: Content::Nothing, headers: Vec::new() };
        let operation = Operation {
            method: described,
            id: "",
            summary: "",
            about: None,
            access: Access::Public,
            parameters: Vec::new(),
            body: None,
            success,
            refusals: Vec::new(),
        };
        Self { method, path, handler, operation }
    }

    /// `GET`, `POST` and so on.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        self.method
    }

    /// The path, with `{parameters}`.
    #[must_use]
    pub const fn path(&self) -> &'static str {
        self.path
    }

    /// Who may call the endpoint.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.operation.access
    }

    /// Sets the operation id, and a summary of one sentence.
    #[must_use]
    pub const fn called(mut self, id: &'static str, summary: &'static str) -> Self {
        self.operation.id = id;
        self.operation.summary = summary;
        self
    }

    /// Sets the description that follows the summary.
    #[must_use]
    pub const fn about(mut self, text: &'static str) -> Self {
        self.operation.about = Some(text);
        self
    }

    /// Requires a live session.
    #[must_use]
    pub const fn signed_in(mut self) -> Self {
        self.operation.access = Access::SignedIn;
        self
    }

    /// Requires a live session of an administrator.
    #[must_use]
    pub const fn admin(mut self) -> Self {
        self.operation.access = Access::Admin;
        self
    }

    /// Reads a JSON body.
    #[must_use]
    pub fn body<T: ToSchema>(mut self) -> Self {
        self.operation.body = Some(SchemaOf::new::<T>());
        self
    }

    /// Answers with a page of a list; `Cursor` is the type of `next_cursor`.
    #[must_use]
    pub fn paged<Cursor: PartialSchema>(self) -> Self {
        let cursor = "Where the page begins: the last page's `next_cursor`.";
        self.parameter(ParameterIn::Query, "limit", false, "Items wanted.", Value::Limit).parameter(
            ParameterIn::Query,
            "cursor",
            false,
            cursor,
            Value::Of(Cursor::schema),
        )
    }

    /// Requires a query parameter: one of `words`, or any text if there are none.
    #[must_use]
    pub fn query(
        self,
        name: &'static str,
        about: &'static str,
        words: &'static [&'static str],
    ) -> Self {
        self.parameter(ParameterIn::Query, name, true, about, Value::Words(words))
    }

    /// Reads an optional query parameter: one of `words`, or any text if there are none.
    #[must_use]
    pub fn optional(
        self,
        name: &'static str,
        about: &'static str,
        words: &'static [&'static str],
    ) -> Self {
        self.parameter(ParameterIn::Query, name, false, about, Value::Words(words))
    }

    /// Reads an optional header.
    #[must_use]
    pub fn header<T: PartialSchema>(self, name: &'static str, about: &'static str) -> Self {
        self.parameter(ParameterIn::Header, name, false, about, Value::Of(T::schema))
    }

    fn parameter(
        mut self,
        place: ParameterIn,
        name: &'static str,
        required: bool,
        about: &'static str,
        value: Value,
    ) -> Self {
        self.operation.parameters.push(Parameter { place, name, required, about, value });
        self
    }

    /// Answers with JSON on success.
    #[must_use]
    pub fn gives<T: ToSchema>(self, status: u16, about: &'static str) -> Self {
        self.succeeds(status, about, Content::Json(SchemaOf::new::<T>()))
    }

    /// Answers with bytes of a media type on success.
    #[must_use]
    pub fn gives_bytes(self, status: u16, media_type: &'static str, about: &'static str) -> Self {
        self.succeeds(status, about, Content::Bytes(media_type))
    }

    /// Answers with 204 on success.
    #[must_use]
    pub fn gives_nothing(self, about: &'static str) -> Self {
        self.succeeds(204, about, Content::Nothing)
    }

    fn succeeds(mut self, status: u16, about: &'static str, content: Content) -> Self {
        self.operation.success = Success { status, about, content, headers: Vec::new() };
        self
    }

    /// Adds a header to the successful answer.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, about: &'static str) -> Self {
        self.operation.success.headers.push((name, about));
        self
    }

    /// Adds refusals. Refusals that all endpoints share, or that follow from this endpoint's input
    /// and access, are not listed here.
    #[must_use]
    pub fn refuses(mut self, problems: &[ProblemKind]) -> Self {
        self.operation.refusals.extend(problems);
        self
    }
}
