//! The functions of the product.

use flashsale::http::endpoints::Endpoints;

/// An HTTP function.
pub struct HttpFunction {
    pub name: &'static str,
    /// Its endpoints, as its crate declares them.
    pub endpoints: fn() -> Endpoints,
}

/// The HTTP functions, in the order of the OpenAPI document.
pub static HTTP_FUNCTIONS: [HttpFunction; 7] = [
    HttpFunction { name: "captcha", endpoints: captcha_function::endpoints },
    HttpFunction { name: "login", endpoints: login::endpoints },
    HttpFunction { name: "sales", endpoints: sales::endpoints },
    HttpFunction { name: "seckill", endpoints: seckill::endpoints },
    HttpFunction { name: "waiting-room", endpoints: waiting_room::endpoints },
    HttpFunction { name: "order-status", endpoints: order_status::endpoints },
    HttpFunction { name: "admin", endpoints: admin::endpoints },
];

/// The functions that take events instead of HTTP requests.
pub const EVENT_FUNCTIONS: [&str; 2] = ["order-worker", "sweeper"];

/// The HTTP function of that name, if it is one of the product's.
pub fn http_function(name: &str) -> Option<&'static HttpFunction> {
    HTTP_FUNCTIONS.iter().find(|function| function.name == name)
}

/// Whether the product has a function of that name.
pub fn is_ours(name: &str) -> bool {
    EVENT_FUNCTIONS.contains(&name) || http_function(name).is_some()
}

/// The names of all functions.
pub fn function_names<'a>() -> impl Iterator<Item = &'a str> {
    let http = HTTP_FUNCTIONS.iter().map(|function| function.name);
    http.chain(EVENT_FUNCTIONS).map(|name| -> &'a str { name })
}

/// Every path of an HTTP function, with the function's name.
pub fn routes<'a>() -> impl Iterator<Item = (&'a str, &'a str)> {
    HTTP_FUNCTIONS.iter().flat_map(|function| {
        let paths = (function.endpoints)().paths();
        paths.into_iter().map(|path| -> (&'a str, &'a str) { (function.name, path) })
    })
}

/// The function's name and qualifier in a reference that the Invoke API accepts: `name`,
/// `account:function:name` or a whole ARN, each with or without `:qualifier`.
pub fn reference(reference: &str) -> (&str, Option<&str>) {
    let parts: Vec<&str> = reference.split(':').collect();
    match parts.as_slice() {
        ["arn", _, "lambda", _, _, "function", name, rest @ ..]
        | [_, "function", name, rest @ ..]
        | [name, rest @ ..] => (name, rest.first().copied()),
        [] => (reference, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_in_every_usual_way() {
        for (given, qualifier) in [
            ("sales", None),
            ("sales:$LATEST", Some("$LATEST")),
            ("000000000000:function:sales", None),
            ("arn:aws:lambda:us-east-1:000000000000:function:sales", None),
            ("arn:aws:lambda:us-east-1:000000000000:function:sales:1", Some("1")),
        ] {
            assert_eq!(reference(given), ("sales", qualifier), "{given}");
        }
    }
}
