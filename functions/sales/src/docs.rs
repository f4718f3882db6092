//! What the OpenAPI document says of this function.

use flashsale::{
    app::SaleView,
    domain::SaleId,
    http::openapi::{Operation, get},
};

use super::SalePage;

/// The group these operations are shown in, and what it is about.
pub const GROUP: (&str, &str) = ("Sales", "Public, and cached for a moment.");

/// The function's operations.
pub fn operations() -> Vec<Operation> {
    vec![
        get("/api/sales", "list_sales", "All sales, newest first.").paged::<SaleId>().gives::<SalePage>(200, "A page of them."),
        get("/api/sales/{sale_id}", "get_sale", "One sale.").gives::<SaleView>(200, "The sale."),
    ]
}
