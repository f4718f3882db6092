//! A sale's orders: list, search, CSV, and cancellation with a reason.

use flashsale::{
    api::{
        AdminCancellation, CSV_HEADER, OrderView, ReportedOrderPage, ReportedOrderView, csv_line,
    },
    app::{Admin, App},
    domain::{
        AddressPrefix, OrderId, OrderStatus, Phone, ReportFilter, ReportPage, ReportSort, SaleId,
    },
    http::{
        Body, HandlerResult, Params,
        axum::{
            Json,
            extract::{Query, State, rejection::QueryRejection},
            http::{HeaderValue, Uri, header},
            response::{IntoResponse as _, Response},
        },
        endpoints::{Endpoint, get, post},
    },
    problem::{Problem, ProblemKind},
};
use serde::Deserialize;

/// Orders on a page of the list: the default, and the maximum, as on every page.
const LIST_LIMITS: (u32, u32) = (20, 100);
/// Orders in one answer of CSV: some 1.3 MB, which Lambda's limit of 6 MB allows.
const CSV_LIMITS: (u32, u32) = (5_000, 5_000);
const STATUSES: &[&str] = &["confirmed", "paid", "cancelled", "expired", "rejected"];

pub(super) fn get_orders() -> Endpoint {
    searched(get("/api/admin/sales/{sale_id}/orders", list))
        .called(
            "list_sale_orders",
            "The recorded orders of a sale, with signals about their buyers.",
        )
        .about(
            "A page may be short, or empty, although it is not the last: only `next_cursor` tells.",
        )
        .paged::<OrderId>()
        .gives::<ReportedOrderPage>(200, "A page of them.")
}

pub(super) fn get_orders_csv() -> Endpoint {
    searched(get("/api/admin/sales/{sale_id}/orders.csv", csv))
        .called("export_sale_orders", "The recorded orders of a sale as CSV.")
        .about(
            "At most 5000 orders; while there are more, the header `Link` names the next part (`rel=\"next\"`). Only the first \
             part has the line with the names of the columns, so the parts one after the other are one file.",
        )
        .optional("limit", "Orders wanted: 1 to 5000, by default 5000.", &[])
        .optional("cursor", "Where the part begins; the header `Link` has it.", &[])
        .gives_bytes(200, "text/csv; charset=utf-8", "A part of them.")
        .with_header("Content-Disposition", "`attachment`, and a file name.")
}

