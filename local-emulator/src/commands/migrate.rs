//! `migrate`: brings the schema of the ledger up to date, or lists the pending migrations.

use std::process::ExitCode;

use flashsale::{
    config::Config,
    domain::schema::{Migration, Schema, release},
    wire,
};

use crate::{backend, cli};

pub async fn run(mut config: Config, check: bool) -> anyhow::Result<ExitCode> {
    let servers = backend::servers(&mut config).await?;
    let outcome = if check { look(&config).await } else { bring_up_to_date(&config).await };
    backend::stop(servers).await;
    outcome
}

async fn bring_up_to_date(config: &Config) -> anyhow::Result<ExitCode> {
    let migrated = wire::migrate(config).await?;
    for (migration, took) in &migrated.run {
        cli::say(&format!("done: {migration}, in {} ms", took.as_millis()))?;
    }
    if migrated.run.is_empty() {
        cli::say("nothing to do")?;
    }
    say_current(&migrated.schema)?;
    Ok(ExitCode::SUCCESS)
}

async fn look(config: &Config) -> anyhow::Result<ExitCode> {
    let schema = wire::schema(config).await?;
    if schema.pending.is_empty() {
        say_current(&schema)?;
        return Ok(ExitCode::SUCCESS);
    }
    for migration in &schema.pending {
        cli::say(&format!("pending: {migration}{}", consequence(migration)?))?;
    }
    cli::say(&format!(
        "{} migrations are pending: `migrate` runs them, and so does the first instance that starts",
        schema.pending.len()
    ))?;
    Ok(ExitCode::FAILURE)
}

/// What an operator must know before a migration is run.
fn consequence(migration: &Migration) -> anyhow::Result<String> {
    Ok(match migration.oldest_release()? {
        None => String::new(),
        Some(oldest) => format!(
            "; stop all instances of releases before {oldest} first, none of them works after it"
        ),
    })
}

fn say_current(schema: &Schema) -> anyhow::Result<()> {
    if let Some(last) = &schema.last {
        cli::say(&format!(
            "the schema is up to date for release {}; its last migration is {last}",
            release()
        ))?;
    }
    for newer in &schema.newer {
        cli::say(&format!("note: {newer} is of a newer release; this one can work with it"))?;
    }
    Ok(())
}
