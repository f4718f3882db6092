//! What the OpenAPI document says of this function.

use flashsale::{
    app::{BanView, NewBan, NewSale, SaleBooks, SaleStats},
    domain::{IdempotencyKey, Sale, SaleChange},
    http::openapi::{Operation, delete, get, patch, post},
};
use utoipa::openapi::{ObjectBuilder, Type};

use super::{BanPage, Offset, ParkedList};

/// The group these operations are shown in, and what it is about.
pub const GROUP: (&str, &str) = ("Administration", "For users with the role `admin`.");

/// The function's operations.
pub fn operations() -> Vec<Operation> {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let key = text()
        .min_length(Some(1))
        .max_length(Some(IdempotencyKey::CHARS_MAX))
        .pattern(Some("^[!-~]+$"));
    let kinds = text().enum_values(Some(["user", "address", "phone"]));
    vec![
        post("/api/admin/sales", "create_sale", "Creates a sale.")
            .about(
                "A request with an `Idempotency-Key` may be sent again when its answer did not come: the same administrator's \
                 same key gives the sale that the first request has created, with the first answer. The key is kept with the sale. \
                 With another body it is refused as `invalid`.",
            )
            .admin()
            .header(IdempotencyKey::HEADER, "Names the request: visible ASCII characters.", key)
            .body::<NewSale>()
            .gives::<Sale>(201, "The sale as the ledger has it.")
            .with_header("Location", "The sale's page."),
        patch("/api/admin/sales/{sale_id}", "change_sale", "Changes a sale, also while it runs.")
            .about("What is left out stays. `stock` can't fall below `sold`, nor `per_user_limit` at all once units are sold.")
            .admin()
            .body::<SaleChange>()
            .gives::<Sale>(200, "The sale as it is now."),
        get("/api/admin/sales/{sale_id}/stats", "sale_stats", "The figures of a sale, uncached.")
            .admin()
            .gives::<SaleStats>(200, "The figures."),
        get("/api/admin/sales/{sale_id}/books", "sale_books", "Whether the books of a sale balance.")
            .admin()
            .gives::<SaleBooks>(200, "The books; `findings` is empty when every promise holds."),
        get("/api/admin/parked", "list_parked", "The messages of the order queue that could not be used.")
            .admin()
            .gives::<ParkedList>(200, "At most 50 of them."),
        post("/api/admin/parked/{parked_id}/retry", "retry_parked", "Puts a parked message back into the queue.")
            .admin()
            .gives_nothing("It is in the queue again."),
        delete("/api/admin/parked/{parked_id}", "discard_parked", "Throws a parked message away.").admin().gives_nothing("It is gone."),
        get("/api/admin/blacklist", "list_bans", "The bans that hold, newest first.")
            .admin()
            .paged::<Offset>()
            .gives::<BanPage>(200, "A page of them."),
        post("/api/admin/blacklist", "ban", "Bans a user, a phone number or an address.")
            .about("A ban of the same again replaces the first.")
            .admin()
            .body::<NewBan>()
            .gives::<BanView>(201, "The ban, `value` in its normal form."),
        delete("/api/admin/blacklist", "lift_ban", "Lifts a ban.")
            .admin()
            .query("kind", "What is banned.", kinds)
            .query("value", "The id, the address or the phone number.", text())
            .gives_nothing("The ban holds no more.")
            .refuses(&["not-found"]),
    ]
}
