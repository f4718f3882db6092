//! `sales create`.

use std::process::ExitCode;

use anyhow::Context as _;
use flashsale::{
    api::NewSale,
    app::App,
    domain::{Allocation, Timestamp},
};

use super::refused;
use crate::cli;

/// The sale as the flags describe it.
pub struct Wanted<'a> {
    pub title: String,
    pub stock: u32,
    pub price: i64,
    pub currency: &'a str,
    pub per_user_limit: u32,
    pub starts_in_ms: u64,
    pub ends_in_ms: u64,
    pub by_draw: bool,
    pub entries_open_in_ms: u64,
    pub invite_seconds: Option<u32>,
    pub eligible_registered_before: Option<Timestamp>,
    pub units_per_prefix: Option<u32>,
}

/// Makes a sale and prints it as one JSON object.
pub async fn create(app: &App, wanted: Wanted<'_>) -> anyhow::Result<ExitCode> {
    let now = app.now();
    let window = now.plus_ms(wanted.starts_in_ms)..now.plus_ms(wanted.ends_in_ms);
    let new = NewSale {
        currency: Some(wanted.currency.parse().context("--currency")?),
        per_user_limit: Some(wanted.per_user_limit),
        allocation: wanted.by_draw.then_some(Allocation::Draw),
        entries_open_at: wanted.by_draw.then(|| now.plus_ms(wanted.entries_open_in_ms)),
        invite_seconds: wanted.invite_seconds,
        eligible_registered_before: wanted.eligible_registered_before,
        units_per_prefix: wanted.units_per_prefix,
        ..NewSale::new(wanted.title, wanted.price, wanted.stock, window)
    };
    let sale = app.create_sale(new).await.map_err(|problem| refused(&problem))?;
    cli::say(&serde_json::to_string(&sale)?)?;
    Ok(ExitCode::SUCCESS)
}
