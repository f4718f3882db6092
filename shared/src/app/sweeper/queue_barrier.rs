//! Finds out whether every message that was in the queue at one moment has reached the ledger.
//!
//! The queue knows which messages wait for a consumer, but not which ones its consumers hold. So
//! each consuming process reports in the shared store how far it has got ([`ConsumerReport`]), and
//! the rebuild of an admission store reads the queue and the reports until they prove it:
//!
//! 1. At a first look nothing is ready: every message published before is with a consumer, or on
//!    its way to one.
//! 2. Once a consumer has reported several times since then, messages that were on their way to it
//!    have arrived. The number of the last message it has received becomes its mark.
//! 3. When every consumer that the queue counts has finished all messages up to its mark, all
//!    messages of the first look are recorded.
//!
//! If a consumer joins, leaves, reconnects or returns a message in between, messages may be ready
//! again, and the looks begin anew. If a consumer does not report (it has stopped, or is Lambda's
//! own), the rebuild waits its longest time. No clocks are compared: reports are told apart by
//! their beat.

use std::collections::HashMap;

use crate::app::App;
use crate::{
    domain::{ConsumerReport, QueueBacklog},
    ports::Stored,
};

/// Number of a consumer's reports after the first look; the last one gives its mark. The first
/// report may have been written before the look. The others follow one period of
/// [`App::report_held`] apart, and together these take longer than a message's delivery.
const BEATS: u64 = 3;
/// Least time between the first look and the last one.
const BETWEEN_LOOKS_MS: u64 = 1_000;

/// The first look of one rebuild, and the observations since.
#[derive(Debug)]
pub(in crate::app) struct Looks {
    begun_ms: u64,
    consumers: u32,
    reporting: HashMap<u128, Consumer>,
}

#[derive(Debug)]
struct Consumer {
    first: ConsumerReport,
    mark: Option<u64>,
}

impl Looks {
    /// `None` while something is ready.
    fn begin(backlog: QueueBacklog, reports: &[ConsumerReport], now_ms: u64) -> Option<Self> {
        let reporting = reports
            .iter()
            .map(|report| (report.consumer, Consumer { first: *report, mark: None }))
            .collect();
        (backlog.ready == 0).then_some(Self {
            begun_ms: now_ms,
            consumers: backlog.consumers,
            reporting,
        })
    }

    /// When the first look was, by the monotonic clock.
    pub(in crate::app) const fn begun_ms(&self) -> u64 {
        self.begun_ms
    }

    /// One more look: `None` when the looks must begin anew, else whether the queue is worked off.
    fn look(
        &mut self,
        backlog: QueueBacklog,
        reports: &[ConsumerReport],
        now_ms: u64,
    ) -> Option<bool> {
        if backlog.consumers != self.consumers {
            return None;
        }
        let (mut counted, mut done) = (0, 0);
        for report in reports {
            let consumer = self.reporting.get_mut(&report.consumer)?;
            let (now, first) = (report.progress, consumer.first.progress);
            if (now.session, now.handed_back) != (first.session, first.handed_back) {
                return None;
            }
            if report.beat < consumer.first.beat + BEATS {
                // Either it is too early, or the process has ended and the queue does not count it.
                continue;
            }
            counted += 1;
            let mark = *consumer.mark.get_or_insert(now.received);
            done += u32::from(now.done >= mark);
        }
        Some(
            now_ms.saturating_sub(self.begun_ms) >= BETWEEN_LOOKS_MS
                && counted == self.consumers
                && done == counted,
        )
    }
}

impl App {
    /// Reports to the other processes how far this one has got with the messages that it consumes.
    /// A consuming process must call this about twice a second. It does nothing if the queue itself
    /// knows.
    ///
    /// # Errors
    /// When the shared store does not answer.
    pub async fn report_held(&self) -> Stored<()> {
        let Some(progress) = self.ports.source.progress() else {
            return Ok(());
        };
        let report =
            ConsumerReport { consumer: self.sweep.holder, beat: self.sweep.next_beat(), progress };
        self.ports.consumer_reports.report(&report, self.now()).await
    }

