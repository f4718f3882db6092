//! The audit of a running emulator. `local-emulator audit` after its end can't read the embedded
//! admission store, which is in the process's memory.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{client::Client, emulator::Place};

/// The administrator that reads the books.
pub const ADMIN: (&str, &str) = ("+12015550199", "correct horse battery");
/// Time for orders in progress to end.
const PATIENCE: Duration = Duration::from_secs(40);

/// Adds the administrator. Embedded, this must precede the emulator's start.
pub fn add_admin(place: &Place) {
    let (phone, password) = ADMIN;
    let added =
        place.run_with_input(&["users", "add-admin", "--phone", phone], &format!("{password}\n"));
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
}

/// Waits until the sale's orders in progress have ended and its books balance, and returns them.
pub async fn balanced_books(client: &Client, sale: &str) -> Value {
    let (phone, password) = ADMIN;
    let account = json!({ "phone": phone, "password": password });
    let token = client.post("/api/sessions", None, account).await.expect(201).text("token");
    let path = format!("/api/admin/sales/{sale}/books");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let books = client.get(&path, Some(&token)).await.expect(200).json();
        if books["findings"].as_array().unwrap().is_empty() && books["reserved"] == 0 {
            return books;
        }
        assert!(Instant::now() < deadline, "{books}");
        sleep(Duration::from_millis(500)).await;
    }
}
