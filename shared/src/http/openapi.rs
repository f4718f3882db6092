//! The OpenAPI document of the functions, derived from their [`Endpoints`]. Only the emulator calls
//! this.
//!
//! Schemas are derived from the types that handlers read and write; the status, the title and the
//! meaning of a refusal come from the table of problems. The parts that all endpoints share are
//! added here.

use std::collections::BTreeMap;

use utoipa::{
    PartialSchema,
    openapi::{
        Content as MediaType, Header, HttpMethod, KnownFormat, ObjectBuilder, OneOfBuilder,
        OpenApi, Ref, RefOr, Required, Response, ResponseBuilder, Schema, SchemaFormat,
        SecurityRequirement, Type,
        extensions::Extensions,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::{RequestBody, RequestBodyBuilder},
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use super::{
    body::{LIMIT_DEFAULT, LIMIT_MAX},
    endpoints::{
        Access, Content, Endpoint, Endpoints, Operation, Parameter, SchemaOf, Success, Value,
    },
};
use crate::{
    domain::{OrderId, OrderStatus, Timestamp},
    problem::{EXPLAINED, Explained, ProblemKind},
};

/// Problems of every endpoint: its own faults, faults of its host, and refusals of an address.
const ALWAYS: [ProblemKind; 7] = [
    ProblemKind::BadHeader,
    ProblemKind::Banned,
    ProblemKind::RateLimited,
    ProblemKind::Internal,
    ProblemKind::FunctionFailed,
    ProblemKind::Unavailable,
    ProblemKind::FunctionTimeout,
];
/// Problems of reading a body.
const OF_A_BODY: [ProblemKind; 3] =
    [ProblemKind::Invalid, ProblemKind::BodyTooLarge, ProblemKind::UnsupportedMediaType];

/// Schemas by the names under which the document refers to them.
type Schemas = Vec<(String, RefOr<Schema>)>;

/// Adds a function's endpoints to the document.
///
/// # Panics
/// When two types have the same name.
pub fn describe(document: &mut OpenApi, endpoints: &Endpoints) {
    let (mut schemas, mut responses) = (Schemas::new(), BTreeMap::<String, RefOr<Response>>::new());
    for endpoint in endpoints.iter() {
        let mut builder = operation(endpoint, &mut schemas).tag(endpoints.group);
        for same in refusals(endpoint).chunk_by(|one, other| one.status == other.status) {
            let refusal = refusal(same);
            builder = match same {
                // Most statuses have one meaning: it is described once, and operations refer to it.
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
        let method = endpoint.operation.method.clone();
        document.paths.add_path_operation(endpoint.path(), vec![method], builder);
    }
    let components = document.components.get_or_insert_default();
    components.responses.extend(responses);
    for (name, schema) in schemas {
        if let Some(other) = components.schemas.get(&name) {
            assert!(*other == schema, "two types are named {name}");
        }
        components.schemas.insert(name, schema);
    }
    let tag = TagBuilder::new().name(endpoints.group).description(Some(endpoints.about)).build();
    document.tags.get_or_insert_default().push(tag);
}

/// The endpoint's input, and its answer on success.
fn operation(endpoint: &Endpoint, schemas: &mut Schemas) -> OperationBuilder {
    let Operation { id, summary, about, access, parameters, body, success, .. } =
        &endpoint.operation;
    let mut builder = OperationBuilder::new()
        .operation_id(Some(*id))
        .summary(Some(*summary))
        .description(*about)
        .request_body(body.map(|body| request_body(body, schemas)))
        .response(success.status.to_string(), answer(success, schemas));
    if *access != Access::Public {
        for scheme in ["bearer", "cookie"] {
            builder = builder.security(SecurityRequirement::new(scheme, [""; 0]));
        }
    }
    for name in path_parameters(endpoint.path()) {
        builder = builder.parameter(path_parameter(name));
    }
    parameters.iter().fold(builder, |builder, given| builder.parameter(parameter(given)))
}

/// Every refusal of the endpoint, by status.
fn refusals(endpoint: &Endpoint) -> Vec<&'static Explained> {
    let Operation { method, access, parameters, body, refusals, .. } = &endpoint.operation;
    let mut kinds = [&ALWAYS[..], refusals].concat();
    if *method != HttpMethod::Get {
        // The refusal of changes requested by pages of other sites.
        kinds.push(ProblemKind::Forbidden);
    }
    if path_parameters(endpoint.path()).next().is_some() {
        kinds.push(ProblemKind::NotFound);
    }
    match access {
        Access::Public => {}
        Access::SignedIn => kinds.push(ProblemKind::Unauthenticated),
        Access::Admin => kinds.extend([ProblemKind::Unauthenticated, ProblemKind::Forbidden]),
    }
    if body.is_some() {
        kinds.extend(OF_A_BODY);
    }
    if !parameters.is_empty() {
        kinds.push(ProblemKind::Invalid);
    }
    let mut lines: Vec<_> = EXPLAINED.iter().filter(|line| kinds.contains(&line.kind)).collect();
    lines.sort_by_key(|line| line.status);
    lines
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

/// Every path parameter is an id: a UUID, except for parked messages, whose ids the queue makes.
fn path_parameter(name: &str) -> ParameterBuilder {
    let format = (name != "parked_id").then(|| SchemaFormat::Custom("uuid".to_owned()));
    let id = ObjectBuilder::new().schema_type(Type::String).format(format);
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(id))
}

fn parameter(given: &Parameter) -> ParameterBuilder {
    let schema = match given.value {
        Value::Of(schema) => schema(),
        Value::Limit => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .minimum(Some(1))
            .maximum(Some(LIMIT_MAX))
            .default(Some(LIMIT_DEFAULT.into()))
            .into(),
        Value::Words([]) => ObjectBuilder::new().schema_type(Type::String).into(),
        Value::Words(words) => ObjectBuilder::new()
            .schema_type(Type::String)
            .enum_values(Some(words.iter().copied()))
            .into(),
    };
    ParameterBuilder::new()
        .name(given.name)
        .parameter_in(given.place.clone())
        .required(if given.required { Required::True } else { Required::False })
        .description(Some(given.about))
        .schema(Some(schema))
}

/// An empty body is read as `{}`, so a body is required only if one of its fields is.
fn request_body(body: SchemaOf, schemas: &mut Schemas) -> RequestBody {
    let needed =
        matches!((body.schema)(), RefOr::T(Schema::Object(object)) if !object.required.is_empty());
    RequestBodyBuilder::new()
        .content("application/json", MediaType::new(Some(reference(body, schemas))))
        .required(Some(if needed { Required::True } else { Required::False }))
        .build()
}

fn answer(success: &Success, schemas: &mut Schemas) -> ResponseBuilder {
    let response = ResponseBuilder::new().description(success.about);
    let response = match success.content {
        Content::Nothing => response,
        Content::Json(schema) => {
            response.content("application/json", MediaType::new(Some(reference(schema, schemas))))
        }
        Content::Bytes(media_type) => {
            let bytes = ObjectBuilder::new()
                .schema_type(Type::String)
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)));
            response.content(media_type, MediaType::new(Some(bytes)))
        }
    };
    success.headers.iter().fold(response, |response, (name, about)| {
        response.header(*name, header(Type::String, about, true))
    })
}

