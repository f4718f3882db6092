//! Property tests of the admission port, for any adapter: random calls against a model that knows only the rules, one
//! after another ([`against_model`]) and from several tasks at once ([`at_once`]).

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod model;
mod sequence;
mod tasks;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use flashsale::{domain::SaleId, ports::Admission};
use futures_util::future::BoxFuture;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Runtime;

/// A store under test.
pub struct Subject {
    pub port: Arc<dyn Admission>,
    /// Makes the store lose a sale, as a server does that starts empty.
    pub lose: Box<dyn Fn(SaleId) -> BoxFuture<'static, ()>>,
}

fn runner(cases: u32) -> TestRunner {
    // A failure prints its shortest sequence; a file of old failures would be of no use, since ids are made anew.
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..Config::default()
    })
}

/// So many random sequences of calls (50 or more): each answer, and all that can be seen after it, is what the model says.
pub fn against_model(runtime: &Runtime, subject: &Subject, cases: u32) {
    let seen = Mutex::default();
    let outcome = runner(cases).run(&sequence::strategy(), |(loaded, steps)| {
        runtime.block_on(sequence::run(subject, loaded, &steps, &seen));
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

/// So many random sets of tasks that call at once: what may never be never is, and what is left at the end agrees.
pub fn at_once(runtime: &Runtime, subject: &Subject, cases: u32) {
    let outcome = runner(cases).run(&tasks::strategy(), |plan| {
        runtime.block_on(tasks::run(&subject.port, &plan));
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
