//! The functions of the product: their names, and the paths that the gateway gives to each.

/// The HTTP functions and their routes; a test holds them to the functions' routers. A path belongs to one function
/// whatever the method, so that a wrong method is answered by the function that knows the right ones.
pub const HTTP_FUNCTIONS: [(&str, &[&str]); 6] = [
    ("captcha", &["/api/captchas", "/api/captchas/{captcha_id}/audio"]),
    ("login", &["/api/users", "/api/users/me/password", "/api/sessions", "/api/sessions/current"]),
    ("sales", &["/api/sales", "/api/sales/{sale_id}"]),
    ("seckill", &["/api/sales/{sale_id}/tickets", "/api/sales/{sale_id}/orders"]),
    (
        "order-status",
        &[
            "/api/orders",
            "/api/orders/{order_id}",
            "/api/orders/{order_id}/payment",
            "/api/orders/{order_id}/cancellation",
        ],
    ),
    (
        "admin",
        &[
            "/api/admin/sales",
            "/api/admin/sales/{sale_id}",
            "/api/admin/sales/{sale_id}/stats",
            "/api/admin/sales/{sale_id}/books",
            "/api/admin/parked",
            "/api/admin/parked/{parked_id}",
            "/api/admin/parked/{parked_id}/retry",
            "/api/admin/blacklist",
        ],
    ),
];

/// The functions that work on events.
pub const EVENT_FUNCTIONS: [&str; 2] = ["order-worker", "sweeper"];

/// The function's name and qualifier in what the Invoke API accepts: `name`, `account:function:name` or a whole ARN, each
/// with or without `:qualifier`.
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
