//! Property tests of the admission port, for any adapter: random calls against a model that knows
//! only the rules, one after another ([`against_model`]) and from several tasks at once
//! ([`at_once`]).

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;
mod sequence;
mod tasks;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use flashsale::{
    domain::SaleId,
    ports::{Admission, Line},
};
use futures_util::future::BoxFuture;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

/// A store under test.
pub struct Subject {
    pub port: Arc<dyn Admission>,
    /// The line of the same store, which has the invitations of sales by draw.
    pub line: Arc<dyn Line>,
    /// Makes the store lose a sale, as a server does when it restarts without data.
    pub lose: Box<dyn Fn(SaleId) -> BoxFuture<'static, ()>>,
}

fn runner(cases: u32) -> TestRunner {
    // A failure prints its shortest sequence; a file of old failures would be useless, because ids
    // are new in every run.
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    })
}

/// Runs `cases` random sequences of calls (50 or more): each answer, and all visible state after
/// it, equals the model's.
pub fn against_model(runtime: &Runtime, subject: &Subject, cases: u32) {
    let seen = Mutex::default();
    let outcome = runner(cases).run(&sequence::strategy(), |(loaded, draw, steps)| {
        runtime.block_on(sequence::run(subject, loaded, draw, &steps, &seen));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert_eq!(
        seen.into_inner().unwrap(),
        BTreeSet::from(sequence::ANSWERS),
        "the sequences reach every answer"
    );
}

/// Runs `cases` random sets of concurrent tasks: no invariant is ever violated, and the final state
/// is consistent.
pub fn at_once(runtime: &Runtime, subject: &Subject, cases: u32) {
    let outcome = runner(cases).run(&tasks::strategy(), |plan| {
        runtime.block_on(tasks::run(&subject.port, &plan));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
