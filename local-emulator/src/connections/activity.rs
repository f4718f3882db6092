//! What one connection is doing.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::{sync::Notify, time::Instant};

/// What one connection is doing, and when it last did something.
pub struct Activity {
    /// Requests whose answers are not finished.
    requests: AtomicUsize,
    /// Whether a request waits for the rest of its body.
    receiving: AtomicBool,
    /// Whether an answer waits for the peer to read.
    sending: AtomicBool,
    /// The start of the clock of `used_ms`, the same for all connections.
    began: Instant,
    /// Milliseconds from `began` to the last use.
    used_ms: AtomicU64,
    close: Notify,
}

impl Activity {
    pub fn new(began: Instant) -> Self {
        let activity = Self {
            requests: AtomicUsize::new(0),
            receiving: AtomicBool::new(false),
            sending: AtomicBool::new(false),
            began,
            used_ms: AtomicU64::new(0),
            close: Notify::new(),
        };
        activity.touch();
        activity
    }

    /// Whether the connection may be closed for another: it has no request in progress, or the
    /// client has not sent the whole request.
    pub fn is_idle(&self) -> bool {
        (self.requests.load(Ordering::Acquire) == 0 || self.receiving.load(Ordering::Acquire))
            && !self.sending.load(Ordering::Acquire)
    }

    pub fn request_began(&self) {
        self.requests.fetch_add(1, Ordering::AcqRel);
    }

    pub fn request_ended(&self) {
        self.touch();
        self.requests.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn set_receiving(&self, receiving: bool) {
        self.receiving.store(receiving, Ordering::Release);
    }

    pub fn set_sending(&self, sending: bool) {
        self.sending.store(sending, Ordering::Release);
    }

    /// Records that the connection is in use now.
    pub fn touch(&self) {
        let now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When the connection was last used.
    pub fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Requests the end of the connection.
    pub fn close(&self) {
        self.close.notify_one();
    }

    /// Completes when the connection is to be closed. The connection's own task awaits it, so no
    /// request can begin between this and the close.
    pub async fn closed(&self) {
        loop {
            self.close.notified().await;
            if self.is_idle() {
                return;
            }
        }
    }
}
