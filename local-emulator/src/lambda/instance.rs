//! One instance of a function: serves its own Runtime API, starts its process, and reports the
//! process's end.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, sync::Arc, time::Duration};

use flashsale::config::FunctionSettings;
use flashsale_servers::Watchdog;
use rustix::process::Signal;
use tokio::{net::TcpListener, sync::watch, time::timeout};

use super::{
    dispatcher::{InstanceId, Shutdown},
    invocation::FunctionError,
    pool::{Launching, Pool},
    process::{Launch, Process},
    runtime_api::RuntimeApi,
};

/// A process must ask for work within this time after its start, as with Lambda.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait for the last lines of a process that has ended.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(100);
/// The time between SIGTERM and SIGKILL.
const TERMINATE_TIMEOUT: Duration = Duration::from_millis(400);

/// What all instances of a function have in common.
pub struct Definition {
    pub name: String,
    pub settings: FunctionSettings,
    pub launch: Launch,
    pub watchdog: Arc<Watchdog>,
    /// Whether the lines of functions are passed on unchanged, for programs that read them.
    pub bare_logs: bool,
}

impl Definition {
    /// The function's ARN, with a placeholder for the account.
    fn arn(&self) -> String {
        format!("arn:aws:lambda:us-east-1:000000000000:function:{}", self.name)
    }
}

/// Runs the instance until its process has ended.
pub async fn run(definition: Arc<Definition>, pool: Arc<Pool>, launching: Launching) {
    let id = launching.id;
    let how = match start(&definition, &pool, launching).await {
        Ok(how) => how,
        Err(error) => format!("can't be started: {error}"),
    };
    pool.ended(id, &how);
}

async fn start(
    definition: &Definition,
    pool: &Arc<Pool>,
    Launching { id, shutdown, logs }: Launching,
) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let listening = listener.local_addr()?;
    let address = listening.to_string();
    let settings = &definition.settings;
    let (memory, concurrency) = (settings.memory_mb.to_string(), settings.concurrency.to_string());
    let (group, stream) = (format!("/aws/lambda/{}", definition.name), format!("[$LATEST]{id}"));
    let root = definition
        .launch
        .program
        .parent()
        .map_or_else(String::new, |dir| dir.display().to_string());
    let mut variables = vec![
        ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", &definition.name),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", &memory),
        ("AWS_LAMBDA_LOG_GROUP_NAME", &group),
        ("AWS_LAMBDA_LOG_STREAM_NAME", &stream),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("_HANDLER", "bootstrap"),
        ("LAMBDA_TASK_ROOT", &root),
    ];
    if settings.concurrency > 1 {
        variables.push(("AWS_LAMBDA_MAX_CONCURRENCY", &concurrency));
    }
    let (process, output) = Process::spawn(&definition.launch, &variables, &definition.watchdog)?;
    let name = (!definition.bare_logs).then(|| definition.name.clone());
    let mut following = tokio::spawn(async move { logs.follow(output, name.as_deref()).await });
    let api = RuntimeApi::new(Arc::clone(pool), id, definition.arn(), listening);
    let how = tokio::select! {
        how = supervise(process, pool, id, shutdown) => how,
        () = api.serve(listener) => unreachable!("it serves until dropped"),
    };
    // The last lines say why it ended. The pipe closes with the process, unless another process has
    // inherited it.
    if timeout(LAST_LINES_TIMEOUT, &mut following).await.is_err() {
        following.abort();
    }
    how
}

/// Waits until the process ends, by itself or because it is asked to.
async fn supervise(
    mut process: Process,
    pool: &Arc<Pool>,
    id: InstanceId,
    mut shutdown: watch::Receiver<Option<Shutdown>>,
) -> std::io::Result<String> {
    let init = async {
        tokio::time::sleep(INIT_TIMEOUT).await;
        if pool.is_starting(id) {
            let what = format!("it did not ask for work within {} s", INIT_TIMEOUT.as_secs());
            pool.init_failed(id, &FunctionError::init("none", &what));
        } else {
            std::future::pending().await
        }
    };
    let how = tokio::select! {
        status = process.wait() => return Ok(described(status?)),
        () = init => Shutdown::Forced,
        // An error means that the pool is gone: kill the process.
        how = shutdown.wait_for(Option::is_some) => how.map_or(Shutdown::Forced, |how| how.unwrap_or(Shutdown::Forced)),
    };
    if how == Shutdown::Graceful {
        process.signal(Signal::TERM);
        if let Ok(status) = timeout(TERMINATE_TIMEOUT, process.wait()).await {
            return Ok(described(status?));
        }
    }
    process.signal(Signal::KILL);
    Ok(described(process.wait().await?))
}

/// The exit status in the wording of Lambda's error messages.
fn described(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "signal: killed".to_owned(),
        (Some(signal), _) => format!("signal: {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "unknown".to_owned(),
    }
}
