//! `audit`: whether the books balance.

use std::{process::ExitCode, time::Duration};

use flashsale::{api::SaleBooks, app::App, config::ServersMode};
use tokio::time::Instant;

use super::progress::Progress;
use crate::cli;

/// Reads the books and prints them. If they do not balance or a store does not answer, as right
/// after a failover, it reads again until `within_ms` have passed.
pub async fn run(app: &App, within_ms: u64) -> anyhow::Result<ExitCode> {
    let deadline = Instant::now() + Duration::from_millis(within_ms);
    let (books, parked) = loop {
        let read = read(app).await;
        let balance =
            matches!(&read, Ok((books, _)) if books.iter().all(|sale| sale.findings.is_empty()));
        if balance || Instant::now() >= deadline {
            break read?;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    for sale in &books {
        print(sale)?;
    }
    let findings: usize = books.iter().map(|sale| sale.findings.len()).sum();
    if parked > 0 {
        cli::say(&format!("note: {parked} messages are parked"))?;
    }
    if app.config.servers == ServersMode::Embedded {
        cli::say(
            "note: embedded, reservations are in the memory of the process that serves; \
             this command checks the ledger alone",
        )?;
    }
    if findings == 0 {
        cli::say(&format!("the books of {} sales balance", books.len()))?;
        return Ok(ExitCode::SUCCESS);
    }
    cli::say(&format!("{findings} findings: the books do not balance"))?;
    Ok(ExitCode::FAILURE)
}

/// The books, and the number of parked messages.
async fn read(app: &App) -> anyhow::Result<(Vec<SaleBooks>, u64)> {
    let progress = Progress::open_ended("reservations and orders compared");
    let books = app.audit_watched(&|compared| progress.advance(compared)).await?;
    progress.end();
    Ok((books, app.ports.queue.depth().await?.parked))
}

fn print(sale: &SaleBooks) -> anyhow::Result<()> {
    let SaleBooks { sale_id, stock, available, reserved, sold, .. } = sale;
    cli::say(&format!(
        "{sale_id}  stock {stock} = available {available} + reserved {reserved} + sold {sold}  {:?}",
        sale.title
    ))?;
    for finding in &sale.findings {
        cli::say(&format!(
            "  promise {} is broken: {} {}",
            finding.promise,
            finding.what,
            finding.ids.join(" ")
        ))?;
    }
    Ok(())
}
