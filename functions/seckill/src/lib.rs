//! The buy path: a ticket, then an order of it.

use flashsale::{
    api::{OrderAccepted, PlaceOrder, Ticket, TicketRequest},
    app::{App, CaptchaAnswer},
    domain::SaleId,
    http::{
        Body, ClientAddress, HandlerResult, Params, SignedWriter,
        axum::{
            Json,
            extract::{Extension, State},
            http::{StatusCode, header},
            response::IntoResponse,
        },
        endpoints::{Endpoint, Endpoints, post},
    },
    problem::ProblemKind,
    trace::TraceContext,
};

/// The function's endpoints.
pub fn endpoints() -> Endpoints {
    Endpoints::new(
        "Buying",
        "A ticket, then an order of it. The same ticket gives the same order, however often it is sent.",
        [post_tickets(), post_orders()],
    )
}

/// Why there may be nothing to buy.
const NOTHING_TO_BUY: [ProblemKind; 4] = [
    ProblemKind::SaleNotOpen,
    ProblemKind::SaleEnded,
    ProblemKind::SoldOut,
    ProblemKind::AlreadyBought,
];

fn post_tickets() -> Endpoint {
    post("/api/sales/{sale_id}/tickets", ticket)
        .called("issue_ticket", "Issues a ticket, good for 60 seconds. It reserves nothing.")
        .about("A captcha of purpose `purchase` is needed unless captchas are off.")
        .signed_in()
        .body::<TicketRequest>()
        .gives::<Ticket>(201, "The ticket, and the id of the order that it will make.")
        .refuses(&NOTHING_TO_BUY)
        .refuses(&[
            ProblemKind::CaptchaRequired,
            ProblemKind::CaptchaGone,
            ProblemKind::CaptchaWrong,
        ])
}

async fn ticket(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
    Body(request): Body<TicketRequest>,
) -> HandlerResult<(StatusCode, Json<Ticket>)> {
    let captcha = CaptchaAnswer::given(request.captcha_id, request.captcha_answer);
    Ok((StatusCode::CREATED, Json(app.issue_ticket(&who, &client, sale_id, captcha).await?)))
}

fn post_orders() -> Endpoint {
    post("/api/sales/{sale_id}/orders", order)
        .called("place_order", "Makes the ticket's order, and answers when it is durable.")
        .about("After a timeout, a 429 or a 503 send the same ticket again.")
        .signed_in()
        .body::<PlaceOrder>()
        .gives::<OrderAccepted>(202, "The order is durable and will be recorded.")
        .with_header("Location", "Where to follow the order.")
        .refuses(&NOTHING_TO_BUY)
        .refuses(&[ProblemKind::BadTicket, ProblemKind::TicketExpired, ProblemKind::NotDurableYet])
}

async fn order(
    State(app): State<App>,
    SignedWriter(who): SignedWriter,
    ClientAddress(client): ClientAddress,
    Params(sale_id): Params<SaleId>,
    trace: Option<Extension<TraceContext>>,
    Body(request): Body<PlaceOrder>,
) -> HandlerResult<impl IntoResponse> {
    let accepted = app
        .place_order(
            &who,
            &client,
            sale_id,
            &request.ticket,
            trace.map(|Extension(context)| context),
        )
        .await?;
    let location = format!("/api/orders/{}", accepted.order_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(accepted)))
}
