//! HTTP as Lambda functions see it: turns a request into an event of an API Gateway HTTP API
//! (payload format 2.0), and an answer in that format into a response.
//!
//! The event is serialized from borrowed parts. The type with which functions read it is not used
//! for that, because it would add the fields of older formats; a test reads the event back with
//! that type.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use flashsale::{
    domain::Timestamp,
    trace::{TRACEPARENT, TraceContext},
};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Bytes,
    header::{
        CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderName, HeaderValue, SET_COOKIE, USER_AGENT,
    },
    http::uri::Authority,
};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::Value;

/// A request and its context.
pub struct HttpEvent<'a> {
    /// The request. `path` replaces its own path.
    pub request: &'a Request<Bytes>,
    pub path: &'a str,
    /// The route's pattern; `None` for a function URL, which has no routes.
    pub route: Option<&'a str>,
    /// The values of the pattern's placeholders.
    pub path_parameters: BTreeMap<String, String>,
    /// The name in the `Host` header, with a port if there is one; functions build urls from it.
    pub host: &'a Authority,
    pub source: IpAddr,
    pub request_id: &'a str,
    /// The trace it belongs to. Trace headers of the client are left out.
    pub trace: Option<TraceContext>,
    pub now: Timestamp,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a> {
    version: &'static str,
    route_key: &'a str,
    raw_path: &'a str,
    raw_query_string: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cookies: Vec<&'a str>,
    headers: Headers<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    query_string_parameters: BTreeMap<String, String>,
    request_context: Context<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    path_parameters: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    is_base64_encoded: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Context<'a> {
    account_id: &'static str,
    api_id: &'static str,
    domain_name: &'a str,
    domain_prefix: &'a str,
    http: ContextHttp<'a>,
    request_id: &'a str,
    route_key: &'a str,
    stage: &'static str,
    time: String,
    time_epoch: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContextHttp<'a> {
    method: &'a str,
    path: &'a str,
    protocol: &'static str,
    source_ip: IpAddr,
    user_agent: &'a str,
}

/// The event's headers: those of the same name joined, without cookies, and with those that a
/// gateway adds.
struct Headers<'a> {
    given: &'a HeaderMap,
    source: IpAddr,
    request_id: &'a str,
    trace: Option<TraceContext>,
}

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        const OURS: [&str; 7] = [
            "cookie",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-request-id",
            TRACEPARENT,
            "tracestate",
        ];
        for name in self.given.keys().filter(|name| !OURS.contains(&name.as_str())) {
            map.serialize_entry(name.as_str(), &joined(self.given, name.as_str(), ","))?;
        }
        let forwarded = joined(self.given, "x-forwarded-for", ", ");
        let forwarded = if forwarded.trim().is_empty() {
            self.source.to_string()
        } else {
            format!("{forwarded}, {}", self.source)
        };
        map.serialize_entry("x-forwarded-for", &forwarded)?;
        // A proxy's value is passed on if it is valid: functions build urls from it.
        let protocol = self
            .given
            .get("x-forwarded-proto")
            .filter(|value| *value == "https")
            .map_or("http", |_| "https");
        map.serialize_entry("x-forwarded-proto", protocol)?;
        map.serialize_entry("x-request-id", self.request_id)?;
        if let Some(trace) = self.trace {
            map.serialize_entry(TRACEPARENT, &trace.to_string())?;
        }
        map.end()
    }
}

/// All values of a header, joined. Invalid UTF-8 is replaced.
fn joined<'a>(headers: &'a HeaderMap, name: &str, separator: &str) -> Cow<'a, str> {
    let mut values =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next().unwrap_or_default();
    values.fold(first, |all, value| Cow::Owned(format!("{all}{separator}{value}")))
}

