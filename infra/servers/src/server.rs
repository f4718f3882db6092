//! The life of one server: ports, start, readiness, stop. A [`Recipe`] holds what differs per
//! server.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::dir::DataDir;
use crate::error::{StartError, Trying};
use crate::kind::ServerKind;
use crate::ports;
use crate::process::{Launch, Process, log_tail, owns_listener};
use crate::watchdog::Watchdog;

/// How long one attempt at a readiness probe may take.
pub(crate) const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

const PROBE_PERIOD: Duration = Duration::from_millis(25);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
const PORT_ATTEMPTS: u32 = 4;

/// What the servers of one set share.
#[derive(Debug)]
pub(crate) struct Host {
    // Fields are dropped in this order: the watchdog ends before the directory is given up.
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) dir: DataDir,
    pub(crate) limit: Duration,
    pub(crate) abandoned: AtomicBool,
}

impl Host {
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    pub(crate) fn spawn(&self, launch: &Launch) -> Result<Process, StartError> {
        Process::spawn(launch, &self.watchdog, self.dir.servers_lock())
            .trying(|| format!("start {}", launch.program.display()))
    }
}

/// How one kind of server is run. Clients use the first port.
pub(crate) trait Recipe: fmt::Debug + Send + Sync {
    fn kind(&self) -> ServerKind;

    /// Makes the data directory unless it exists.
    fn prepare(&self, _host: &Host, _deadline: Instant) -> Result<(), StartError> {
        Ok(())
    }

    /// Ports for the next start; with `refused`, others than last time.
    fn ports(&self, host: &Host, refused: bool) -> io::Result<Vec<u16>>;

    /// A process that is started before the server and runs as long as it.
    fn helper(&self, _host: &Host, _ports: &[u16]) -> io::Result<Option<Launch>> {
        Ok(None)
    }

    /// Writes the configuration and returns the command to run.
    fn launch(&self, host: &Host, ports: &[u16]) -> io::Result<Launch>;

    /// Whether the server at this port is ready for its clients; an error means that it is not.
    fn is_ready(&self, port: u16) -> io::Result<bool>;
}

#[derive(Debug)]
pub(crate) struct Server {
    recipe: Box<dyn Recipe>,
    host: Arc<Host>,
    // Locked during start and stop, so that two callers can't start the same server twice.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ports: Vec<u16>,
    helper: Option<Process>,
    main: Option<Process>,
}

impl Server {
    pub(crate) fn new(recipe: Box<dyn Recipe>, host: Arc<Host>) -> Self {
        Self { recipe, host, state: Mutex::default() }
    }

    pub(crate) fn kind(&self) -> ServerKind {
        self.recipe.kind()
    }

    /// The port clients use; none before the first start.
    pub(crate) fn port(&self) -> Option<u16> {
        self.state().ports.first().copied()
    }

    /// Starts on the previous ports, or on others while those are taken.
    pub(crate) fn start(&self) -> Result<(), StartError> {
        let mut state = self.state();
        let deadline = Instant::now() + self.host.limit;
        self.recipe.prepare(&self.host, deadline)?;
        for attempt in 1.. {
            state.ports = self
                .recipe
                .ports(&self.host, attempt > 1)
                .trying(|| format!("find a port for {}", self.kind()))?;
            match self.start_on_ports(&mut state, deadline) {
                Err(StartError::Exited { .. })
                    if attempt < PORT_ATTEMPTS
                        && !state.ports.iter().all(|&p| ports::is_free(p)) =>
                {
                    // Another process took a port after it was found free.
                    state.helper = None;
                }
                result => return result,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Stops the server if it runs, and starts it on the same ports.
    pub(crate) fn restart(&self) -> Result<(), StartError> {
        let mut state = self.state();
        if let Some(mut main) = state.main.take() {
            main.terminate(STOP_TIMEOUT);
        }
        self.start_on_ports(&mut state, Instant::now() + self.host.limit)
    }

    pub(crate) fn stop(&self) {
        let mut state = self.state();
        if let Some(mut main) = state.main.take() {
            main.terminate(STOP_TIMEOUT);
        }
        state.helper = None;
    }

    pub(crate) fn stop_hard(&self) -> Result<(), StartError> {
        let kind = self.kind();
        let not_running = StartError::NotRunning { kind };
        self.state().main.take().ok_or(not_running)?.kill();
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<(), StartError> {
        let kind = self.kind();
        self.state()
            .main
            .as_ref()
            .ok_or(StartError::NotRunning { kind })?
            .signal(signal)
            .trying(|| format!("signal {kind}"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_on_ports(&self, state: &mut State, deadline: Instant) -> Result<(), StartError> {
        let (host, recipe, kind) = (&self.host, &self.recipe, self.kind());
        let configure = || format!("configure {kind}");
        if state.helper.as_ref().is_none_or(Process::has_ended) {
            state.helper = match recipe.helper(host, &state.ports).trying(configure)? {
                Some(launch) => Some(host.spawn(&launch)?),
                None => None,
            };
        }
        let launch = recipe.launch(host, &state.ports).trying(configure)?;
        let process = host.spawn(&launch)?;
        self.await_ready(&process, state.ports[0], deadline, launch.log)?;
        state.main = Some(process);
        Ok(())
    }

    fn await_ready(
        &self,
        process: &Process,
        port: u16,
        deadline: Instant,
        log: PathBuf,
    ) -> Result<(), StartError> {
        let kind = self.kind();
        loop {
            let ready = self.recipe.is_ready(port).unwrap_or(false);
            if process.has_ended() {
                let tail = log_tail(&log);
                return Err(StartError::Exited { kind, log, tail });
            }
            if ready && owns_listener(process.group(), port) {
                return Ok(());
            }
            if self.host.is_abandoned() {
                return Err(StartError::Abandoned { kind });
            }
            if Instant::now() >= deadline {
                let (tail, limit) = (log_tail(&log), self.host.limit);
                return Err(StartError::Timeout { kind, limit, log, tail });
            }
            thread::sleep(PROBE_PERIOD);
        }
    }
}

/// Connects to a loopback port with short timeouts, for the readiness probes.
pub(crate) fn probe(port: u16) -> io::Result<std::net::TcpStream> {
    let address = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, port));
    let stream = std::net::TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    Ok(stream)
}
