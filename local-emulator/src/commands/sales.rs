//! `sales create`.

use std::process::ExitCode;

use anyhow::Context as _;
use flashsale::{api::NewSale, app::App};

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
}

/// Makes a sale and prints it as one JSON object.
pub async fn create(app: &App, wanted: Wanted<'_>) -> anyhow::Result<ExitCode> {
    let now = app.now();
    let new = NewSale {
        title: wanted.title,
        description: String::new(),
        image_url: String::new(),
        price: wanted.price,
        original_price: None,
        currency: Some(wanted.currency.parse().context("--currency")?),
        stock: wanted.stock,
        per_user_limit: Some(wanted.per_user_limit),
        starts_at: now.plus_ms(wanted.starts_in_ms),
        ends_at: now.plus_ms(wanted.ends_in_ms),
    };
    let sale = app.create_sale(new).await.map_err(|problem| refused(&problem))?;
    cli::say(&serde_json::to_string(&sale)?)?;
    Ok(ExitCode::SUCCESS)
}
