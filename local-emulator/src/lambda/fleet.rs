//! All functions of one emulator, by name.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use flashsale::{
    app::App,
    config::{Config, LogFormat},
};
use flashsale_servers::Watchdog;

use super::{
    catalogue::{function_names, is_ours},
    function::Function,
    instance::Definition,
    invocation::{Invocation, Refusal, Reply},
    process::Launch,
};

/// How often to check whether the processes have ended.
const STOP_POLL: Duration = Duration::from_millis(10);

/// The functions that run as processes.
pub struct Fleet {
    functions: BTreeMap<String, Arc<Function>>,
}

impl Fleet {
    /// Finds the programs of all functions and starts the instances that always run. `wanted` picks
    /// one function.
    ///
    /// # Errors
    /// When a function has no program, or the watchdog can't be started.
    pub fn start(app: &App, wanted: Option<&str>) -> anyhow::Result<Self> {
        let config = &app.config;
        let dir = functions_dir(config)?;
        let environment = config.environment_for_functions();
        let watchdog =
            Arc::new(Watchdog::start(None).context("the watchdog, a /bin/sh, can't start")?);
        let foreign = config.function_names().filter(|name| !is_ours(name));
        check_routes(config)?;
        let mut functions = BTreeMap::new();
        for name in function_names()
            .chain(foreign)
            .filter(|name| wanted.is_none_or(|wanted| wanted == *name))
        {
            let settings = config.function(name);
            let (program, args) = match settings.command.split_first() {
                Some((program, args)) => (PathBuf::from(program), args.to_vec()),
                None => (find(&dir, name)?, Vec::new()),
            };
            // Functions other than the product's do not get its keys and passwords.
            let mut variables = if is_ours(name) { environment.clone() } else { Vec::new() };
            variables.extend(
                settings.variables().map(|(name, value)| (name.to_owned(), value.to_owned())),
            );
            let launch = Launch { program, args, variables, memory_mb: settings.memory_mb };
            let definition = Definition {
                name: name.to_owned(),
                settings,
                launch,
                watchdog: Arc::clone(&watchdog),
                bare_logs: config.log_format == LogFormat::Json,
            };
            let (clock, random) = (Arc::clone(&app.ports.clock), Arc::clone(&app.ports.random));
            let function = Function::new(definition, clock, random);
            tokio::spawn(Arc::clone(&function).maintain());
            functions.insert(name.to_owned(), function);
        }
        Ok(Self { functions })
    }

    /// The routes that the configuration adds to the product's, with their functions' names.
    pub fn foreign_routes(&self) -> impl Iterator<Item = (&str, &str)> {
        self.functions.values().flat_map(|function| {
            function.routes().iter().map(|route| (function.name(), route.as_str()))
        })
    }

    /// Whether there is such a function.
    pub fn has(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// The functions that can't start, as far as is known.
    pub fn unwell(&self) -> Vec<&str> {
        self.functions
            .values()
            .filter(|function| !function.is_healthy())
            .map(|function| function.name())
            .collect()
    }

    /// Calls a function.
    pub async fn invoke(&self, name: &str, invocation: Invocation) -> Result<Reply, Refusal> {
        self.functions.get(name).ok_or(Refusal::NoSuchFunction)?.invoke(invocation).await
    }

    /// Ends all processes and refuses further work.
    pub async fn stop(&self) {
        loop {
            // Stop all before waiting for the first.
            let left = self.functions.values().filter(|function| function.stop()).count();
            if left == 0 {
                return;
            }
            tokio::time::sleep(STOP_POLL).await;
        }
    }
}

/// The first segments of the emulator's own paths; a test fails if one is missing.
pub const RESERVED: [&str; 17] = [
    "",
    "2015-03-31",
    "api",
    "assets",
    "console",
    "explorer",
    "forgot-password",
    "healthz",
    "lambda-url",
    "metrics",
    "openapi.json",
    "orders",
    "problems",
    "readyz",
    "register",
    "sales",
    "sign-in",
];

/// Refuses routes that would make the router panic or hide the product's own.
fn check_routes(config: &Config) -> anyhow::Result<()> {
    let mut router = matchit::Router::new();
    for name in config.function_names() {
        for route in config.function(name).routes {
            let first = route.trim_start_matches('/').split('/').next().unwrap_or_default();
            if RESERVED.contains(&first) || first.starts_with('{') {
                anyhow::bail!(
                    "functions.{name}.routes: {route} begins as addresses of the product do"
                );
            }
            router.insert(&route, ()).with_context(|| {
                format!("functions.{name}.routes: {route} can't be, or is there already")
            })?;
        }
    }
    Ok(())
}

fn functions_dir(config: &Config) -> anyhow::Result<PathBuf> {
    if !config.functions_dir.as_os_str().is_empty() {
        return Ok(config.functions_dir.clone());
    }
    let own = env::current_exe().context(
        "--functions-dir is needed: where the emulator's own program is can't be found out",
    )?;
    Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
}

/// The program of a function: `NAME` as built by cargo, or `NAME/bootstrap` as built by
/// cargo-lambda.
fn find(dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let places = [dir.join(name), dir.join(name).join("bootstrap")];
    places.into_iter().find(|place| place.is_file()).with_context(|| {
        format!(
            "function {name:?} has no program in {}: build all with `cargo build --release --workspace --bins`, or name the \
             folder with --functions-dir",
            dir.display()
        )
    })
}
