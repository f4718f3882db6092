//! A data directory that is removed when its test ends, and an administrator.

use std::path::{Path, PathBuf};

use flashsale::{
    adapters::sqlite::Sqlite,
    app::{Admin, App, Client, SessionClaims},
    domain::{Role, Session},
    private_files::Loose,
    testing,
};

/// An administrator who has just signed in.
pub async fn admin(app: &App, client: &Client) -> Admin {
    let (user_id, session_id, role) = (testing::user_id(), testing::session_id(), Role::Admin);
    let now = app.now();
    app.ports
        .sessions
        .open(&[Session { session_id, user_id, role, expires_at: now.plus_ms(60_000) }], now)
        .await
        .unwrap();
    let claims = SessionClaims {
        user_id,
        session_id,
        role,
        iat: now.epoch_ms() / 1_000,
        exp: now.epoch_ms() / 1_000 + 60,
    };
    app.enter_admin(&claims, client).await.unwrap()
}

/// A temporary directory.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("flashsale-test-{}", testing::order_id()));
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
