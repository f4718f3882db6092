//! A sale's orders as CSV (RFC 4180), for spreadsheets.
//!
//! A spreadsheet runs a cell that begins like a formula. The only free text here is the reason that
//! an administrator typed; such a text gets an apostrophe in front, which spreadsheets hide.

use std::fmt::Write as _;

use crate::domain::{OrderSignals, ReportedOrder};

/// The first line: the names of the columns.
pub const CSV_HEADER: &str = "order_id,user_id,status,reason,cancellation_reason,price,currency,created_at,pay_by,updated_at,\
                              address_prefix,account_age_ms,ticket_after_ms,order_after_ms\r\n";

/// Appends one line.
pub fn csv_line(text: &mut String, reported: &ReportedOrder) {
    let (order, signals) = (&reported.order, reported.signals());
    let OrderSignals { address_prefix, account_age_ms, ticket_after_ms, order_after_ms } = signals;
    let fixed = [
        order.order_id.to_string(),
        order.user_id.to_string(),
        order.status.as_str().to_owned(),
        order.reason.map_or("", |reason| reason.as_str()).to_owned(),
        safe(order.cancellation_reason.as_deref().unwrap_or_default()),
        order.price.to_string(),
        order.currency.as_str().to_owned(),
        order.created_at.to_string(),
        or_empty(order.pay_by),
        order.updated_at.to_string(),
        or_empty(address_prefix),
        account_age_ms.to_string(),
        or_empty(ticket_after_ms),
        or_empty(order_after_ms),
    ];
    for (index, cell) in fixed.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        write!(text, "{separator}{cell}").expect("a String takes any text");
    }
    text.push_str("\r\n");
}

fn or_empty(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

/// Free text as a cell: quoted where it must be, and never a formula.
fn safe(text: &str) -> String {
    let formula = text.trim_start().starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
        || text.starts_with(['\t', '\r', '\n']);
    let guard = if formula { "'" } else { "" };
    if text.contains(['"', ',', '\r', '\n', ';', '\t']) || formula {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{Order, OrderOrigin, OrderStatus},
        testing,
    };

    fn line(cancellation_reason: Option<&str>) -> String {
        let request = testing::request(&testing::sale(1), testing::user_id());
        let order = Order {
            status: OrderStatus::Cancelled,
            cancellation_reason: cancellation_reason.map(str::to_owned),
            ..Order::queued(&request)
        };
        let origin = OrderOrigin {
            address_prefix: "192.0.2.0/24".parse().ok(),
            opened_at: Some(testing::START.plus_ms(7)),
        };
        let mut text = String::new();
        csv_line(&mut text, &ReportedOrder { order, origin });
        text
    }

    #[test]
    fn a_line_has_a_cell_for_each_column() {
        let text = line(None);
        assert_eq!(text.matches(',').count(), CSV_HEADER.matches(',').count());
        assert!(text.ends_with(",,2026-11-11T20:00:00.000Z,192.0.2.0/24,0,-7,-7\r\n"), "{text}");
        assert!(text.contains(",cancelled,,,1999,USD,2026-11-11T20:00:00.000Z,"), "{text}");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for (reason, cell) in [
            ("resale", "resale"),
            ("a, b", "\"a, b\""),
            ("said \"no\"", "\"said \"\"no\"\"\""),
            ("two\r\nlines", "\"two\r\nlines\""),
            ("=HYPERLINK(\"http://x\")", "\"'=HYPERLINK(\"\"http://x\"\")\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            (" =1", "\"' =1\""),
            ("\t=1", "\"'\t=1\""),
            ("＝1", "\"'＝1\""),
        ] {
            assert_eq!(safe(reason), cell);
            assert!(line(Some(reason)).contains(&format!(",cancelled,,{cell},1999,")));
        }
    }
}