impl HttpEvent<'_> {
    /// The event, JSON.
    pub fn to_json(&self) -> serde_json::Result<Bytes> {
        let Self { request, path, .. } = *self;
        let headers = request.headers();
        let text = |name: HeaderName| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        let route_key = self
            .route
            .map_or(Cow::Borrowed("$default"), |route| Cow::Owned(format!("ANY {route}")));
        let name = self.host.host();
        let query = request.uri().query().unwrap_or_default();
        let mut parameters = BTreeMap::<String, String>::new();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            parameters
                .entry(key.into_owned())
                .and_modify(|values| {
                    values.push(',');
                    values.push_str(&value);
                })
                .or_insert_with(|| value.into_owned());
        }
        let (body, is_base64_encoded) = body(headers, request.body());
        let event = Event {
            version: "2.0",
            route_key: &route_key,
            raw_path: path,
            raw_query_string: query,
            cookies: headers
                .get_all(COOKIE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(';'))
                .map(str::trim)
                .filter(|cookie| !cookie.is_empty())
                .collect(),
            headers: Headers {
                given: headers,
                source: self.source,
                request_id: self.request_id,
                trace: self.trace,
            },
            query_string_parameters: parameters,
            request_context: Context {
                account_id: "000000000000",
                api_id: "local",
                domain_name: name,
                domain_prefix: name.split('.').next().unwrap_or_default(),
                http: ContextHttp {
                    method: request.method().as_str(),
                    path,
                    protocol: "HTTP/1.1",
                    source_ip: self.source.to_canonical(),
                    user_agent: text(USER_AGENT),
                },
                request_id: self.request_id,
                route_key: &route_key,
                stage: "$default",
                time: common_log_time(self.now),
                time_epoch: self.now.epoch_ms(),
            },
            path_parameters: self.path_parameters.clone(),
            body,
            is_base64_encoded,
        };
        // Most events are smaller than this, so the buffer grows at most once.
        let mut json = Vec::with_capacity(2_048 + request.body().len());
        serde_json::to_writer(&mut json, &event)?;
        Ok(json.into())
    }
}

/// `22/Nov/2026:18:11:18 +0000`
fn common_log_time(now: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(now.epoch_ms())
        .map_or_else(|_| String::new(), |time| time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string())
}

/// The body as text if the request's headers declare text, otherwise as base64.
fn body<'a>(headers: &HeaderMap, bytes: &'a Bytes) -> (Option<Cow<'a, str>>, bool) {
    if bytes.is_empty() {
        return (None, false);
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_text = essence.starts_with("text/")
        || [
            "application/json",
            "application/javascript",
            "application/xml",
            "application/x-www-form-urlencoded",
        ]
        .contains(&essence.as_str())
        || essence.ends_with("+json")
        || essence.ends_with("+xml");
    match std::str::from_utf8(bytes) {
        Ok(text) if is_text && !headers.contains_key(CONTENT_ENCODING) => {
            (Some(Cow::Borrowed(text)), false)
        }
        _ => (Some(Cow::Owned(BASE64.encode(bytes))), true),
    }
}

/// A function's answer to an [`HttpEvent`].
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    status_code: u16,
    #[serde(default)]
    headers: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    multi_value_headers: Option<BTreeMap<String, Vec<Value>>>,
    #[serde(default)]
    cookies: Option<Vec<String>>,
    #[serde(default, borrow)]
    body: Option<Cow<'a, str>>,
    #[serde(default)]
    is_base64_encoded: Option<bool>,
}

