//! The routes of HTTP functions: one look-up finds a request's handler, which is then called.
//!
//! Handlers and extractors are axum's; its router is not used, because for every request it clones
//! the boxed service of the route and of each layer, and boxes a future for each of them. For a
//! refusal from memory that was most of the work.

use std::{pin::Pin, sync::Arc};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequestParts, Request},
    handler::Handler,
    http::request::Parts,
    response::{IntoResponse as _, Response},
};
use lambda_http::http::{HeaderValue, Method, header};
use percent_encoding::percent_decode_str;
use serde::de::{DeserializeOwned, IntoDeserializer as _, value::Error};

use super::endpoints::Endpoints;
use crate::{app::App, problem::Problem};

/// A handler's answer.
pub type Answer = Pin<Box<dyn Future<Output = Response> + Send>>;
/// A handler with its state.
pub(super) type Answering = Box<dyn Fn(Request) -> Answer + Send + Sync>;
/// A handler that still needs its state.
pub(super) type WithApp = Box<dyn FnOnce(App) -> Answering + Send + Sync>;

/// Takes the type away from a handler.
pub(super) fn erased<T: 'static, H: Handler<T, App, Future = Answer>>(handler: H) -> WithApp {
    Box::new(|app| Box::new(move |request| handler.clone().call(request, app.clone())))
}

/// The routes of one function or of several.
#[derive(Default)]
pub struct Routes {
    table: matchit::Router<usize>,
    routes: Vec<Route>,
}

struct Route {
    pattern: Arc<Pattern>,
    methods: Methods,
}

/// A route's pattern.
#[derive(Debug)]
struct Pattern {
    path: String,
    /// The names of the parameters, in the order of the path.
    names: Vec<String>,
}

enum Methods {
    Any(Answering),
    These {
        handlers: Vec<(Method, Answering)>,
        /// The header `Allow` of a refusal.
        allowed: HeaderValue,
    },
}

/// The route of a request, in the request's extensions.
#[derive(Debug, Clone)]
pub struct Matched {
    pattern: Arc<Pattern>,
    /// Where each parameter's value is in the path, which is still encoded.
    values: Vec<std::ops::Range<usize>>,
}

impl Matched {
    /// The route's pattern, such as `/api/sales/{sale_id}`.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern.path
    }

    /// The parameters of the request's path, decoded. `None`: a value is not UTF-8.
    #[must_use]
    pub fn parameters(&self, path: &str) -> Option<Vec<(&str, String)>> {
        let decoded = self.values.iter().map(|value| decoded(path, value));
        self.pattern
            .names
            .iter()
            .zip(decoded)
            .map(|(name, value)| Some((&**name, value?)))
            .collect()
    }
}

fn decoded(path: &str, value: &std::ops::Range<usize>) -> Option<String> {
    Some(percent_decode_str(path.get(value.clone())?).decode_utf8().ok()?.into_owned())
}

/// The path's parameter. A value that can't be parsed names nothing that exists: `not-found`.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let matched = parts.extensions.get::<Matched>().ok_or(Problem::NotFound)?;
        let [value] = matched.values.as_slice() else { return Err(Problem::NotFound) };
        let value = decoded(parts.uri.path(), value).ok_or(Problem::NotFound)?;
        let read: Result<T, Error> = T::deserialize(value.as_str().into_deserializer());
        read.map(Self).map_err(|_| Problem::NotFound)
    }
}

impl Routes {
    /// Adds a function's endpoints.
    ///
    /// # Panics
    /// When a path is there already or is no pattern: a fault of the declarations.
    #[must_use]
    pub fn with(mut self, endpoints: Endpoints, app: &App) -> Self {
        let mut paths: Vec<(&str, Vec<(Method, Answering)>)> = Vec::new();
        for (path, method, handler) in endpoints.handlers() {
            let method = Method::from_bytes(method.as_bytes()).expect("a method's name is letters");
            let handler = (method, handler(app.clone()));
            match paths.iter_mut().find(|(known, _)| *known == path) {
                Some((_, handlers)) => handlers.push(handler),
                None => paths.push((path, vec![handler])),
            }
        }
        for (path, handlers) in paths {
            let mut allowed = Vec::new();
            for (method, _) in &handlers {
                allowed.push(method.as_str());
                if *method == Method::GET {
                    allowed.push("HEAD");
                }
            }
            let allowed = HeaderValue::from_str(&allowed.join(","))
                .expect("the names of methods make a header value");
            self.insert(path, Methods::These { handlers, allowed });
        }
        self
    }