    /// One look at the queue. `looks` is the state kept between calls, `None` at first. Returns the
    /// time of the monotonic clock before which every published message has been recorded, once it
    /// is known.
    pub(in crate::app) async fn worked_off_until(
        &self,
        looks: &mut Option<Looks>,
    ) -> Stored<Option<u64>> {
        let now_ms = self.monotonic_ms();
        // The queue is read before the reports: messages delivered by then appear in later reports.
        let backlog = self.ports.queue.backlog().await?;
        if backlog.consumers == 0 {
            // Either the queue knows all messages, or it has no consumer: if none is ready, there
            // is none.
            return Ok((backlog.ready == 0).then_some(now_ms));
        }
        let reports = self.ports.consumer_reports.reports().await?;
        let seen = looks.as_mut().and_then(|looks| looks.look(backlog, &reports, now_ms));
        if seen.is_none() {
            *looks = Looks::begin(backlog, &reports, now_ms);
        }
        Ok(looks.as_ref().filter(|_| seen == Some(true)).map(|looks| looks.begun_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ConsumerProgress;

    fn report(consumer: u128, beat: u64, received: u64, done: u64) -> ConsumerReport {
        ConsumerReport {
            consumer,
            beat,
            progress: ConsumerProgress { session: 1, handed_back: 0, received, done },
        }
    }

    fn backlog(ready: u64, consumers: u32) -> QueueBacklog {
        QueueBacklog { ready, consumers }
    }

    #[test]
    fn what_a_consumer_has_is_waited_for() {
        assert!(
            Looks::begin(backlog(1, 1), &[report(1, 1, 5, 5)], 0).is_none(),
            "something is ready"
        );
        let mut looks = Looks::begin(backlog(0, 1), &[report(1, 1, 5, 5)], 0).unwrap();
        assert_eq!(
            looks.look(backlog(0, 1), &[report(1, 3, 5, 5)], 5_000),
            Some(false),
            "too few reports"
        );
        assert_eq!(
            looks.look(backlog(0, 1), &[report(1, 4, 6, 5)], 5_000),
            Some(false),
            "one more was on its way"
        );
        assert_eq!(looks.look(backlog(9, 1), &[report(1, 5, 8, 5)], 5_000), Some(false));
        assert_eq!(
            looks.look(backlog(9, 1), &[report(1, 6, 9, 6)], 5_000),
            Some(true),
            "later ones do not count"
        );
    }

    #[test]
    fn looks_are_a_second_apart() {
        let mut looks = Looks::begin(backlog(0, 1), &[report(1, 1, 5, 5)], 7).unwrap();
        assert_eq!(looks.look(backlog(0, 1), &[report(1, 4, 5, 5)], 1_006), Some(false));
        assert_eq!(looks.look(backlog(0, 1), &[report(1, 4, 5, 5)], 1_007), Some(true));
    }

    #[test]
    fn a_consumer_that_does_not_report_is_not_believed_to_hold_nothing() {
        let mut looks = Looks::begin(backlog(0, 2), &[report(1, 1, 5, 5)], 0).unwrap();
        assert_eq!(
            looks.look(backlog(0, 2), &[report(1, 9, 5, 5)], 60_000),
            Some(false),
            "one reports, two consume"
        );
        let both = |beat| [report(1, beat, 5, 5), report(2, 1, 5, 5)];
        let mut looks = Looks::begin(backlog(0, 2), &both(1), 0).unwrap();
        assert_eq!(looks.look(backlog(0, 2), &both(9), 60_000), Some(false), "one is stuck");
        let mut looks = Looks::begin(backlog(0, 1), &both(1), 0).unwrap();
        assert_eq!(
            looks.look(backlog(0, 1), &both(9), 60_000),
            Some(true),
            "one has left, and the queue does not count it"
        );
    }

    #[test]
    fn looks_begin_anew_when_messages_may_be_ready_again() {
        let first = report(1, 1, 5, 5);
        let begun = || Looks::begin(backlog(0, 1), &[first], 0).unwrap();
        let held = |session, handed_back| ConsumerReport {
            beat: 9,
            progress: ConsumerProgress { session, handed_back, ..first.progress },
            ..first
        };
        assert_eq!(begun().look(backlog(0, 1), &[held(1, 0)], 5_000), Some(true));
        assert_eq!(begun().look(backlog(0, 1), &[held(2, 0)], 5_000), None, "it has reconnected");
        assert_eq!(begun().look(backlog(0, 1), &[held(1, 1)], 5_000), None, "it has handed back");
        assert_eq!(begun().look(backlog(0, 2), &[held(1, 0)], 5_000), None, "another joined");
        assert_eq!(
            begun().look(backlog(0, 1), &[held(1, 0), report(2, 9, 0, 0)], 5_000),
            None,
            "another reports"
        );
    }
}