/// What both lists read from the query.
fn searched(endpoint: Endpoint) -> Endpoint {
    endpoint
        .admin()
        .optional("sort", "By id; `newest` first unless said otherwise.", &["newest", "oldest"])
        .optional("status", "Only orders with this status.", STATUSES)
        .optional("order_id", "Only this order.", &[])
        .optional("phone", "Only orders of the user with this number, with its country code.", &[])
        .optional(
            "address_prefix",
            "Only orders from this network: an address, or its prefix such as `203.0.113.0/24`.",
            &[],
        )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawQuery {
    cursor: Option<String>,
    limit: Option<String>,
    sort: Option<String>,
    status: Option<String>,
    order_id: Option<String>,
    phone: Option<String>,
    address_prefix: Option<String>,
}

type Raw = Result<Query<RawQuery>, QueryRejection>;

/// A query whose fields are valid.
struct Wanted {
    filter: ReportFilter,
    phone: Option<Phone>,
    sort: ReportSort,
    after: Option<OrderId>,
    limit: u32,
}

fn invalid(field: &str, expected: &str) -> Problem {
    Problem::Invalid { field: field.to_owned(), expected: expected.to_owned() }
}

/// Reads a field that may be left out.
fn read<T>(
    field: &'static str,
    text: Option<&str>,
    expected: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, Problem> {
    match text {
        None => Ok(None),
        Some(text) => parse(text).map(Some).ok_or_else(|| invalid(field, expected)),
    }
}

/// An address stands for its network.
fn network(text: &str) -> Option<AddressPrefix> {
    if let Ok(address) = text.parse() {
        return Some(AddressPrefix::of(address));
    }
    // Orders keep the widest prefix only.
    text.parse().ok().filter(|_| !text.ends_with("/56"))
}

impl Wanted {
    fn read(raw: Raw, (default, max): (u32, u32)) -> Result<Self, Problem> {
        let Ok(Query(raw)) = raw else {
            return Err(invalid(
                "query",
                "only cursor, limit, sort, status, order_id, phone and address_prefix, each once",
            ));
        };
        let limit = read("limit", raw.limit.as_deref(), &format!("1 to {max}"), |text| {
            text.parse().ok().filter(|limit| (1..=max).contains(limit))
        })?;
        let sort = read("sort", raw.sort.as_deref(), "newest or oldest", |text| match text {
            "newest" => Some(ReportSort::Newest),
            "oldest" => Some(ReportSort::Oldest),
            _ => None,
        })?;
        let status = read(
            "status",
            raw.status.as_deref(),
            &STATUSES.join(", "),
            |text| -> Option<OrderStatus> {
                text.parse().ok().filter(|_| STATUSES.contains(&text))
            },
        )?;
        let id = |field, text: Option<&str>| {
            read(field, text, "an order's id", |text| text.parse().ok())
        };
        Ok(Self {
            filter: ReportFilter {
                status,
                order_id: id("order_id", raw.order_id.as_deref())?,
                user_id: None,
                address_prefix: read(
                    "address_prefix",
                    raw.address_prefix.as_deref(),
                    "an IP address, or an IPv4 address with /24 or an IPv6 address with /48",
                    network,
                )?,
            },
            phone: read("phone", raw.phone.as_deref(), "a number with its country code", |text| {
                Phone::parse(text, None).ok()
            })?,
            sort: sort.unwrap_or_default(),
            after: id("cursor", raw.cursor.as_deref())?,
            limit: limit.unwrap_or(default),
        })
    }

    async fn page(self, app: &App, admin: &Admin, sale_id: SaleId) -> Result<ReportPage, Problem> {
        let Self { mut filter, phone, sort, after, limit } = self;
        if let Some(phone) = phone {
            match app.filter_by_phone(admin, filter, &phone).await? {
                Some(found) => filter = found,
                // Nobody has the number: no order can match.
                None => {
                    return app.sale_exists(admin, sale_id).await.map(|()| ReportPage::default());
                }
            }
        }
        app.sale_orders(admin, sale_id, &filter, sort, after, limit).await
    }
}

async fn list(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
    query: Raw,
) -> HandlerResult<Json<ReportedOrderPage>> {
    let page = Wanted::read(query, LIST_LIMITS)?.page(&app, &admin, sale_id).await?;
    let orders = page.orders.into_iter().map(ReportedOrderView::from).collect();
    Ok(Json(ReportedOrderPage { orders, next_cursor: page.next }))
}

async fn csv(
    State(app): State<App>,
    admin: Admin,
    Params(sale_id): Params<SaleId>,
    uri: Uri,
    query: Raw,
) -> HandlerResult<Response> {
    let wanted = Wanted::read(query, CSV_LIMITS)?;
    let mut text = if wanted.after.is_none() { CSV_HEADER.to_owned() } else { String::new() };
    let page = wanted.page(&app, &admin, sale_id).await?;
    for reported in &page.orders {
        csv_line(&mut text, reported);
    }
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"orders-{sale_id}.csv\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let mut response = (headers, text).into_response();
    if let Some(next) = page.next {
        let link = HeaderValue::try_from(next_part(&uri, next)).map_err(|_| Problem::Internal)?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// The same request with another cursor, as the value of the header `Link`.
fn next_part(uri: &Uri, next: OrderId) -> String {
    let kept = uri.query().unwrap_or_default().split('&');
    let kept = kept.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let query: Vec<String> = kept.map(str::to_owned).chain([format!("cursor={next}")]).collect();
    format!("<{}?{}>; rel=\"next\"", uri.path(), query.join("&"))
}

pub(super) fn post_cancellation() -> Endpoint {
    post("/api/admin/orders/{order_id}/cancellation", cancel)
        .called("cancel_order_of_anybody", "Cancels a buyer's order that is queued or confirmed, and returns its unit.")
        .about("A paid order is final. The buyer reads the reason. The same cancellation again gives the same answer.")
        .admin()
        .body::<AdminCancellation>()
        .gives::<OrderView>(200, "The order, cancelled.")
        .refuses(&[ProblemKind::OrderFinal])
}

async fn cancel(
    State(app): State<App>,
    admin: Admin,
    Params(order_id): Params<OrderId>,
    Body(AdminCancellation { reason }): Body<AdminCancellation>,
) -> HandlerResult<Json<OrderView>> {
    Ok(Json(app.cancel_order_of_anybody(&admin, order_id, &reason).await?.into()))
}

#[cfg(test)]
mod tests {
    use flashsale::testing::{self, Reply, Shop, Site};
    use serde_json::{Value, json};

    use crate::endpoints;

    async fn site() -> (Shop, Site, String) {
        let shop = Shop::without_captchas().await;
        let (site, token) = (shop.serve(endpoints()), shop.admin_token().await);
        (shop, site, token)
    }

    fn ids(reply: &Reply) -> Vec<String> {
        let json = reply.json();
        let orders = json["orders"].as_array().unwrap();
        orders.iter().map(|order| order["order_id"].as_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn orders_are_listed_with_their_signals() {
        let (shop, site, token) = site().await;
        let sale = shop.sale(2).await;
        let mut who = shop.shoppers(1).await.remove(0);
        who.client = testing::client_at("203.0.113.77");
        shop.clock.advance_ms(1_000);
        let ticket = shop.ticket(&who, sale).await.unwrap();
        shop.clock.advance_ms(500);
        let order = shop.order(&who, sale, &ticket).await.unwrap();
        shop.work().await;
        let path = format!("/api/admin/sales/{sale}/orders");
        let page = site.get(&path, Some(&token)).await.expect(200).json();
        let (listed, next) = (&page["orders"][0], &page["next_cursor"]);
        assert_eq!(*next, Value::Null);
        for (name, value) in [
            ("order_id", json!(order)),
            ("user_id", json!(who.session.user_id)),
            ("status", json!("confirmed")),
            ("address_prefix", json!("203.0.113.0/24")),
            ("account_age_ms", json!(1_500)),
            ("ticket_after_ms", json!(1_000)),
            ("order_after_ms", json!(1_500)),
        ] {
            assert_eq!(listed[name], value, "{name}");
        }
        assert!(!page.to_string().contains("203.0.113.77"), "never the whole address");
    }

    #[tokio::test]
    async fn orders_are_searched_sorted_and_paged() {
        let (shop, site, token) = site().await;
        let sale = shop.sale(5).await;
        let mut orders = Vec::new();
        for (n, who) in shop.shoppers(3).await.into_iter().enumerate() {
            let client = testing::client_at(&format!("198.51.{n}.9"));
            let who = flashsale::app::Caller { client, ..who };
            shop.clock.advance_ms(1);
            orders.push(shop.buy(&who, sale).await.to_string());
            if n == 0 {
                shop.work().await;
                shop.app.pay_order(&who, orders[0].parse().unwrap()).await.unwrap();
            }
        }
        shop.work().await;
        let get = async |query: &str| {
            site.get(&format!("/api/admin/sales/{sale}/orders?{query}"), Some(&token))
                .await
                .expect(200)
        };
        assert_eq!(ids(&get("sort=oldest").await), orders);
        let newest: Vec<String> = orders.iter().rev().cloned().collect();
        assert_eq!(ids(&get("").await), newest);
        let first = get("limit=2").await;
        assert_eq!(ids(&first), newest[..2]);
        let next = first.json()["next_cursor"].as_str().unwrap().to_owned();
        assert_eq!(ids(&get(&format!("limit=2&cursor={next}")).await), newest[2..]);
        assert_eq!(ids(&get("status=paid").await), orders[..1]);
        assert_eq!(ids(&get(&format!("order_id={}", orders[1])).await), orders[1..2]);
        assert_eq!(ids(&get("address_prefix=198.51.1.0%2F24").await), orders[1..2]);
        assert_eq!(ids(&get("address_prefix=198.51.2.200").await), orders[2..]);
        assert_eq!(ids(&get("address_prefix=198.51.2.200&status=paid").await), [""; 0]);
        assert_eq!(ids(&get("phone=%2B12015550111").await), [""; 0], "nobody has it");

        let path = format!("/api/admin/sales/{sale}/orders");
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("sort=random", "sort"),
            ("status=queued", "status"),
            ("order_id=x", "order_id"),
            ("cursor=x", "cursor"),
            ("phone=1", "phone"),
            ("address_prefix=198.51.0.0%2F16", "address_prefix"),
            ("address_prefix=2001:db8::%2F56", "address_prefix"),
            ("colour=red", "query"),
        ] {
            let reply = site.get(&format!("{path}?{query}"), Some(&token)).await;
            assert_eq!(reply.refused(422, "invalid").json()["field"], field, "{query}");
        }
    }

    #[tokio::test]
    async fn a_phone_leads_to_its_user_s_orders() {
        let (shop, site, token) = site().await;
        let sale = shop.sale(5).await;
        let phone = flashsale::domain::Phone::from_e164("+12015550123").unwrap();
        let role = flashsale::domain::Role::Shopper;
        shop.app.add_user(phone, testing::PASSWORD.to_owned(), role).await.unwrap();
        let signed_in = shop.sign_in("+12015550123", testing::PASSWORD).await.unwrap();
        let who = shop.caller(&signed_in.token).await;
        let order = shop.buy(&who, sale).await.to_string();
        shop.buy(&shop.shoppers(1).await[0], sale).await;
        shop.work().await;
        let path = format!("/api/admin/sales/{sale}/orders?phone=%2B1+201-555-0123");
        assert_eq!(ids(&site.get(&path, Some(&token)).await.expect(200)), [order]);
    }

    #[tokio::test]
    async fn the_parts_of_the_csv_are_one_file() {
        let (shop, site, token) = site().await;
        let sale = shop.sale(5).await;
        for who in shop.shoppers(5).await {
            shop.clock.advance_ms(1);
            shop.buy(&who, sale).await;
        }
        shop.work().await;
        let (mut path, mut file, mut parts) =
            (format!("/api/admin/sales/{sale}/orders.csv?sort=oldest&limit=2"), String::new(), 0);
        loop {
            let part = site.get(&path, Some(&token)).await.expect(200);
            assert_eq!(part.header("content-type"), "text/csv; charset=utf-8");
            assert!(
                part.header("content-disposition").starts_with("attachment; filename=\"orders-")
            );
            file.push_str(std::str::from_utf8(&part.body).unwrap());
            parts += 1;
            let link = part.header("link").to_owned();
            let Some(next) = link.strip_prefix('<') else { break };
            path = next.strip_suffix(">; rel=\"next\"").unwrap().to_owned();
        }
        assert_eq!(parts, 3, "2, 2 and 1 orders");
        assert_eq!(file.matches("order_id").count(), 1, "{file}");
        assert_eq!(file.matches("\r\n").count(), 6, "{file}");
        let all = site
            .get(&format!("/api/admin/sales/{sale}/orders.csv?sort=oldest"), Some(&token))
            .await;
        assert_eq!(all.body, file.as_bytes());
        let path = format!("/api/admin/sales/{sale}/orders.csv?limit=5001");
        assert_eq!(
            site.get(&path, Some(&token)).await.refused(422, "invalid").json()["field"],
            "limit"
        );
    }

    #[tokio::test]
    async fn a_cancelled_order_tells_its_buyer_why_and_its_unit_is_sold_again() {
        let (shop, site, token) = site().await;
        let (sale, who) = (shop.sale(1).await, shop.shoppers(2).await);
        let order = shop.buy(&who[0], sale).await;
        shop.work().await;
        let path = format!("/api/admin/orders/{order}/cancellation");
        let cancel =
            async |reason: &str| site.post(&path, Some(&token), json!({ "reason": reason })).await;
        for wrong in ["", "  ", &"x".repeat(501)] {
            assert_eq!(cancel(wrong).await.refused(422, "invalid").json()["field"], "reason");
        }
        let cancelled = cancel(" bought by a program ").await.expect(200).json();
        assert_eq!(cancelled["status"], "cancelled");
        assert_eq!(cancelled["cancellation_reason"], "bought by a program");
        assert_eq!(cancel("bought by a program").await.expect(200).json(), cancelled, "again");
        assert_eq!(
            cancel("other").await.refused(409, "order-final").json()["order_status"],
            "cancelled"
        );
        let seen = shop.app.order(&who[0], order).await.unwrap();
        assert_eq!(seen.cancellation_reason.as_deref(), Some("bought by a program"));

        let again = shop.buy(&who[1], sale).await;
        shop.work().await;
        shop.app.pay_order(&who[1], again).await.unwrap();
        let path = format!("/api/admin/orders/{again}/cancellation");
        let paid = site.post(&path, Some(&token), json!({ "reason": "no" })).await;
        assert_eq!(paid.refused(409, "order-final").json()["order_status"], "paid");
        shop.books_balance().await;
        let actions = site.get("/api/admin/actions", Some(&token)).await.expect(200).json();
        let actions = actions["actions"].as_array().unwrap();
        assert_eq!(actions.len(), 1, "refusals and repeats leave none: {actions:?}");
        assert_eq!(actions[0]["action"], "order-cancelled");
        assert_eq!(actions[0]["object"], order.to_string());
        assert_eq!(actions[0]["changes"][1]["to"], "bought by a program");
    }

    #[tokio::test]
    async fn a_queued_order_is_cancelled_before_it_is_recorded() {
        let (shop, site, token) = site().await;
        let (sale, who) = (shop.sale(1).await, shop.shoppers(1).await);
        let order = shop.buy(&who[0], sale).await;
        let path = format!("/api/admin/orders/{order}/cancellation");
        let cancelled =
            site.post(&path, Some(&token), json!({ "reason": "a test" })).await.expect(200);
        assert_eq!(cancelled.json()["status"], "cancelled");
        shop.work().await;
        let seen = shop.app.order(&who[0], order).await.unwrap();
        assert_eq!(seen.cancellation_reason.as_deref(), Some("a test"));
        shop.books_balance().await;
    }
}
