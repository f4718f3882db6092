//! The subcommands.

mod audit;
mod draws;
mod health;
mod invoke;
mod migrate;
mod progress;
mod sales;
mod users;

use std::process::ExitCode;

use crate::{
    backend::Backend,
    cli::{self, AllocationWord, Arguments, Command, SalesCommand, UsersCommand},
    demo, metrics, serve,
    traces::{self, Traces},
};

/// Runs what the command line asks for.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Command::Health { address, timeout }) = &arguments.command {
        // Before the configuration is read: with an address `health` needs none, and it exits only
        // with 0 or 1.
        return health::run(&arguments, address.as_deref(), *timeout).await;
    }
    if let Some(Command::Sales(SalesCommand::VerifyDraw {
        sale,
        entries,
        seed,
        seed_hash,
        beacon_value,
        out,
    })) = &arguments.command
    {
        return draws::verify(&draws::Given {
            sale_id: *sale,
            entries,
            seed,
            seed_hash: *seed_hash,
            beacon_value: beacon_value.as_deref(),
            out: out.as_deref(),
        });
    }
    let config = arguments.config()?;
    let command = arguments.command.unwrap_or(Command::Serve);
    // Other commands end too soon to export anything to a collector.
    let traces = match command {
        Command::Serve => traces::start(&config)?,
        _ => {
            traces::check(&config)?;
            flashsale::logging::start(&config)?;
            Traces::default()
        }
    };
    for flag in arguments.backend.with_passwords() {
        let variable =
            format!("FLASHSALE_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase());
        tracing::warn!(
            "{flag}: its password shows in the list of processes (ps): give it as {variable}, or in a file with --config"
        );
    }
    if let Command::Config = command {
        cli::say(config.shown().trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Command::Serve = command {
        // Caught before the start, so that a signal during a long start also ends it gracefully.
        let mut signals = serve::Signals::catch()?;
        // Before the backend is opened, because that makes its metrics.
        let figures = if config.admin_listen.is_empty() { None } else { Some(metrics::start()?) };
        let backend = tokio::select! {
            backend = Backend::open(config) => backend?,
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        };
        let wish = match (arguments.serve.demo, arguments.serve.no_demo) {
            (_, true) => demo::Mode::No,
            (true, false) => demo::Mode::Yes,
            (false, false) => demo::Mode::Default,
        };
        return serve::run(backend, wish, signals, figures, traces).await;
    }
    if let Command::Migrate { check } = command {
        // Without a backend, because opening one migrates the schema.
        return migrate::run(config, check).await;
    }
    let backend = Backend::open(config).await?;
    let outcome = match &command {
        Command::Audit { within } => audit::run(&backend.app, *within).await,
        Command::Users(UsersCommand::Seed { count, out }) => {
            users::seed(&backend.app, *count, out).await
        }
        Command::Users(UsersCommand::AddAdmin { phone }) => {
            users::add_admin(&backend.app, phone).await
        }
        Command::Users(UsersCommand::Demote { phone }) => users::demote(&backend.app, phone).await,
        Command::Users(UsersCommand::SetPassword { phone }) => {
            users::set_password(&backend.app, phone).await
        }
        Command::Sales(SalesCommand::Create {
            title,
            stock,
            price,
            currency,
            per_user_limit,
            starts_in,
            ends_in,
            allocation,
            entries_open_in,
            invite_seconds,
            eligible_registered_before,
            units_per_prefix,
        }) => {
            let wanted = sales::Wanted {
                title: title.clone(),
                stock: *stock,
                price: *price,
                currency,
                per_user_limit: *per_user_limit,
                starts_in_ms: *starts_in,
                ends_in_ms: *ends_in,
                by_draw: *allocation == AllocationWord::Draw,
                entries_open_in_ms: *entries_open_in,
                invite_seconds: *invite_seconds,
                eligible_registered_before: *eligible_registered_before,
                units_per_prefix: *units_per_prefix,
            };
            sales::create(&backend.app, wanted).await
        }
        Command::Sales(SalesCommand::ExportEntries { sale, out }) => {
            draws::export(&backend.app, *sale, out).await
        }
        Command::Invoke { function, event } => invoke::run(&backend.app, function, event).await,
        Command::Serve
        | Command::Config
        | Command::Migrate { .. }
        | Command::Health { .. }
        | Command::Sales(SalesCommand::VerifyDraw { .. }) => unreachable!("handled above"),
    };
    backend.close().await;
    outcome
}

/// A problem of the product as an error of the command.
fn refused(problem: &flashsale::problem::Problem) -> anyhow::Error {
    problem.log_cause();
    anyhow::anyhow!("{}: {}", problem.slug(), problem.detail())
}
