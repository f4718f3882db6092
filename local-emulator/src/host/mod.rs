//! Where the functions run: in this process, or as processes of their own. Every caller of a
//! function (gateway, poller, scheduler, Invoke API, `invoke`) uses a [`Host`] and does not depend
//! on which it is.

mod in_process;
mod processes;

use std::sync::Arc;

use aws_lambda_events::event::{eventbridge::EventBridgeEvent, rabbitmq::RabbitMqEvent};
use flashsale::{
    app::{App, Swept},
    config::HostMode,
    http::Routes,
};
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::Value;

use crate::lambda::{self, Fleet, FunctionError, Invocation, Refusal, Reply, new_id};

pub use processes::{Http, http};

/// Runs functions.
#[derive(Clone)]
pub enum Host {
    InProcess(App),
    Processes(App, Arc<Fleet>),
}

impl Host {
    /// Starts the functions as configured; only `wanted`, if given.
    pub fn start(app: &App, wanted: Option<&str>) -> anyhow::Result<Self> {
        Ok(match app.config.host {
            HostMode::InProcess => Self::InProcess(app.clone()),
            HostMode::Processes => {
                Self::Processes(app.clone(), Arc::new(Fleet::start(app, wanted)?))
            }
        })
    }

    /// The routes of all HTTP functions.
    pub fn http_routes(&self) -> Routes {
        match self {
            // Requests go straight to the handlers, without events.
            Self::InProcess(app) => in_process::http_routes(app),
            Self::Processes(_, fleet) => processes::http_routes(self, fleet),
        }
    }

    /// Every route of an HTTP function, with the function's name.
    pub fn routes(&self) -> Vec<(&str, &str)> {
        match self {
            Self::InProcess(_) => lambda::routes().collect(),
            Self::Processes(_, fleet) => lambda::routes().chain(fleet.foreign_routes()).collect(),
        }
    }

    /// What every function shares.
    pub const fn app(&self) -> &App {
        match self {
            Self::InProcess(app) | Self::Processes(app, _) => app,
        }
    }

    /// Whether there is such a function.
    pub fn has(&self, function: &str) -> bool {
        match self {
            Self::InProcess(_) => lambda::is_ours(function),
            Self::Processes(_, fleet) => fleet.has(function),
        }
    }

    /// Calls a function with an event as Lambda gives it.
    pub async fn invoke(&self, function: &str, invocation: Invocation) -> Result<Reply, Refusal> {
        match self {
            Self::InProcess(app) => {
                let (request_id, log) =
                    (new_id(app.ports.random.as_ref()), invocation.log_tail.then(Vec::new));
                Ok(Reply {
                    request_id,
                    result: in_process::invoke(app, function, invocation.payload).await?,
                    log,
                })
            }
            Self::Processes(_, fleet) => fleet.invoke(function, invocation).await,
        }
    }

    /// Gives a batch of messages to the order worker. An error says why the batch must be retried.
    pub async fn work_off(&self, event: &RabbitMqEvent) -> Result<(), String> {
        match self {
            Self::InProcess(app) => {
                in_process::guarded(order_worker::handle(app.clone(), event.clone())).await
            }
            Self::Processes(..) => self.call("order-worker", event).await.map(drop),
        }
    }

    /// Gives the sweeper its tick; returns what the sweep did.
    pub async fn tick(&self, event: &EventBridgeEvent<Value>) -> Result<Swept, String> {
        match self {
            Self::InProcess(app) => {
                in_process::guarded(sweeper::handle(app.clone(), event.clone())).await
            }
            Self::Processes(..) => {
                let answer = self.call("sweeper", event).await?;
                serde_json::from_slice(&answer)
                    .map_err(|error| format!("the sweeper's answer can't be read: {error}"))
            }
        }
    }

    async fn call(&self, function: &str, event: &impl Serialize) -> Result<Bytes, String> {
        let payload = Bytes::from(serde_json::to_vec(event).map_err(|error| error.to_string())?);
        match self.invoke(function, Invocation { payload, ..Invocation::default() }).await {
            Ok(Reply { result: Ok(answer), .. }) => Ok(answer),
            Ok(Reply { result: Err(error), .. }) => Err(FunctionError::brief(&error)),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    /// The functions that can't be started, as far as is known.
    pub fn unwell(&self) -> Vec<&str> {
        match self {
            Self::InProcess(_) => Vec::new(),
            Self::Processes(_, fleet) => fleet.unwell(),
        }
    }

    /// Ends all function processes and refuses further work.
    pub async fn stop(&self) {
        if let Self::Processes(_, fleet) = self {
            fleet.stop().await;
        }
    }
}
