//! Queries of stores that may be down or slow.

use std::time::Duration;

use tokio::task::JoinHandle;

/// Timeout of a query; the current second is shown without its result.
const QUERY_TIMEOUT: Duration = Duration::from_millis(500);

/// One query of a store at a time, in its own task: cancelling a running query would close its
/// connection.
pub struct Query<T>(Option<JoinHandle<T>>);

impl<T> Default for Query<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Query<T> {
    /// The answer; `None` when it does not arrive in time. Then the query keeps running, and the
    /// next call waits for its answer instead of starting another.
    pub async fn run<F: Future<Output = T> + Send + 'static>(
        &mut self,
        start: impl FnOnce() -> F,
    ) -> Option<T> {
        let running = self.0.get_or_insert_with(|| tokio::spawn(start()));
        let answer = tokio::time::timeout(QUERY_TIMEOUT, running).await.ok()?;
        self.0 = None;
        answer.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_late_answer_is_waited_for_and_not_given_up() {
        let (answer, asked) = tokio::sync::oneshot::channel();
        let mut query = Query::default();
        assert_eq!(query.run(|| async { asked.await.unwrap() }).await, None, "not in time");
        answer.send(7).unwrap();
        assert_eq!(query.run(|| async { unreachable!("one query at a time") }).await, Some(7));
        assert_eq!(query.run(|| async { 8 }).await, Some(8));
    }
}
