//! Real servers, accessed over plain sockets. A missing program fails these tests.
#![expect(clippy::unwrap_used, reason = "tests")]

mod clients;
mod lifecycle;
mod owner;
mod start;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use flashsale_servers::{Builder, Servers};

/// A directory that is removed when the test passes. Its path contains a space and is too long for
/// a unix socket.
struct TestDir(PathBuf);

impl TestDir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(format!("flashsale servers {}-{number}", std::process::id()))
            .join("a".repeat(100));
        Self(path)
    }

    fn builder(&self) -> Builder {
        Servers::builder(&self.0)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            std::fs::remove_dir_all(self.0.parent().unwrap()).unwrap();
        }
    }
}