/// Turns a function's answer into a response. JSON without a `statusCode` becomes the body of a
/// 200, as with API Gateway.
///
/// # Errors
/// Says what is wrong with the answer.
pub fn answer_to_response(payload: &[u8]) -> Result<Response<Bytes>, String> {
    let answer = match serde_json::from_slice::<Answer<'_>>(payload) {
        Ok(answer) => answer,
        Err(error) => return inferred(payload, &error),
    };
    let mut response = Response::new(match answer.body {
        Some(body) if answer.is_base64_encoded == Some(true) => BASE64
            .decode(body.as_bytes())
            .map_err(|error| format!("the body is not base64: {error}"))?
            .into(),
        Some(body) => Bytes::from(body.into_owned()),
        None => Bytes::new(),
    });
    *response.status_mut() = StatusCode::from_u16(answer.status_code)
        .ok()
        .filter(|status| !status.is_informational())
        .ok_or_else(|| format!("statusCode {} can't be", answer.status_code))?;
    let headers = response.headers_mut();
    let many = answer
        .multi_value_headers
        .into_iter()
        .flatten()
        .flat_map(|(name, values)| values.into_iter().map(move |value| (name.clone(), value)));
    for (name, value) in answer.headers.into_iter().flatten().chain(many) {
        let text = match value {
            Value::String(text) => text,
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(format!("header {name:?} is no text")),
        };
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| format!("{name:?} is no header's name"))?;
        // These belong to the connection, not to the answer.
        if !["connection", "transfer-encoding", "content-length", "keep-alive", "upgrade"]
            .contains(&name.as_str())
        {
            let value = HeaderValue::from_bytes(text.as_bytes())
                .map_err(|_| format!("header {name:?} holds what no header can"))?;
            headers.append(name, value);
        }
    }
    for cookie in answer.cookies.into_iter().flatten() {
        headers.append(
            SET_COOKIE,
            HeaderValue::from_bytes(cookie.as_bytes())
                .map_err(|_| "a cookie holds what no header can".to_owned())?,
        );
    }
    headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("text/plain;charset=UTF-8"));
    Ok(response)
}