    /// Adds a path whose requests of every method one handler answers.
    ///
    /// # Panics
    /// When the path is there already or is no pattern.
    #[must_use]
    pub fn with_any(
        mut self,
        path: &str,
        handler: impl Fn(Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.insert(path, Methods::Any(Box::new(handler)));
        self
    }

    fn insert(&mut self, path: &str, methods: Methods) {
        self.table.insert(path, self.routes.len()).expect("each path is declared once");
        let pattern = Pattern { path: path.to_owned(), names: names(path) };
        self.routes.push(Route { pattern: Arc::new(pattern), methods });
    }

    /// The patterns of all routes; [`Found::index`] counts in this order.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|route| route.pattern.path.as_str())
    }

    /// The route of a path.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Found<'_>> {
        let matched = self.table.at(path).ok()?;
        let index = *matched.value;
        let begin = path.as_ptr().addr();
        let values = matched.params.iter().map(|(_, value)| {
            let at = value.as_ptr().addr() - begin;
            at..at + value.len()
        });
        Some(Found { route: self.routes.get(index)?, index, values: values.collect() })
    }

    /// Answers a request; `not-found` when no route matches.
    pub async fn answer(&self, request: Request) -> Response {
        match self.find(request.uri().path()) {
            Some(found) => found.answer(request).await,
            None => Problem::NotFound.into_response(),
        }
    }
}

/// The names of a pattern's parameters. Doubled braces stand for braces.
fn names(pattern: &str) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), pattern);
    while let Some((_, after)) = rest.split_once('{') {
        rest = match after.strip_prefix('{') {
            Some(escaped) => escaped,
            None => {
                let (name, after) = after.split_once('}').unwrap_or((after, ""));
                names.push(name.trim_start_matches('*').to_owned());
                after
            }
        };
    }
    names
}

/// The route that a request's path matches.
pub struct Found<'r> {
    route: &'r Route,
    index: usize,
    values: Vec<std::ops::Range<usize>>,
}

impl Found<'_> {
    /// The route's number, in the order of [`Routes::patterns`].
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Calls the handler of the request's method.
    pub async fn answer(self, mut request: Request) -> Response {
        let handler = match &self.route.methods {
            Methods::Any(handler) => handler,
            Methods::These { handlers, allowed } => {
                let method = match request.method() {
                    &Method::HEAD => &Method::GET,
                    method => method,
                };
                let Some((_, handler)) = handlers.iter().find(|(known, _)| known == method) else {
                    let mut refused = Problem::MethodNotAllowed.into_response();
                    refused.headers_mut().insert(header::ALLOW, allowed.clone());
                    let head = request.method() == Method::HEAD;
                    return if head { without_body(refused) } else { refused };
                };
                handler
            }
        };
        let head = request.method() == Method::HEAD;
        let pattern = Arc::clone(&self.route.pattern);
        request.extensions_mut().insert(Matched { pattern, values: self.values });
        let answer = handler(request).await;
        if head { without_body(answer) } else { answer }
    }
}

/// The answer to `HEAD`: that of `GET`, without its body.
fn without_body(mut answer: Response) -> Response {
    if let Some(bytes) = answer.body().size_hint().exact() {
        answer.headers_mut().entry(header::CONTENT_LENGTH).or_insert_with(|| bytes.into());
    }
    answer.map(|_| Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes() -> Routes {
        let echo = |request: Request| -> Answer {
            Box::pin(async move {
                let matched = request.extensions().get::<Matched>().cloned().unwrap();
                let parameters = matched.parameters(request.uri().path());
                format!("{} {parameters:?}", matched.pattern()).into_response()
            })
        };
        ["/a/{one}/b/{two}", "/files/{*rest}", "/x/user_{name}/{id}", "/y/{{z}}/{id}"]
            .into_iter()
            .fold(Routes::default(), |routes, path| routes.with_any(path, echo))
    }

    async fn asked(path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let answer = routes().answer(request).await;
        let status = answer.status().as_u16();
        let body = axum::body::to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn parameters_are_named_and_decoded() {
        for (path, told) in [
            ("/a/1/b/2", r#"/a/{one}/b/{two} Some([("one", "1"), ("two", "2")])"#),
            ("/a/%31%20/b/%C3%A9", r#"/a/{one}/b/{two} Some([("one", "1 "), ("two", "é")])"#),
            ("/a/%ff/b/2", "/a/{one}/b/{two} None"),
            ("/x/user_7/8", r#"/x/user_{name}/{id} Some([("name", "7"), ("id", "8")])"#),
            ("/files/a/b?c=d", r#"/files/{*rest} Some([("rest", "a/b")])"#),
        ] {
            assert_eq!(asked(path).await, (200, told.to_owned()), "{path}");
        }
        assert_eq!(names("/y/{{z}}/{id}/{*rest}"), ["id", "rest"]);
        for path in ["/", "/a/1/b", "/a/1/b/2/", "/files/"] {
            assert_eq!(asked(path).await.0, 404, "{path}");
        }
    }
}
