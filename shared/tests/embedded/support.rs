//! A data directory that is removed when its test ends.

use std::path::{Path, PathBuf};

use flashsale::{adapters::sqlite::Sqlite, contract, private_files::Loose};

/// A temporary directory.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("flashsale-test-{}", contract::order_id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub async fn sqlite(&self) -> Sqlite {
        Sqlite::open(self.path(), Loose::Tighten).await.unwrap()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
