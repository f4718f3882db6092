//! The HTTP functions under `cargo lambda watch`, on the same servers as an emulator that processes
//! the queue.

use std::{
    env,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    client::{Answer, Client},
    emulator::Place,
    shop::follow,
};

/// cargo may have to build a function before its first answer.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// cargo-lambda and all processes that it has started.
struct Watch {
    child: Child,
    client: Client,
}

impl Watch {
    fn start(env_file: &Path) -> Self {
        let python = env::var("TEST_PYTHON").expect(
            "TEST_PYTHON names a Python with infra/requirements.txt installed: infra/test sets it",
        );
        let bin = Path::new(&python).parent().unwrap();
        let path = env::join_paths(
            [bin.to_owned()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap())),
        )
        .unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("cargo");
        // Cargo's variables for tests would make it rebuild some dependencies.
        for (name, _) in env::vars_os() {
            let kept = ["CARGO_HOME", "CARGO_TARGET_DIR"].iter().any(|kept| name == **kept);
            if name.to_string_lossy().starts_with("CARGO_") && !kept {
                command.env_remove(name);
            }
        }
        let child = command
            .args([
                "lambda",
                "watch",
                "--ignore-changes",
                "-A",
                "127.0.0.1",
                "-P",
                &port.to_string(),
                "--env-file",
            ])
            .arg(env_file)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap())
            .env("PATH", path)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, client: Client::new(&format!("http://127.0.0.1:{port}")) }
    }

    /// Sends requests until the function has been built and answers.
    async fn first(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: serde_json::Value,
    ) -> Answer {
        let deadline = Instant::now() + FIRST_ANSWER_TIMEOUT;
        loop {
            match self.client.send(method, path, token, Some(body.clone())).await {
                Ok(answer) if !answer.status.is_server_error() => return answer,
                last => assert!(Instant::now() < deadline, "{last:?}"),
            }
            sleep(Duration::from_millis(500)).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        for (signal, patience) in [("-TERM", Duration::from_secs(5)), ("-KILL", Duration::ZERO)] {
            // This fails when no process of the group is left.
            let _ =
                Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status();
            let deadline = std::time::Instant::now() + patience;
            while std::time::Instant::now() < deadline && self.child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers and Python packages: infra/test runs it"]
async fn an_order_lives_its_life_under_cargo_lambda_watch() {
    let place = tokio::task::spawn_blocking(Place::servers).await.unwrap();
    let sale = place.sale(5);
    let emulator = place.start(&["--no-demo"]);
    let file = place.path().join("functions.env");
    std::fs::write(&file, place.function_environment()).unwrap();
    let watch = Watch::start(&file);
    let client = &watch.client;

    let page =
        watch.first("GET", &format!("/api/sales/{sale}"), None, json!(null)).await.expect(200);
    assert_eq!(page.json()["available"], 5);
    let account = json!({ "phone": "+1 212-555-0147", "password": "correct horse" });
    watch.first("POST", "/api/users", None, account.clone()).await.expect(201);
    let signed = client.post("/api/sessions", None, account).await.expect(201);
    assert!(signed.headers["set-cookie"].to_str().unwrap().contains("HttpOnly"));
    let token = signed.text("token");

    let ticket = watch
        .first("POST", &format!("/api/sales/{sale}/tickets"), Some(&token), json!({}))
        .await
        .expect(201);
    let order_path = format!("/api/sales/{sale}/orders");
    let accepted = client
        .post(&order_path, Some(&token), json!({ "ticket": ticket.text("ticket") }))
        .await
        .expect(202);
    let order = accepted.text("order_id");
    assert_eq!(order, ticket.text("order_id"));
    watch.first("GET", "/api/orders", Some(&token), json!(null)).await.expect(200);
    assert_eq!(follow(std::slice::from_ref(client), &order, &token).await, "confirmed");
    let paid = client
        .post(&format!("/api/orders/{order}/payment"), Some(&token), json!({}))
        .await
        .expect(200);
    assert_eq!(paid.text("status"), "paid");
    client
        .call("DELETE", "/api/orders", Some(&token), json!(null))
        .await
        .expect_problem(405, "method-not-allowed");
    let purchase = json!({ "purpose": "purchase", "sale_id": sale });
    watch.first("POST", "/api/captchas", Some(&token), purchase).await.expect(201);
    watch
        .first("GET", "/api/admin/blacklist", Some(&token), json!(null))
        .await
        .expect_problem(403, "forbidden");
    emulator.stop();
}
