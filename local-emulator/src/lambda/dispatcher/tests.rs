use flashsale::config::Config;

use super::*;

const MS: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);

/// A dispatcher and the test's clock.
struct Stage {
    dispatcher: Dispatcher,
    now: Instant,
    calls: CallId,
}

impl Stage {
    fn new(change: impl FnOnce(&mut FunctionSettings)) -> Self {
        let mut settings = FunctionSettings {
            instances_min: 0,
            instances_max: 3,
            concurrency: 1,
            timeout_ms: TIMEOUT.as_millis() as u64,
            idle_ms: IDLE.as_millis() as u64,
            queue_max: 10,
            ..Config::defaults().function("sales")
        };
        change(&mut settings);
        Self { dispatcher: Dispatcher::new(&settings), now: Instant::now(), calls: 0 }
    }

    fn submit(&mut self, request: &str) -> Vec<Action> {
        self.dispatcher.submit(request.to_owned(), self.now).unwrap()
    }

    /// A call of `next`.
    fn next(&mut self, instance: InstanceId) -> Vec<Action> {
        self.calls += 1;
        self.dispatcher.next(instance, self.calls, self.now)
    }

    /// The action that answers the latest call of `next`.
    fn sent(&self, request: &str, instance: InstanceId) -> Action {
        let deadline = self.now + TIMEOUT;
        Action::Send { request: request.to_owned(), instance, call: self.calls, deadline }
    }

    fn answer(&mut self, instance: InstanceId, request: &str) -> Vec<Action> {
        self.dispatcher.answered(instance, request, self.now).unwrap()
    }

    fn end(&mut self, instance: InstanceId) -> Vec<Action> {
        self.dispatcher.ended(instance, "exit status 1", self.now)
    }

    fn tick(&mut self) -> Vec<Action> {
        self.dispatcher.tick(self.now).unwrap()
    }

    /// Starts instances up to this number, which then wait for work.
    fn with_idle(mut self, instances: InstanceId) -> Self {
        for n in 1..=instances {
            self.submit(&format!("warm-up {n}"));
            self.dispatcher.scale(self.now);
        }
        for n in 1..=instances {
            self.next(n);
        }
        for n in 1..=instances {
            self.answer(n, &format!("warm-up {n}"));
            self.next(n);
        }
        self
    }
}

fn crashed(request: &str) -> Action {
    Action::Fail(request.to_owned(), FunctionError::crashed(request, "exit status 1"))
}

fn ready() -> Action {
    Action::Report(Notice::Ready(Duration::ZERO))
}

#[test]
fn the_first_request_starts_an_instance_and_is_its_first_work() {
    let mut stage = Stage::new(|_| ());
    assert_eq!(stage.submit("a"), [Action::Start(1)]);
    assert!(stage.dispatcher.is_starting(1));
    stage.now += 70 * MS;
    let actions = stage.next(1);
    assert_eq!(actions, [Action::Report(Notice::Ready(70 * MS)), stage.sent("a", 1)]);
    assert!(!stage.dispatcher.is_starting(1));
    assert_eq!(stage.answer(1, "a"), []);
    assert_eq!(stage.next(1), []);
    assert_eq!(stage.submit("b"), [stage.sent("b", 1)]);
}

#[test]
fn an_answer_counts_once_and_only_from_the_instance_that_got_the_request() {
    let mut stage = Stage::new(|_| ()).with_idle(2);
    stage.submit("a");
    assert_eq!(stage.dispatcher.answered(2, "a", stage.now), None);
    assert_eq!(stage.dispatcher.answered(1, "b", stage.now), None);
    assert_eq!(stage.dispatcher.answered(1, "a", stage.now), Some(vec![]));
    assert_eq!(stage.dispatcher.answered(1, "a", stage.now), None);
}

#[test]
fn work_goes_to_the_oldest_idle_instance() {
    let mut stage = Stage::new(|_| ()).with_idle(2);
    for (request, instance) in [("a", 1), ("b", 2)] {
        let actions = stage.submit(request);
        assert!(
            matches!(&actions[..], [Action::Send { instance: id, .. }] if *id == instance),
            "{actions:?}"
        );
    }
    assert_eq!(stage.submit("c"), [], "it waits for one of the two");
    stage.answer(2, "b");
    assert_eq!(stage.next(2), [stage.sent("c", 2)]);
}

#[test]
fn more_instances_are_started_only_for_requests_that_have_waited() {
    let mut stage = Stage::new(|_| ()).with_idle(1);
    for request in ["a", "b", "c", "d", "e"] {
        assert!(!stage.submit(request).iter().any(|action| matches!(action, Action::Start(_))));
    }
    let actions = stage.dispatcher.scale(stage.now);
    assert_eq!(actions, [Action::Start(2), Action::Start(3)], "up to the upper bound");
    assert_eq!(stage.dispatcher.scale(stage.now), []);
}