fn inferred(payload: &[u8], error: &serde_json::Error) -> Result<Response<Bytes>, String> {
    let json: Value =
        serde_json::from_slice(payload).map_err(|_| "the answer is not JSON".to_owned())?;
    if json.get("statusCode").is_some() {
        return Err(error.to_string());
    }
    let body = match json {
        Value::String(text) => Bytes::from(text),
        _ => Bytes::copy_from_slice(payload),
    };
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use flashsale::domain::Timestamp;
    use lambda_http::{RequestExt as _, request};
    use serde_json::json;

    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn event(request: &Request<Bytes>) -> Value {
        let path = request.uri().path().to_owned();
        let event = HttpEvent {
            request,
            path: &path,
            route: Some("/api/sales/{sale_id}"),
            path_parameters: BTreeMap::from([("sale_id".to_owned(), "7".to_owned())]),
            host: &"shop.example:8080".parse().unwrap(),
            source: "192.0.2.1".parse().unwrap(),
            request_id: "r-1",
            trace: TRACE.parse().ok(),
            now: Timestamp::from_epoch_ms(1_795_305_600_000),
        };
        serde_json::from_slice(&event.to_json().unwrap()).unwrap()
    }

    #[test]
    fn a_request_becomes_an_event_that_functions_can_read() {
        let request = Request::post("/api/sales/7?a=1&a=2&b=x%20y")
            .header("host", "shop.example:8080")
            .header("user-agent", "test")
            .header("cookie", "one=1; two=2")
            .header("cookie", "three=3")
            .header("x-many", "1")
            .header("x-many", "2")
            .header("x-forwarded-for", "203.0.113.9")
            .header("traceparent", TRACE.replace('7', "8"))
            .header("tracestate", "made=up")
            .header("content-type", "application/json; charset=utf-8")
            .body(Bytes::from_static(b"{\"a\":\"\xc3\xa9\"}"))
            .unwrap();
        let json = event(&request);
        assert_eq!(json["routeKey"], "ANY /api/sales/{sale_id}");
        assert_eq!(json["cookies"], json!(["one=1", "two=2", "three=3"]));
        assert_eq!(json["queryStringParameters"], json!({ "a": "1,2", "b": "x y" }));
        assert_eq!(json["pathParameters"], json!({ "sale_id": "7" }));
        assert_eq!(json["headers"]["x-many"], "1,2");
        assert_eq!(json["headers"]["x-forwarded-for"], "203.0.113.9, 192.0.2.1");
        assert_eq!(json["headers"]["x-request-id"], "r-1");
        assert_eq!(json["headers"].get("cookie"), None);
        assert_eq!(
            (&json["headers"]["traceparent"], json["headers"].get("tracestate")),
            (&json!(TRACE), None),
            "the gateway's own value"
        );
        assert_eq!(
            (&json["body"], &json["isBase64Encoded"]),
            (&json!("{\"a\":\"é\"}"), &json!(false))
        );
        let context = &json["requestContext"];
        assert_eq!(
            (&context["domainName"], &context["domainPrefix"]),
            (&json!("shop.example"), &json!("shop"))
        );
        assert_eq!(context["http"]["sourceIp"], "192.0.2.1");
        assert_eq!(context["time"], "22/Nov/2026:00:00:00 +0000");

        let read = request::from_str(&json.to_string()).unwrap();
        assert_eq!(read.method(), "POST");
        assert_eq!(read.uri().path(), "/api/sales/7");
        assert_eq!(read.uri().query(), Some("a=1&a=2&b=x%20y"));
        assert_eq!(read.headers()["cookie"], "one=1; two=2; three=3");
        assert_eq!(read.raw_http_path(), "/api/sales/7");
        assert_eq!(&**read.body(), "{\"a\":\"é\"}".as_bytes());
    }

    #[test]
    fn a_body_that_is_no_text_is_base64() {
        for (kind, bytes, encoded) in [
            ("application/octet-stream", b"text".as_slice(), "dGV4dA=="),
            ("application/json", b"\xff\x00", "/wA="),
            ("image/png", b"\x89PNG", "iVBORw=="),
        ] {
            let request = Request::post("/")
                .header("host", "shop.example")
                .header("content-type", kind)
                .body(Bytes::from_static(bytes))
                .unwrap();
            let json = event(&request);
            assert_eq!(
                (&json["body"], &json["isBase64Encoded"]),
                (&json!(encoded), &json!(true)),
                "{kind}"
            );
            assert_eq!(&**request::from_str(&json.to_string()).unwrap().body(), bytes);
        }
        assert_eq!(event(&Request::get("/").body(Bytes::new()).unwrap()).get("body"), None);
    }

    #[test]
    fn an_answer_becomes_a_response() {
        let answer = json!({
            "statusCode": 201, "headers": { "x-one": "1", "X-Number": 2, "transfer-encoding": "chunked" },
            "multiValueHeaders": { "x-many": ["1", "2"] },
            "cookies": ["a=1; HttpOnly", "b=2"], "body": "/wA=", "isBase64Encoded": true,
        });
        let response = answer_to_response(answer.to_string().as_bytes()).unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(&response.body()[..], b"\xff\x00");
        let all = |name: &str| {
            response
                .headers()
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(all("set-cookie"), ["a=1; HttpOnly", "b=2"]);
        assert_eq!(
            (all("x-one"), all("x-number"), all("x-many")),
            (vec!["1"], vec!["2"], vec!["1", "2"])
        );
        assert!(all("transfer-encoding").is_empty());

        let plain = answer_to_response(br#"{"hello":"world"}"#).unwrap();
        assert_eq!(
            (plain.status().as_u16(), &plain.body()[..]),
            (200, br#"{"hello":"world"}"#.as_slice())
        );
        assert_eq!(plain.headers()["content-type"], "application/json");
        assert_eq!(&answer_to_response(br#""hello""#).unwrap().body()[..], b"hello");
    }

    #[test]
    fn an_answer_that_can_t_be_is_refused() {
        for wrong in [
            "",
            "no json",
            r#"{"statusCode":99}"#,
            r#"{"statusCode":101}"#,
            r#"{"statusCode":"many"}"#,
            r#"{"statusCode":200,"headers":{"a b":"1"}}"#,
            r#"{"statusCode":200,"headers":{"a":"1\n2"}}"#,
            r#"{"statusCode":200,"headers":{"a":{}}}"#,
            r#"{"statusCode":200,"cookies":["\u0000"]}"#,
            r#"{"statusCode":200,"body":"?","isBase64Encoded":true}"#,
        ] {
            assert!(answer_to_response(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