fn reference(of: SchemaOf, schemas: &mut Schemas) -> Ref {
    schemas.push(((of.name)().into_owned(), (of.schema)()));
    (of.inner)(schemas);
    Ref::from_schema_name((of.name)())
}

/// Adds the security schemes, under the names that [`operation`] uses.
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
        [one] => MediaType::new(Some(Ref::from_schema_name(problem_name(one.slug)))),
        several => {
            let one_of = several.iter().fold(OneOfBuilder::new(), |one_of, line| {
                one_of.item(Ref::from_schema_name(problem_name(line.slug)))
            });
            MediaType::new(Some(one_of))
        }
    };
    let mut response = ResponseBuilder::new()
        .description(text.join("\n\n"))
        .content("application/problem+json", content);
    let retried = |line: &&Explained| {
        matches!(
            line.kind,
            ProblemKind::RateLimited
                | ProblemKind::Unavailable
                | ProblemKind::NotDurableYet
                | ProblemKind::OrderQueued
        )
    };
    if lines.iter().any(retried) {
        let always = lines.iter().all(retried);
        response = response.header(
            "Retry-After",
            header(Type::Integer, "Seconds until it is worth another try.", always),
        );
    }
    if lines.iter().any(|line| line.kind == ProblemKind::RateLimited) {
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
    // The builder has no method for `required`; an extension is written beside the other members.
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
    let (member, kind, always) = match line.kind {
        ProblemKind::Invalid | ProblemKind::InvalidPhone | ProblemKind::WeakPassword => {
            ("field", text(), true)
        }
        ProblemKind::Banned => ("until", Timestamp::schema(), false),
        ProblemKind::SaleNotOpen => ("starts_at", Timestamp::schema(), true),
        ProblemKind::EntriesNotOpen => ("entries_open_at", Timestamp::schema(), true),
        ProblemKind::NotEligible => ("registered_before", Timestamp::schema(), true),
        ProblemKind::NotInvited => ("poll_after_ms", u64::schema(), true),
        ProblemKind::DrawNotOver => ("ends_at", Timestamp::schema(), true),
        ProblemKind::AlreadyBought => ("order_id", OrderId::schema(), true),
        ProblemKind::OrderFinal => ("order_status", OrderStatus::schema(), true),
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
            Problem::EntriesNotOpen { entries_open_at: time },
            Problem::NotEligible { registered_before: time },
            Problem::NotInvited { poll_after_ms: 1 },
            Problem::DrawNotOver { ends_at: time },
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
