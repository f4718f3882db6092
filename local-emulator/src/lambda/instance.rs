//! One instance of a function: starts its process beside a Runtime API of its own, and reports its end.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus, sync::Arc, time::Duration};

use rustix::process::Signal;
use tokio::{net::TcpListener, sync::watch, time::timeout};

use super::{
    function::{Ask, Function},
    invocation::FunctionError,
    logs::Logs,
    process::Process,
    runtime_api,
};

/// A process must ask for work within this time after its start, as with Lambda.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// After the end of a process its last lines are waited for.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(100);
/// Between SIGTERM and SIGKILL.
const TERMINATE_TIMEOUT: Duration = Duration::from_millis(400);

/// Runs the instance until its process has ended.
pub async fn run(function: Arc<Function>, id: u64, asked: watch::Receiver<Ask>, logs: Arc<Logs>) {
    let how = match start(&function, id, asked, logs).await {
        Ok(how) => how,
        Err(error) => format!("can't be started: {error}"),
    };
    function.ended(id, &how);
}

async fn start(
    function: &Arc<Function>,
    id: u64,
    asked: watch::Receiver<Ask>,
    logs: Arc<Logs>,
) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let listening = listener.local_addr()?;
    let address = listening.to_string();
    let settings = &function.settings;
    let (memory, concurrency) = (settings.memory_mb.to_string(), settings.concurrency.to_string());
    let (group, stream) = (format!("/aws/lambda/{}", function.name), format!("[$LATEST]{id}"));
    let root =
        function.launch.program.parent().map_or_else(String::new, |dir| dir.display().to_string());
    let mut variables = vec![
        ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", &function.name),
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
    let (process, output) =
        Process::spawn(&function.launch, &variables, &function.common.watchdog)?;
    let name = (!function.common.bare_logs).then(|| function.name.clone());
    let mut following = tokio::spawn(async move { logs.follow(output, name.as_deref()).await });
    let how = tokio::select! {
        how = look_after(process, function, id, asked) => how,
        () = runtime_api::serve(listener, listening, Arc::clone(function), id) => unreachable!("it serves until dropped"),
    };
    // The last lines say why it ended. The pipe ends with the process, unless it was handed on to another.
    if timeout(LAST_LINES_TIMEOUT, &mut following).await.is_err() {
        following.abort();
    }
    how
}

/// Waits until the process ends, by itself or because it is asked to.
async fn look_after(
    mut process: Process,
    function: &Arc<Function>,
    id: u64,
    mut asked: watch::Receiver<Ask>,
) -> std::io::Result<String> {
    let init = async {
        tokio::time::sleep(INIT_TIMEOUT).await;
        if function.is_starting(id) {
            let what = format!("it did not ask for work within {} s", INIT_TIMEOUT.as_secs());
            function.init_failed(id, &FunctionError::init("none", &what));
        } else {
            std::future::pending().await
        }
    };
    let ask = tokio::select! {
        status = process.wait() => return Ok(told(status?)),
        () = init => Ask::Kill,
        // Nobody to ask any more means that nobody waits for it.
        ask = asked.wait_for(|ask| *ask != Ask::Run) => ask.map_or(Ask::Kill, |ask| *ask),
    };
    if ask == Ask::Terminate {
        process.signal(Signal::TERM);
        if let Ok(status) = timeout(TERMINATE_TIMEOUT, process.wait()).await {
            return Ok(told(status?));
        }
    }
    process.signal(Signal::KILL);
    Ok(told(process.wait().await?))
}

/// In the words of Lambda's own error messages.
fn told(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(9), _) => "signal: killed".to_owned(),
        (Some(signal), _) => format!("signal: {signal}"),
        (None, Some(code)) => format!("exit status {code}"),
        (None, None) => "unknown".to_owned(),
    }
}
