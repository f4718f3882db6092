//! What the OpenAPI document says of this function.

use flashsale::{
    app::{SaleList, SaleView},
    domain::SaleId,
    http::openapi::{Operation, get},
};

/// The group these operations are shown in, and what it is about.
pub const GROUP: (&str, &str) = ("Sales", "Public, and cached for a moment.");

/// The function's operations.
pub fn operations() -> Vec<Operation> {
    vec![
        get("/api/sales", "list_sales", "All sales, newest first.")
            .about(
                "Without descriptions. Compressed for those who take gzip; 304 for those whose `If-None-Match` names the answer's `ETag`.",
            )
            .paged::<SaleId>()
            .gives::<SaleList>(200, "A page of them.")
            .with_header("ETag", "Names the answer; `server_time` does not count.")
            .with_header("Server-Time", "The server's clock when it answered."),
        get("/api/sales/{sale_id}", "get_sale", "One sale.").gives::<SaleView>(200, "The sale."),
    ]
}