#[test]
fn instances_that_start_are_counted_with_their_concurrency() {
    let mut stage = Stage::new(|settings| settings.concurrency = 2);
    assert_eq!(stage.submit("a"), [Action::Start(1)]);
    stage.submit("b");
    assert_eq!(stage.dispatcher.scale(stage.now), [], "the starting instance has room for both");
    stage.submit("c");
    assert_eq!(stage.dispatcher.scale(stage.now), [Action::Start(2)]);
}

#[test]
fn a_full_queue_refuses() {
    let mut stage = Stage::new(|settings| {
        settings.instances_max = 1;
        settings.concurrency = 2;
        settings.queue_max = 1;
    });
    for request in ["a", "b", "c"] {
        stage.submit(request);
    }
    assert_eq!(stage.dispatcher.submit("d".to_owned(), stage.now), Err(Refusal::Throttled));
    assert!(stage.dispatcher.withdraw("b"));
    assert!(!stage.dispatcher.withdraw("b"));
    stage.submit("d");
    assert_eq!(stage.next(1), [ready(), stage.sent("a", 1)]);
    assert!(!stage.dispatcher.withdraw("a"), "an instance works on it");
    assert_eq!(stage.next(1), [stage.sent("c", 1)], "in the order of arrival");
    assert_eq!(stage.dispatcher.submit("e".to_owned(), stage.now), Err(Refusal::Throttled));
    stage.answer(1, "a");
    assert_eq!(stage.submit("e"), []);
}

#[test]
fn a_call_that_has_gone_gets_no_request() {
    let mut stage = Stage::new(|_| ()).with_idle(1);
    stage.dispatcher.next_dropped(1, stage.calls);
    assert_eq!(stage.submit("a"), []);
    assert_eq!(stage.next(1), [stage.sent("a", 1)]);
}

#[test]
fn a_request_that_exceeds_its_time_fails_and_its_instance_is_replaced() {
    let mut stage = Stage::new(|settings| settings.concurrency = 2).with_idle(1);
    stage.submit("a");
    stage.next(1);
    stage.now += TIMEOUT / 2;
    stage.submit("b");
    let deadline = stage.now + TIMEOUT / 2;
    assert_eq!(stage.dispatcher.check_deadline("a", stage.now), Overdue::Until(deadline));
    assert_eq!(
        stage.dispatcher.check_deadline("b", stage.now),
        Overdue::Until(deadline + TIMEOUT / 2)
    );
    stage.now = deadline;
    let error = FunctionError::timed_out("a", TIMEOUT);
    assert_eq!(
        stage.dispatcher.check_deadline("a", stage.now),
        Overdue::TimedOut(vec![
            Action::Report(Notice::TimedOut("a".to_owned())),
            Action::Fail("a".to_owned(), error)
        ]),
        "not ended yet: it works on another request"
    );
    assert_eq!(stage.dispatcher.check_deadline("a", stage.now), Overdue::NotRunning);
    assert_eq!(stage.submit("c"), [Action::Start(2)], "the old one gets no more work");
    assert_eq!(stage.next(1), []);
    assert_eq!(stage.answer(1, "b"), [Action::End(1, Shutdown::Forced)]);
    assert_eq!(stage.end(1), [], "a requested end is not a crash");
    assert!(stage.dispatcher.is_healthy());
}

#[test]
fn a_crash_fails_what_ran_and_the_first_replacement_starts_at_once() {
    let mut stage = Stage::new(|_| ()).with_idle(1);
    stage.submit("a");
    stage.submit("b");
    assert_eq!(
        stage.end(1),
        [
            crashed("a"),
            Action::Report(Notice::Crashed("exit status 1".to_owned())),
            Action::Start(2)
        ]
    );
    assert_eq!(stage.end(1), [], "it has ended already");
    assert_eq!(stage.next(2), [ready(), stage.sent("b", 2)]);
}

#[test]
fn consecutive_crashes_delay_the_next_start_more_and_more() {
    let mut stage = Stage::new(|settings| settings.instances_min = 1);
    let mut pauses = Vec::new();
    assert_eq!(stage.tick(), [Action::Start(1)]);
    for instance in 1..=12 {
        let mut actions = stage.end(instance);
        let crashed_at = stage.now;
        while !actions.contains(&Action::Start(instance + 1)) {
            stage.now += 10 * MS;
            actions = stage.tick();
        }
        pauses.push((stage.now - crashed_at).as_millis());
    }
    assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000, 5_000]);
}

#[test]
fn an_answer_ends_a_series_of_crashes() {
    let mut stage = Stage::new(|_| ());
    stage.submit("a");
    stage.end(1);
    stage.end(2);
    stage.now += 50 * MS;
    assert_eq!(stage.tick(), [Action::Start(3)]);
    assert!(stage.next(3).contains(&stage.sent("a", 3)));
    stage.answer(3, "a");
    stage.submit("b");
    assert!(stage.end(3).contains(&Action::Start(4)), "without a pause");
}

