//! The words in which the functions describe their routes for the OpenAPI document.
//!
//! Every function has a `docs.rs` that lists its operations with these. They are functions and not attributes on the
//! handlers, because an operation has up to fifteen refusals: as attributes they would bury the handler, here they are a
//! list of slugs. Schemas are derived from the types that handlers read and write; the status, the title and the meaning of
//! a refusal come from the table of problems. What holds for every endpoint is added here, so that a description names
//! only what is particular, as API.md does.

use std::collections::BTreeMap;

use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Content, Header, HttpMethod, KnownFormat, ObjectBuilder, OpenApi, Ref, RefOr, Required,
        Response, ResponseBuilder, Schema, SchemaFormat, SecurityRequirement, Type,
        extensions::Extensions,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::body::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::{
    domain::{OrderId, OrderStatus, Timestamp},
    problem::{EXPLAINED, Explained},
};

/// What every endpoint can answer: its own faults, those of the host it runs on, and refusals of an address.
const ALWAYS: [&str; 7] = [
    "bad-header",
    "banned",
    "rate-limited",
    "internal",
    "function-failed",
    "unavailable",
    "function-timeout",
];
/// What reading a body can end in.
const OF_A_BODY: [&str; 3] = ["invalid", "body-too-large", "unsupported-media-type"];

/// One operation: a method of a route.
pub struct Operation {
    method: HttpMethod,
    path: &'static str,
    builder: OperationBuilder,
    answer: (u16, ResponseBuilder),
    problems: Vec<&'static str>,
    schemas: Vec<(String, RefOr<Schema>)>,
}

/// `GET` of a path.
pub fn get(path: &'static str, id: &str, summary: &str) -> Operation {
    Operation::new(HttpMethod::Get, path, id, summary)
}

/// `POST` to a path.
pub fn post(path: &'static str, id: &str, summary: &str) -> Operation {
    Operation::new(HttpMethod::Post, path, id, summary)
}

/// `PUT` to a path.
pub fn put(path: &'static str, id: &str, summary: &str) -> Operation {
    Operation::new(HttpMethod::Put, path, id, summary)
}

/// `PATCH` of a path.
pub fn patch(path: &'static str, id: &str, summary: &str) -> Operation {
    Operation::new(HttpMethod::Patch, path, id, summary)
}

/// `DELETE` of a path.
pub fn delete(path: &'static str, id: &str, summary: &str) -> Operation {
    Operation::new(HttpMethod::Delete, path, id, summary)
}

impl Operation {
    fn new(method: HttpMethod, path: &'static str, id: &str, summary: &str) -> Self {
        let mut builder = OperationBuilder::new().operation_id(Some(id)).summary(Some(summary));
        let mut problems = ALWAYS.to_vec();
        if method != HttpMethod::Get {
            // A page of another site.
            problems.push("forbidden");
        }
        // Whatever stands in a path of this product is an id; those of parked messages are the queue's.
        for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            let format = (name != "parked_id").then(|| SchemaFormat::Custom("uuid".to_owned()));
            let id = ObjectBuilder::new().schema_type(Type::String).format(format);
            builder = builder.parameter(
                ParameterBuilder::new()
                    .name(name)
                    .parameter_in(ParameterIn::Path)
                    .required(Required::True)
                    .schema(Some(id)),
            );
            problems.push("not-found");
        }
        Self {
            method,
            path,
            builder,
            answer: (204, ResponseBuilder::new()),
            problems,
            schemas: Vec::new(),
        }
    }

    /// More than the summary says.
    #[must_use]
    pub fn about(mut self, description: &str) -> Self {
        self.builder = self.builder.description(Some(description));
        self
    }

    /// Needs a live session.
    #[must_use]
    pub fn signed(mut self) -> Self {
        for scheme in ["bearer", "cookie"] {
            self.builder = self.builder.security(SecurityRequirement::new(scheme, [""; 0]));
        }
        self.problems.push("unauthenticated");
        self
    }

    /// Needs a live session of an administrator.
    #[must_use]
    pub fn admin(self) -> Self {
        self.signed().refuses(&["forbidden"])
    }

    /// Reads a body. An empty one stands for `{}`, so it is needed where one of its fields is.
    #[must_use]
    pub fn body<T: ToSchema>(mut self) -> Self {
        let needed =
            matches!(T::schema(), RefOr::T(Schema::Object(object)) if !object.required.is_empty());
        let required = if needed { Required::True } else { Required::False };
        let content = Content::new(Some(self.reference::<T>()));
        let body = RequestBodyBuilder::new()
            .content("application/json", content)
            .required(Some(required))
            .build();
        self.builder = self.builder.request_body(Some(body));
        self.refuses(&OF_A_BODY)
    }

    /// Is a page of a list; `Cursor` is what `next_cursor` holds.
    #[must_use]
    pub fn paged<Cursor: PartialSchema>(self) -> Self {
        let limit = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(LIMIT_MAX))
            .default(Some(LIMIT_DEFAULT.into()));
        self.asks("limit", Required::False, "Items wanted.", limit).asks(
            "cursor",
            Required::False,
            "Where the page begins: the last page's `next_cursor`.",
            Cursor::schema(),
        )
    }

    /// Has a query parameter that is needed.
    #[must_use]
    pub fn query(self, name: &str, what: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        self.asks(name, Required::True, what, schema)
    }

    /// Has a header that may be left out.
    #[must_use]
    pub fn header(mut self, name: &str, what: &str, schema: impl Into<RefOr<Schema>>) -> Self {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False);
        self.builder =
            self.builder.parameter(parameter.description(Some(what)).schema(Some(schema)));
        self.refuses(&["invalid"])
    }

    fn asks(
        mut self,
        name: &str,
        required: Required,
        what: &str,
        schema: impl Into<RefOr<Schema>>,
    ) -> Self {
        let parameter =
            ParameterBuilder::new().name(name).parameter_in(ParameterIn::Query).required(required);
        self.builder =
            self.builder.parameter(parameter.description(Some(what)).schema(Some(schema)));
        self.refuses(&["invalid"])
    }

    /// Answers with JSON when all is well.
    #[must_use]
    pub fn gives<T: ToSchema>(mut self, status: u16, what: &str) -> Self {
        let content = Content::new(Some(self.reference::<T>()));
        self.answer =
            (status, ResponseBuilder::new().description(what).content("application/json", content));
        self
    }

    /// Answers with bytes of a media type when all is well.
    #[must_use]
    pub fn gives_bytes(mut self, status: u16, media_type: &str, what: &str) -> Self {
        let bytes = ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
        let content = Content::new(Some(bytes));
        self.answer =
            (status, ResponseBuilder::new().description(what).content(media_type, content));
        self
    }

    /// Answers with 204 when all is well.
    #[must_use]
    pub fn gives_nothing(mut self, what: &str) -> Self {
        self.answer = (204, ResponseBuilder::new().description(what));
        self
    }

    /// The good answer has a header.
    #[must_use]
    pub fn with_header(mut self, name: &str, what: &str) -> Self {
        self.answer.1 = self.answer.1.header(name, header(Type::String, what, true));
        self
    }

    /// The slugs of refusals, beside those that follow from what the operation reads and needs.
    #[must_use]
    pub fn refuses(mut self, slugs: &[&'static str]) -> Self {
        self.problems.extend(slugs);
        self
    }

    fn reference<T: ToSchema>(&mut self) -> Ref {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        Ref::from_schema_name(T::name())
    }
}

