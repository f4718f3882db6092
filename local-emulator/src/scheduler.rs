//! Gives the sweeper its tick, as an EventBridge rule does.

use std::time::Duration;

use aws_lambda_events::event::eventbridge::EventBridgeEvent;
use flashsale::{
    app::{App, Swept},
    domain::Timestamp,
    metrics::{
        OVERDUE, Outcomes, REBUILDING, SWEEP_SECONDS, SWEEP_STEPS_FAILED, SWEEPER_LAST_SWEEP,
        SWEEPER_LEADER, SWEEPS, SWEPT, elapsed, seconds,
    },
};
use metrics::{Counter, Gauge, Histogram};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{host::Host, lambda::new_id};

/// Ticks until `stop` turns true, then gives up leadership.
pub async fn run(host: Host, mut stop: watch::Receiver<bool>) {
    let app = host.app();
    let mut ticks = interval(Duration::from_millis(app.config.sweeper.period_ms));
    // After a long tick the next one follows a period later, without catching up.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let measures = Measures::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        let begun = Instant::now();
        let outcome = host.tick(&event(app)).await;
        measures.count(&outcome, begun.elapsed(), app.now());
        if let Err(error) = outcome {
            tracing::warn!(error, "sweeper");
        }
    }
    // A sweeper in its own process holds its own lease, which expires by itself.
    if let Err(error) = app.stop_sweeping().await {
        tracing::debug!(%error, "leadership ends with its lease");
    }
}

static OUTCOMES: Outcomes = Outcomes::new(SWEEPS);
static STEPS: Outcomes = Outcomes::new(SWEPT);

/// The metrics of the sweeper. They are counted here from the results of ticks, so that they are
/// the same whether or not the function runs in this process.
struct Measures {
    leader: Gauge,
    last_sweep: Gauge,
    overdue: Gauge,
    rebuilding: Gauge,
    seconds: Histogram,
    steps_failed: Counter,
}

impl Measures {
    fn new() -> Self {
        Self {
            leader: SWEEPER_LEADER.gauge(&[]),
            last_sweep: SWEEPER_LAST_SWEEP.gauge(&[]),
            overdue: OVERDUE.gauge(&[]),
            rebuilding: REBUILDING.gauge(&[]),
            seconds: SWEEP_SECONDS.histogram(&[]),
            steps_failed: SWEEP_STEPS_FAILED.counter(&[]),
        }
    }

    fn count(&self, outcome: &Result<Swept, String>, took: Duration, now: Timestamp) {
        let nothing = Swept::default();
        let swept = outcome.as_ref().unwrap_or(&nothing);
        let word = match outcome {
            Err(_) => "failed",
            Ok(Swept { clock_wrong: true, .. }) => "clock-wrong",
            Ok(Swept { leader: true, .. }) => "swept",
            Ok(_) => "standby",
        };
        OUTCOMES.add(word, 1);
        self.seconds.record(elapsed(took));
        self.leader.set(f64::from(u8::from(swept.leader)));
        if swept.leader {
            self.last_sweep.set(seconds(now.epoch_ms()));
        }
        let Swept {
            leader: _,
            clock_wrong: _,
            shared,
            expired,
            returned,
            republished,
            settled,
            rebuilt,
            reconciled,
            invited,
            overdue,
            rebuilding,
            failed,
        } = swept;
        for (step, count) in [
            ("shared", shared),
            ("expired", expired),
            ("returned", returned),
            ("republished", republished),
            ("settled", settled),
            ("rebuilt", rebuilt),
            ("reconciled", reconciled),
            ("invited", invited),
        ] {
            STEPS.add(step, u64::from(*count));
        }
        self.overdue.set(f64::from(*overdue));
        self.rebuilding.set(f64::from(*rebuilding));
        self.steps_failed.increment(u64::from(*failed));
    }
}

/// What an EventBridge rule sends.
fn event(app: &App) -> EventBridgeEvent<Value> {
    let event = json!({
        "version": "0",
        "id": new_id(app.ports.random.as_ref()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "000000000000",
        "time": app.now(),
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:000000000000:rule/flashsale-sweeper"],
        "detail": {},
    });
    serde_json::from_value(event).expect("it has the fields of a scheduled event")
}