#[test]
fn waiting_callers_receive_the_error_of_the_third_failed_start() {
    let mut stage = Stage::new(|_| ());
    stage.submit("a");
    let mut failed = Vec::new();
    for instance in 1..=3 {
        assert!(stage.dispatcher.is_healthy());
        failed.push(stage.end(instance).into_iter().find_map(|action| match action {
            Action::Fail(request, error) => Some((request, error.brief())),
            _ => None,
        }));
        stage.now += PAUSE_LAST;
        stage.tick();
    }
    let error = "Runtime.InitError: RequestId: a Error: the process ended before it was ready: exit status 1";
    assert_eq!(failed, [None, None, Some(("a".to_owned(), error.to_owned()))]);
    assert!(!stage.dispatcher.is_healthy());
    assert!(stage.dispatcher.is_starting(4), "a start is retried even if no request waits");
    stage.next(4);
    assert!(stage.dispatcher.is_healthy());
}

#[test]
fn waiting_callers_receive_an_initialization_error_at_once_unless_an_instance_is_ready() {
    let error = FunctionError::reported("{}".into());
    let report = Action::Report(Notice::InitFailed(error.clone()));
    let mut stage = Stage::new(|_| ());
    stage.submit("a");
    assert_eq!(
        stage.dispatcher.init_failed(1, &error, stage.now).unwrap(),
        [
            report.clone(),
            Action::End(1, Shutdown::Graceful),
            Action::Fail("a".to_owned(), error.clone())
        ]
    );
    assert_eq!(
        stage.dispatcher.init_failed(1, &error, stage.now),
        None,
        "it has reported this before"
    );
    assert_eq!(stage.end(1), [Action::Start(2)], "to find out when it can start again");

    let mut stage = Stage::new(|_| ()).with_idle(1);
    stage.submit("a");
    stage.submit("b");
    assert_eq!(stage.dispatcher.scale(stage.now), [Action::Start(2)]);
    assert_eq!(
        stage.dispatcher.init_failed(2, &error, stage.now).unwrap(),
        [report, Action::End(2, Shutdown::Graceful)]
    );
    assert_eq!(stage.dispatcher.init_failed(1, &error, stage.now), None, "it was ready");
    stage.answer(1, "a");
    assert_eq!(stage.next(1), [stage.sent("b", 1)]);
}

#[test]
fn idle_instances_end_down_to_the_lower_bound_the_youngest_first() {
    let mut stage = Stage::new(|settings| settings.instances_min = 1).with_idle(3);
    stage.now += IDLE - MS;
    assert_eq!(stage.tick(), []);
    stage.submit("a");
    stage.now += MS;
    assert_eq!(
        stage.tick(),
        [Action::End(3, Shutdown::Graceful), Action::End(2, Shutdown::Graceful)]
    );
    assert_eq!((stage.end(3), stage.end(2)), (vec![], vec![]));
    stage.answer(1, "a");
    stage.next(1);
    stage.now += IDLE;
    assert_eq!(stage.tick(), [], "the last one stays");
}

#[test]
fn the_lower_bound_is_started_before_the_first_request() {
    let mut stage = Stage::new(|settings| settings.instances_min = 2);
    assert_eq!(stage.tick(), [Action::Start(1), Action::Start(2)]);
    assert_eq!(stage.tick(), []);
}

#[test]
fn an_instance_that_asks_for_no_more_work_is_replaced() {
    let mut stage = Stage::new(|_| ()).with_idle(1);
    stage.submit("a");
    stage.answer(1, "a");
    stage.now += TIMEOUT - MS;
    assert_eq!(stage.tick(), []);
    stage.now += MS;
    assert_eq!(stage.tick(), [Action::Report(Notice::Silent), Action::End(1, Shutdown::Forced)]);
    assert_eq!(stage.submit("b"), [Action::Start(2)]);
}

#[test]
fn stopping_refuses_what_waits_and_lets_run_what_runs() {
    let mut stage = Stage::new(|settings| settings.instances_max = 1).with_idle(1);
    stage.submit("a");
    stage.submit("b");
    assert_eq!(
        stage.dispatcher.stop(),
        [Action::Refuse("b".to_owned()), Action::End(1, Shutdown::Graceful)]
    );
    assert_eq!(stage.dispatcher.stop(), [], "once");
    assert_eq!(stage.dispatcher.submit("c".to_owned(), stage.now), Err(Refusal::Stopping));
    assert_eq!(stage.dispatcher.tick(stage.now), None);
    assert_eq!(stage.answer(1, "a"), [Action::End(1, Shutdown::Forced)]);
    assert!(!stage.dispatcher.is_empty());
    assert_eq!(stage.end(1), [], "no instance is started after a stop");
    assert!(stage.dispatcher.is_empty());
}