/// Puts a group of operations into the document.
///
/// # Panics
/// When an operation names an unknown problem, or two types have one name.
pub fn describe(document: &mut OpenApi, group: &str, about: &str, operations: Vec<Operation>) {
    let (mut schemas, mut responses) = (Vec::new(), BTreeMap::<String, RefOr<Response>>::new());
    for Operation { method, path, mut builder, answer: (status, answer), problems, schemas: own } in
        operations
    {
        builder = builder.tag(group).response(status.to_string(), answer);
        let mut lines: Vec<&Explained> =
            EXPLAINED.iter().filter(|line| problems.contains(&line.slug)).collect();
        for slug in problems {
            assert!(
                lines.iter().any(|line| line.slug == slug),
                "{path}: there is no problem {slug:?}"
            );
        }
        lines.sort_by_key(|line| line.status);
        for same in lines.chunk_by(|one, other| one.status == other.status) {
            let refusal = refusal(same);
            builder = match same {
                // Most statuses have one meaning, the same for all operations that give them.
                [one] => {
                    responses.insert(problem_name(one.slug), refusal.into());
                    builder.response(
                        one.status.to_string(),
                        Ref::from_response_name(problem_name(one.slug)),
                    )
                }
                several => builder.response(several[0].status.to_string(), refusal),
            };
            schemas.extend(same.iter().map(|line| (problem_name(line.slug), problem_schema(line))));
        }
        schemas.extend(own);
        document.paths.add_path_operation(path, vec![method], builder);
    }
    let components = document.components.get_or_insert_default();
    components.responses.extend(responses);
    for (name, schema) in schemas {
        if let Some(other) = components.schemas.get(&name) {
            assert!(*other == schema, "two types are named {name}");
        }
        components.schemas.insert(name, schema);
    }
    document
        .tags
        .get_or_insert_default()
        .push(TagBuilder::new().name(group).description(Some(about)).build());
}

/// The ways to show a session, as `Operation::signed` names them.
pub fn security(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
    let bearer = bearer.description(Some("The `token` of `POST /api/sessions`.")).build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let what = "Set by `POST /api/sessions`; named `session` where it is not `Secure` (development, opened on a loopback name). \
                With only the cookie, a write must come from our own pages.";
    let cookie = ApiKeyValue::with_description("__Host-session", what);
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
}

/// The answer of one status, which several problems may share.
fn refusal(lines: &[&Explained]) -> ResponseBuilder {
    let text: Vec<String> =
        lines.iter().map(|line| format!("`{}`: {}", line.slug, line.meaning)).collect();
    let content = match lines {
        [one] => Content::new(Some(Ref::from_schema_name(problem_name(one.slug)))),
        several => {
            let one_of =
                several.iter().fold(utoipa::openapi::OneOfBuilder::new(), |one_of, line| {
                    one_of.item(Ref::from_schema_name(problem_name(line.slug)))
                });
            Content::new(Some(one_of))
        }
    };
    let mut response = ResponseBuilder::new()
        .description(text.join("\n\n"))
        .content("application/problem+json", content);
    let slugs: Vec<&str> = lines.iter().map(|line| line.slug).collect();
    let retried = |slug: &&str| {
        matches!(*slug, "rate-limited" | "unavailable" | "not-durable-yet" | "order-queued")
    };
    if slugs.iter().any(retried) {
        let always = slugs.iter().all(retried);
        response = response.header(
            "Retry-After",
            header(Type::Integer, "Seconds until it is worth another try.", always),
        );
    }
    if slugs.contains(&"rate-limited") {
        response = response
            .header(
                "RateLimit",
                header(
                    Type::String,
                    "The limit's name, `r` what is left (0) and `t` as `Retry-After`.",
                    true,
                ),
            )
            .header(
                "RateLimit-Policy",
                header(Type::String, "The limit's name, `q` requests in `w` seconds.", true),
            );
    }
    if lines[0].status == 401 {
        response = response.header("WWW-Authenticate", header(Type::String, "`Bearer`.", true));
    }
    response
}

fn header(kind: Type, what: &str, always: bool) -> Header {
    let mut header = Header::new(ObjectBuilder::new().schema_type(kind).build());
    header.description = Some(what.to_owned());
    // The builder has no word for it; what is said as an extension stands beside the other members.
    header.extensions = Some(Extensions::from_iter([("required", always)]));
    header
}

/// `sold-out` is `SoldOutProblem` among the schemas.
fn problem_name(slug: &str) -> String {
    let words = slug.split('-').map(|word| word[..1].to_uppercase() + &word[1..]);
    words.collect::<String>() + "Problem"
}

fn problem_schema(line: &Explained) -> RefOr<Schema> {
    let word =
        |text: String| ObjectBuilder::new().schema_type(Type::String).enum_values(Some([text]));
    let text = || RefOr::from(ObjectBuilder::new().schema_type(Type::String).build());
    let status = ObjectBuilder::new().schema_type(Type::Integer).enum_values(Some([line.status]));
    let mut schema = ObjectBuilder::new()
        .description(Some(line.meaning))
        .property("type", word(format!("/problems/{}", line.slug)))
        .property("title", word(line.title.to_owned()))
        .property("status", status)
        .property("detail", text());
    for required in ["type", "title", "status", "detail"] {
        schema = schema.required(required);
    }
    let (member, kind, always) = match line.slug {
        "invalid" | "invalid-phone" | "weak-password" => ("field", text(), true),
        "banned" => ("until", Timestamp::schema(), false),
        "sale-not-open" => ("starts_at", Timestamp::schema(), true),
        "already-bought" => ("order_id", OrderId::schema(), true),
        "order-final" => ("order_status", OrderStatus::schema(), true),
        _ => return schema.into(),
    };
    schema = schema.property(member, kind);
    if always {
        schema = schema.required(member);
    }
    schema.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        domain::{PhoneError, Quota},
        problem::Problem,
    };

    #[test]
    fn problems_are_described_as_they_are_written() {
        let (id, time) = (crate::testing::order_id(), crate::testing::START);
        let told = [
            Problem::Invalid { field: "limit".to_owned(), expected: "1 to 100".to_owned() },
            Problem::InvalidPhone(PhoneError::Unreadable),
            Problem::WeakPassword { field: "password", rule: "too short" },
            Problem::Banned { until: Some(time) },
            Problem::SaleNotOpen { starts_at: time },
            Problem::AlreadyBought { order_id: id },
            Problem::OrderFinal { status: OrderStatus::Paid },
            Problem::RateLimited {
                name: "ticket",
                quota: Some(Quota::per(1, 1)),
                retry_after_ms: 1,
            },
            Problem::NotDurableYet { retry_after_ms: 1 },
            Problem::OrderQueued,
            Problem::Unavailable { retry_after_ms: 1 },
        ];
        for line in EXPLAINED {
            let RefOr::T(Schema::Object(schema)) = problem_schema(line) else {
                panic!("{}", line.slug)
            };
            let mut described: BTreeSet<&str> =
                schema.properties.keys().map(String::as_str).collect();
            for standard in ["type", "title", "status", "detail"] {
                assert!(described.remove(standard));
            }
            let problem = told.iter().find(|problem| problem.slug() == line.slug);
            let members = problem.map(Problem::members).unwrap_or_default();
            assert_eq!(described, members.keys().map(String::as_str).collect(), "{}", line.slug);
            let headers = refusal(&[line]).build().headers;
            assert_eq!(
                headers.contains_key("Retry-After"),
                problem.is_some_and(|problem| problem.retry_after_ms().is_some()),
                "{}",
                line.slug
            );
        }
    }
}
