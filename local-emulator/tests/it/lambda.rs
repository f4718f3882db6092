//! The Lambda service: working and failing functions, called through the Invoke API, the gateway
//! and function URLs. Most tests use the function `puppet`, which does what its event says.

use std::{path::PathBuf, process::Command, time::Duration};

use axum::body::Body;
use hyper::Request;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Answer, Client},
    emulator::{Emulator, Place},
};

/// An emulator on this test's own private servers, with the function `puppet`.
struct Stage {
    emulator: Emulator,
    place: Place,
}

impl Stage {
    /// `settings` are those of the puppet: `CONCURRENCY`, `TIMEOUT_MS`, …
    async fn open(settings: &[(&str, &str)]) -> Self {
        let place = tokio::task::spawn_blocking(Place::processes).await.unwrap();
        let mut place = place
            .set("FUNCTIONS__PUPPET__COMMAND", &puppet().display().to_string())
            .set("FUNCTIONS__PUPPET__ROUTES", "/puppet/{name},/puppet");
        for (name, value) in settings {
            place = place.set(&format!("FUNCTIONS__PUPPET__{name}"), value);
        }
        Self {
            emulator: place.start(&[
                "--no-demo",
                "--admin-listen",
                "127.0.0.1:0",
                "--invoke-listen",
                "127.0.0.1:0",
            ]),
            place,
        }
    }

    /// A counter of the puppet's.
    async fn counted(&self, name: &str) -> u64 {
        let admin = self
            .emulator
            .said
            .iter()
            .find_map(|line| line.strip_prefix("metrics and health on "))
            .unwrap();
        let text = String::from_utf8(Client::new(admin).get("/metrics", None).await.bytes.to_vec())
            .unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}{{function=\"puppet\"}} ")));
        line.map_or(0, |count| count.parse().unwrap())
    }

    fn client(&self) -> &Client {
        &self.emulator.client
    }

    fn invoker(&self) -> &Client {
        self.emulator.invoker()
    }

    async fn invoke(&self, event: Value) -> Answer {
        self.invoker().post("/2015-03-31/functions/puppet/invocations", None, event).await
    }

    /// The id of the process that answers.
    async fn pid(&self) -> u64 {
        self.invoke(json!({ "context": true })).await.expect(200).json()["pid"].as_u64().unwrap()
    }

    fn pids(&self) -> Vec<u64> {
        let puppet = puppet().display().to_string();
        self.emulator
            .children()
            .into_iter()
            .filter(|(_, command)| command.contains(&puppet))
            .map(|(pid, _)| pid)
            .collect()
    }
}

fn puppet() -> PathBuf {
    // …/deps/it-… -> …/examples/puppet
    let built = std::env::current_exe().unwrap();
    let path = built.parent().unwrap().parent().unwrap().join("examples/puppet");
    assert!(path.is_file(), "{} is missing: cargo test builds it, without --test", path.display());
    path
}

fn error(answer: &Answer) -> (String, String) {
    assert_eq!(answer.headers["x-amz-function-error"], "Unhandled");
    let json = answer.json();
    (
        json["errorType"].as_str().unwrap().to_owned(),
        json["errorMessage"].as_str().unwrap().to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn the_runtime_api_tells_what_lambda_tells() {
    let stage = Stage::open(&[
        ("CONCURRENCY", "3"),
        ("MEMORY_MB", "256"),
        ("ENVIRONMENT", "PUPPET_COLOUR=red"),
    ])
    .await;
    let context = base64(br#"{"client":{"installation_id":"i","app_title":"t","app_version_name":"n","app_version_code":"c","app_package_name":"p"},"custom":{"a":"b"},"env":{}}"#);
    let request =
        Request::post(format!("{}/2015-03-31/functions/puppet/invocations", stage.invoker().base))
            .header("x-amz-client-context", context)
            .header("x-amzn-trace-id", "Root=1-2-3")
            .body(Body::from(r#"{"context":true}"#))
            .unwrap();
    let before = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let answer = stage.client().raw(request).await.unwrap().expect(200);
    assert_eq!(answer.headers["x-amz-executed-version"], "$LATEST");
    let told = answer.json();
    let left_ms = told["deadline_ms"].as_u64().unwrap() - before;
    assert!((9_000..=11_500).contains(&left_ms), "an absolute time, 10 s from now: {left_ms}");
    assert_eq!(told["request_id"].as_str().unwrap().len(), 36);
    assert_eq!(told["arn"], "arn:aws:lambda:us-east-1:000000000000:function:puppet");
    assert_eq!(told["trace"], "Root=1-2-3");
    assert_eq!(told["client_context"]["custom"], json!({ "a": "b" }));
    assert_eq!(
        (&told["function"], &told["memory"], &told["colour"]),
        (&json!("puppet"), &json!(256), &json!("red"))
    );
    assert_eq!(told["path"], Value::Null, "our own environment is not the function's");
    assert_eq!(
        told["of_the_product"], 0,
        "a function other than the product's does not get its addresses and keys"
    );
    let made = stage.invoke(json!({ "context": true })).await.json();
    assert!(made["trace"].as_str().unwrap().starts_with("Root=1-"), "{made}");

    // By ARN, with a log, and with the asynchronous and dry-run invocation types.
    let by_arn = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Apuppet/invocations";
    assert_eq!(
        stage.invoker().post(by_arn, None, json!({ "echo": [1] })).await.expect(200).json(),
        json!([1])
    );
    let with = |name: &'static str, value: &'static str, event: Value| {
        let request = Request::post(format!(
            "{}/2015-03-31/functions/puppet/invocations",
            stage.invoker().base
        ))
        .header(name, value);
        stage.client().raw(request.body(Body::from(event.to_string())).unwrap())
    };
    let logged = with("x-amz-log-type", "Tail", json!({ "print": "hello from the puppet" }))
        .await
        .unwrap()
        .expect(200);
    let log = unbase64(logged.headers["x-amz-log-result"].to_str().unwrap());
    assert!(
        log.starts_with("START RequestId: ")
            && log.contains("hello from the puppet\n")
            && log.contains("REPORT"),
        "{log}"
    );
    assert!(stage.invoke(json!({ "print": "x" })).await.headers.get("x-amz-log-result").is_none());
    let (never, later) = (stage.place.path().join("never"), stage.place.path().join("later"));
    with("x-amz-invocation-type", "DryRun", json!({ "touch": never })).await.unwrap().expect(204);
    let taken =
        with("x-amz-invocation-type", "Event", json!({ "touch": later, "sleep_ms": 60_000 }))
            .await
            .unwrap()
            .expect(202);
    assert_eq!(taken.headers["x-amzn-requestid"].len(), 36);
    settled(|| later.exists()).await;
    assert!(!never.exists());
    let unknown = stage
        .invoker()
        .post("/2015-03-31/functions/puppet:7/invocations", None, json!({}))
        .await
        .expect(404);
    assert_eq!(unknown.headers["x-amzn-errortype"], "ResourceNotFoundException");
    let wrong = with("x-amz-invocation-type", "Perhaps", json!({})).await.unwrap().expect(400);
    assert_eq!(wrong.headers["x-amzn-errortype"], "InvalidParameterValueException");
    let wrong = with("x-amz-client-context", "{}", json!({})).await.unwrap().expect(400);
    assert_eq!(wrong.headers["x-amzn-errortype"], "InvalidRequestContentException");
    let nobody = stage
        .invoker()
        .post("/2015-03-31/functions/nobody/invocations", None, json!({}))
        .await
        .expect(404);
    assert_eq!(nobody.headers["x-amzn-errortype"], "ResourceNotFoundException");
    let request =
        Request::post(format!("{}/2015-03-31/functions/puppet/invocations", stage.invoker().base))
            .body(Body::from("{"))
            .unwrap();
    let wrong = stage.client().raw(request).await.unwrap().expect(400);
    assert_eq!(wrong.headers["x-amzn-errortype"], "InvalidRequestContentException");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn http_reaches_the_function_and_comes_back_whole() {
    let stage = Stage::open(&[]).await;
    let request = Request::post(format!("{}/puppet/a%20b?x=1&x=2", stage.client().base))
        .header("content-type", "application/octet-stream")
        .header("cookie", "c=1; d=2")
        .header("x-many", "1")
        .header("x-many", "2")
        .body(Body::from(&b"\xff\x00\x01"[..]))
        .unwrap();
    let answer = stage.client().raw(request).await.unwrap().expect(200);
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
    let event = answer.json();
    assert_eq!(
        (&event["routeKey"], &event["pathParameters"]["name"]),
        (&json!("ANY /puppet/{name}"), &json!("a b"))
    );
    assert_eq!(
        (&event["rawPath"], &event["rawQueryString"]),
        (&json!("/puppet/a%20b"), &json!("x=1&x=2"))
    );
    assert_eq!((&event["cookies"], &event["body"]), (&json!(["c=1", "d=2"]), &json!("/wAB")));
    assert_eq!(event["headers"]["x-many"], "1,2");
    assert_eq!(event["headers"]["x-request-id"], answer.headers["x-request-id"].to_str().unwrap());

    // As a function URL: the function gets every path.
    let event =
        stage.invoker().get("/lambda-url/puppet/any/path?y=1", None).await.expect(200).json();
    assert_eq!((&event["routeKey"], &event["rawPath"]), (&json!("$default"), &json!("/any/path")));
    stage.invoker().get("/lambda-url/nobody/", None).await.expect_problem(404, "not-found");
    assert!(
        stage.invoker().get("/lambda-url/sales/api/sales", None).await.expect(200).json()["sales"]
            .is_array()
    );

    let request = Request::get(format!("{}/api/sales", stage.client().base))
        .header("host", "a b")
        .body(Body::empty())
        .unwrap();
    stage.client().raw(request).await.unwrap().expect_problem(422, "invalid");
    let large = Request::post(format!("{}/api/sessions", stage.client().base))
        .body(Body::from(vec![b' '; 16 * 1024 + 1]))
        .unwrap();
    stage.client().raw(large).await.unwrap().expect_problem(413, "body-too-large");

    let binary = json!({ "statusCode": 203, "body": "/wAB", "isBase64Encoded": true, "headers": { "content-type": "image/x" } });
    let path = |json: &Value| format!("/puppet?answer={}", encoded(&json.to_string()));
    let answer = stage.client().get(&path(&binary), None).await.expect(203);
    assert_eq!(
        (&answer.bytes[..], &answer.headers["content-type"]),
        (&b"\xff\x00\x01"[..], &"image/x".parse().unwrap())
    );
    assert_eq!(
        stage.client().get(&path(&json!({ "plain": 1 })), None).await.expect(200).json(),
        json!({ "plain": 1 })
    );
    stage
        .client()
        .get(&path(&json!({ "statusCode": 7 })), None)
        .await
        .expect_problem(502, "function-failed");

    // A caller of the Invoke API can do everything that the functions can: refuse other machines
    // and pages.
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("origin", "https://evil.example"),
    ] {
        let request = Request::post(format!(
            "{}/2015-03-31/functions/puppet/invocations",
            stage.invoker().base
        ))
        .header(name, value);
        let refused =
            stage.client().raw(request.body(Body::from("{}")).unwrap()).await.unwrap().expect(403);
        assert_eq!(refused.headers["x-amzn-errortype"], "AccessDeniedException");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn failures_are_told_and_cost_no_more_than_themselves() {
    let stage = Stage::open(&[
        ("CONCURRENCY", "1"),
        ("INSTANCES_MAX", "2"),
        ("TIMEOUT_MS", "700"),
        ("MEMORY_MB", "128"),
    ])
    .await;
    let first = stage.pid().await;

    let (kind, message) = error(&stage.invoke(json!({ "error": "no luck" })).await.expect(200));
    assert!(message == "no luck" && !kind.is_empty(), "{kind} {message}");
    error(&stage.invoke(json!({ "panic": "now" })).await.expect(200));
    assert_eq!(stage.pid().await, first, "an error of the function is no end of its process");

    let (kind, message) = error(&stage.invoke(json!({ "exit": 3 })).await.expect(200));
    assert_eq!(kind, "Runtime.ExitError");
    assert!(message.ends_with("Runtime exited with error: exit status 3"), "{message}");
    let (_, message) = error(&stage.invoke(json!({ "kill": true })).await.expect(200));
    assert!(message.contains("signal: 6"), "{message}");
    let second = stage.pid().await;
    assert_ne!(second, first);
    // The log's last lines say why it ended.
    for number in 0..10 {
        let request = Request::post(format!(
            "{}/2015-03-31/functions/puppet/invocations",
            stage.invoker().base
        ));
        let order = json!({ "print": format!("last words {number}"), "exit": 4 }).to_string();
        let answer = stage
            .client()
            .raw(request.header("x-amz-log-type", "Tail").body(Body::from(order)).unwrap())
            .await
            .unwrap();
        let log = unbase64(answer.headers["x-amz-log-result"].to_str().unwrap());
        assert!(log.contains(&format!("last words {number}\n")), "{log}");
    }

    // Through the gateway the same failures are a 502 and a 504.
    let told = |order: Value| format!("/puppet?do={}", encoded(&order.to_string()));
    stage
        .client()
        .get(&told(json!({ "exit": 3 })), None)
        .await
        .expect_problem(502, "function-failed");
    stage
        .client()
        .get(&told(json!({ "error": "x" })), None)
        .await
        .expect_problem(502, "function-failed");
    let third = stage.pid().await;
    let started = Instant::now();
    stage
        .client()
        .get(&told(json!({ "sleep_ms": 60_000 })), None)
        .await
        .expect_problem(504, "function-timeout");
    assert!(
        (Duration::from_millis(650)..Duration::from_secs(3)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
    let (kind, message) = error(&stage.invoke(json!({ "sleep_ms": 60_000 })).await.expect(200));
    assert_eq!(kind, "Sandbox.Timedout");
    assert!(message.ends_with("Task timed out after 0.70 seconds"), "{message}");
    assert_ne!(stage.pid().await, third, "a process that does not answer is replaced");
    settled(|| stage.pids().len() <= 2).await;

    // Memory is limited, and available up to the limit.
    stage.invoke(json!({ "allocate_mb": 32 })).await.expect(200);
    let (_, message) = error(&stage.invoke(json!({ "allocate_mb": 200 })).await.expect(200));
    assert!(message.contains("alloc"), "{message}");

    let (kind, _) = error(&stage.invoke(json!({ "bytes": 7 * 1024 * 1024 })).await.expect(200));
    assert_eq!(kind, "Function.ResponseSizeTooLarge");
    stage.invoke(json!({ "echo": "x".repeat(1024 * 1024) })).await.expect(200);
    let large =
        Request::post(format!("{}/2015-03-31/functions/puppet/invocations", stage.invoker().base));
    let refused = stage
        .client()
        .raw(large.body(Body::from(vec![b' '; 6 * 1024 * 1024 + 1])).unwrap())
        .await
        .unwrap()
        .expect(413);
    assert_eq!(refused.headers["x-amzn-errortype"], "RequestTooLargeException");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn one_function_s_crowd_does_not_stop_another() {
    let stage = Stage::open(&[
        ("CONCURRENCY", "2"),
        ("INSTANCES_MAX", "2"),
        ("QUEUE_MAX", "3"),
        ("QUEUE_WAIT_MS", "2500"),
        ("IDLE_MS", "500"),
    ])
    .await;
    // Two processes run four requests; three are queued and refused after their timeout; the rest
    // are refused at once.
    let crowd: Vec<_> = (0..12)
        .map(|_| {
            let client = stage.invoker().clone();
            tokio::spawn(async move {
                let started = Instant::now();
                let answer = client
                    .post(
                        "/2015-03-31/functions/puppet/invocations",
                        None,
                        json!({ "sleep_ms": 6_000 }),
                    )
                    .await;
                (answer, started.elapsed())
            })
        })
        .collect();
    sleep(Duration::from_millis(500)).await;
    let other = Instant::now();
    stage.client().get("/api/sales", None).await.expect(200);
    assert!(
        other.elapsed() < Duration::from_secs(2),
        "another function has its own queue and processes: {:?}",
        other.elapsed()
    );
    stage.client().get("/puppet", None).await.expect_problem(429, "rate-limited").headers["retry-after"].to_str().unwrap();
    let (mut done, mut at_once, mut later) = (0, 0, 0);
    for one in crowd {
        let (answer, took) = one.await.unwrap();
        match answer.status.as_u16() {
            200 => done += 1,
            429 if took < Duration::from_millis(2_000) => at_once += 1,
            429 => later += 1,
            _ => panic!("{answer:?}"),
        }
        if answer.status == 429 {
            assert_eq!(answer.headers["x-amzn-errortype"], "TooManyRequestsException");
            assert_eq!(answer.json()["Reason"], "ConcurrentInvocationLimitExceeded");
            assert_eq!(answer.headers["retry-after"], "1");
        }
    }
    assert_eq!((done, at_once, later), (4, 5, 3));
    // If the caller of a queued request goes away, the request leaves the queue and is not run.
    let (busy, gone) = (stage.invoker().clone(), stage.place.path().join("gone"));
    let busy: Vec<_> = (0..4)
        .map(|_| {
            let client = busy.clone();
            tokio::spawn(async move {
                client
                    .post(
                        "/2015-03-31/functions/puppet/invocations",
                        None,
                        json!({ "sleep_ms": 4_000 }),
                    )
                    .await
            })
        })
        .collect();
    sleep(Duration::from_millis(1_000)).await;
    let crowd: Vec<_> = (0..3)
        .map(|_| {
            let (client, gone) = (stage.invoker().clone(), gone.clone());
            tokio::spawn(async move {
                client
                    .post(
                        "/2015-03-31/functions/puppet/invocations",
                        None,
                        json!({ "touch": gone }),
                    )
                    .await
            })
        })
        .collect();
    sleep(Duration::from_millis(700)).await;
    stage.invoke(json!({})).await.expect(429);
    crowd.iter().for_each(tokio::task::JoinHandle::abort);
    sleep(Duration::from_millis(700)).await;
    stage.invoke(json!({ "echo": 1 })).await.expect(200);
    for one in busy {
        one.await.unwrap().expect(200);
    }
    assert!(!gone.exists());
    // Idle instances end.
    settled(|| stage.pids().is_empty()).await;
    stage.invoke(json!({ "echo": 1 })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn concurrency_shares_a_process_and_a_timeout_spares_the_neighbours() {
    let stage = Stage::open(&[
        ("CONCURRENCY", "8"),
        ("INSTANCES_MAX", "1"),
        ("INSTANCES_MIN", "1"),
        ("TIMEOUT_MS", "4000"),
    ])
    .await;
    settled(|| stage.pids().len() == 1).await;
    let started = Instant::now();
    let many: Vec<_> = (0..8)
        .map(|_| {
            let client = stage.invoker().clone();
            tokio::spawn(async move {
                client
                    .post(
                        "/2015-03-31/functions/puppet/invocations",
                        None,
                        json!({ "sleep_ms": 1_000 }),
                    )
                    .await
                    .expect(200);
            })
        })
        .collect();
    for one in many {
        one.await.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(4), "eight at a time: {:?}", started.elapsed());

    let pid = stage.pid().await;
    let client = stage.invoker().clone();
    let hung = tokio::spawn(async move {
        client
            .post("/2015-03-31/functions/puppet/invocations", None, json!({ "sleep_ms": 60_000 }))
            .await
    });
    sleep(Duration::from_millis(2_000)).await;
    let client = stage.invoker().clone();
    let neighbour = tokio::spawn(async move {
        client
            .post(
                "/2015-03-31/functions/puppet/invocations",
                None,
                json!({ "sleep_ms": 3_000, "echo": 5 }),
            )
            .await
    });
    error(&hung.await.unwrap().expect(200));
    let replaced = stage.pid().await;
    assert_ne!(replaced, pid, "the process that hangs gets no more work");
    assert_eq!(neighbour.await.unwrap().expect(200).json(), json!(5), "what it had is finished");
    settled(|| stage.pids() == [replaced]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_function_that_can_t_start_is_told_of_and_not_hammered() {
    let here = std::env::temp_dir().join(format!("puppet-{}", flashsale::testing::order_id()));
    let environment = format!("PUPPET_START={}", here.display());
    let stage = Stage::open(&[("ENVIRONMENT", &environment), ("QUEUE_WAIT_MS", "5000")]).await;
    let (kind, message) = error(&stage.invoke(json!({ "echo": 1 })).await.expect(200));
    assert_eq!(kind, "Runtime.InitError");
    assert!(message.contains("exit status 8"), "{message}");
    stage.client().get("/puppet", None).await.expect_problem(502, "function-failed");
    let ready = stage.client().get("/readyz", None).await.expect(503).json();
    assert_eq!(ready["down"], json!(["functions"]));
    stage.client().get("/api/sales", None).await.expect(200);
    sleep(Duration::from_secs(2)).await;
    let starts = stage.counted("flashsale_function_starts_total").await;
    assert!((3..=12).contains(&starts), "ever more seldom: {starts}");
    // Once the function can start again, health checks report it without a request to the function.
    std::fs::write(&here, "").unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    while stage.client().get("/readyz", None).await.status != 200 {
        assert!(Instant::now() < deadline, "still not ready");
        sleep(Duration::from_millis(200)).await;
    }
    stage.invoke(json!({ "echo": 1 })).await.expect(200);
    std::fs::remove_file(here).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_function_that_never_asks_for_work_is_told_of() {
    let stage =
        Stage::open(&[("ENVIRONMENT", "PUPPET_START=hang"), ("QUEUE_WAIT_MS", "30000")]).await;
    let request =
        Request::post(format!("{}/2015-03-31/functions/puppet/invocations", stage.invoker().base))
            .body(Body::from("{}"))
            .unwrap();
    let patient = Client::patient(&stage.invoker().base, Duration::from_secs(25));
    let started = Instant::now();
    let (kind, message) = error(&patient.raw(request).await.unwrap().expect(200));
    assert_eq!(kind, "Runtime.InitError");
    assert!(message.contains("did not ask for work within 10 s"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn binaries_are_found_where_cargo_lambda_leaves_them() {
    let place = Place::processes();
    let dir = place.path().join("lambda");
    std::fs::create_dir_all(dir.join("sales")).unwrap();
    std::os::unix::fs::symlink(Place::binaries().join("sales"), dir.join("sales/bootstrap"))
        .unwrap();
    let event =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../functions/sales/events/sales-list.json");
    let invoke = |function: &str| {
        place.run(&[
            "invoke",
            function,
            "--functions-dir",
            dir.to_str().unwrap(),
            "--event",
            event.to_str().unwrap(),
        ])
    };
    let output = invoke("sales");
    let answer: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(answer["statusCode"], 200);
    let missing = invoke("login");
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("function \"login\" has no program in"),
        "{missing:?}"
    );
}

/// The same Invoke API and function URLs when the functions run in the emulator's process.
#[tokio::test(flavor = "multi_thread")]
async fn functions_are_invoked_in_process_too() {
    let place = Place::embedded();
    let emulator = place.start(&["--no-demo", "--invoke-listen", "127.0.0.1:0"]);
    let event = std::fs::read(
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../functions/sales/events/sales-list.json"),
    )
    .unwrap();
    let invoke = |function: &str, event: Vec<u8>| {
        let request = Request::post(format!(
            "{}/2015-03-31/functions/{function}/invocations",
            emulator.invoker().base
        ));
        emulator.invoker().raw(request.body(Body::from(event)).unwrap())
    };
    let answer = invoke("sales", event.clone()).await.unwrap().expect(200);
    assert_eq!(
        (&answer.json()["statusCode"], answer.headers["x-amzn-requestid"].len()),
        (&json!(200), 36)
    );
    let tick = json!({ "detail-type": "Scheduled Event", "source": "aws.events", "detail": {} })
        .to_string()
        .into_bytes();
    let swept = invoke("sweeper", tick).await.unwrap().expect(200).json();
    assert!(
        swept["leader"] == json!(true) && swept["failed"] == json!(0),
        "the answer lists what the sweep did: {swept}"
    );
    error(&invoke("order-worker", b"{}".to_vec()).await.unwrap().expect(200));
    let wrong_host = String::from_utf8(event).unwrap().replace("\"host\": \"", "\"host\": \"a b");
    error(&invoke("sales", wrong_host.into_bytes()).await.unwrap().expect(200));
    invoke("nobody", b"{}".to_vec()).await.unwrap().expect(404);
    assert!(
        emulator
            .invoker()
            .get("/lambda-url/sales/api/sales?limit=1", None)
            .await
            .expect(200)
            .json()["sales"]
            .is_array()
    );
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_invoke_api_is_on_its_own_listener_only() {
    let place = Place::embedded();
    for flags in [&["--no-demo"][..], &["--no-demo", "--invoke-listen", "127.0.0.1:0"]] {
        let emulator = place.start(flags);
        // A request of a proxy without forwarding headers looks like one from this machine.
        emulator
            .client
            .post("/2015-03-31/functions/sales/invocations", None, json!({}))
            .await
            .expect_problem(404, "not-found");
        emulator
            .client
            .get("/lambda-url/sales/api/sales", None)
            .await
            .expect_problem(404, "not-found");
        emulator.stop();
    }
    let emulator = place.start(&["--no-demo", "--invoke-listen", "127.0.0.1:0"]);
    let invoker = emulator.invoker();
    invoker.get("/lambda-url/sales/api/sales", None).await.expect(200);
    invoker.get("/api/sales", None).await.expect_problem(404, "not-found");
    // A page whose owner resolves its host name to 127.0.0.1.
    let port = invoker.base.rsplit(':').next().unwrap();
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("evil.example:{port}"), 403),
        ("127.0.0.1".to_owned(), 403),
        ("127.0.0.1:1".to_owned(), 403),
    ] {
        let request = Request::get(format!("{}/lambda-url/sales/api/sales", invoker.base))
            .header("host", host)
            .body(Body::empty())
            .unwrap();
        invoker.raw(request).await.unwrap().expect(status);
    }
    emulator.stop();
    for flags in [
        &["--invoke-listen", "0.0.0.0:0"][..],
        &["--invoke-listen", "127.0.0.1:0", "--profile", "production"],
    ] {
        let key = format!("a:{}", base64(&[7; 32]));
        let place = Place::embedded()
            .with_captchas()
            .set("SESSION_KEYS", &key)
            .set("TICKET_KEYS", &key)
            .unaudited();
        let refused = place.run(flags);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains("invoke_listen: "), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn the_runtime_api_answers_only_to_its_own_address() {
    let stage = Stage::open(&[]).await;
    let told = stage.invoke(json!({ "context": true })).await.expect(200).json();
    let address = told["runtime_api"].as_str().unwrap();
    let ask = async |host: &str| {
        let uri = format!("http://{address}/2018-06-01/runtime/invocation/none/response");
        let request = Request::post(uri).header("host", host).body(Body::from("{}")).unwrap();
        stage.client().raw(request).await.unwrap()
    };
    ask("evil.example").await.expect(403);
    ask(&address.replace("127.0.0.1", "evil.example")).await.expect(403);
    assert_eq!(ask(address).await.expect(400).json()["errorType"], "InvalidRequestID");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn no_process_outlives_the_emulator() {
    let stage = Stage::open(&[("INSTANCES_MIN", "1")]).await;
    stage.pid().await;
    stage.client().get("/api/sales", None).await.expect(200);
    let children = stage.emulator.children();
    assert!(children.len() >= 3, "{children:?}");
    let Stage { emulator, place } = stage;
    emulator.kill();
    settled(|| children.keys().all(|pid| !is_alive(*pid))).await;
    drop(place);
}

fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Where no init process reaps orphans, an ended process remains as a zombie.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Waits until the condition becomes true.
#[track_caller]
fn settled(is: impl Fn() -> bool) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !is() {
            assert!(Instant::now() < deadline, "{at}: did not happen");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

pub fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn unbase64(text: &str) -> String {
    use base64::Engine as _;
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// The Python in which `infra/requirements.txt` is installed.
pub fn python() -> String {
    std::env::var("TEST_PYTHON").expect(
        "TEST_PYTHON names a Python with infra/requirements.txt installed: infra/test sets it",
    )
}

pub fn python_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/python")
}

/// Private servers and the function `greeting`, which runs under AWS's own Python runtime client.
fn greeting() -> Place {
    Place::processes()
        .set(
            "FUNCTIONS__GREETING__COMMAND",
            &format!("{},-m,awslambdaric,greeting.handler", python()),
        )
        .set(
            "FUNCTIONS__GREETING__ENVIRONMENT",
            &format!("PYTHONDONTWRITEBYTECODE=1,PYTHONPATH={}", python_dir().display()),
        )
        .set("FUNCTIONS__GREETING__ROUTES", "/greeting/{name}")
        .set("FUNCTIONS__GREETING__CONCURRENCY", "1")
        .set("FUNCTIONS__GREETING__INSTANCES_MAX", "1")
        .set("FUNCTIONS__GREETING__QUEUE_MAX", "2")
        .set("FUNCTIONS__GREETING__TIMEOUT_MS", "2000")
        .set("FUNCTIONS__GREETING__MEMORY_MB", "256")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers and Python packages: infra/test runs it"]
async fn a_function_on_another_vendor_s_runtime_client_answers_through_the_gateway() {
    let place = tokio::task::spawn_blocking(greeting).await.unwrap();
    let emulator = place.start(&["--no-demo"]);
    let request = Request::put(format!("{}/greeting/world?a=1&a=2", emulator.client.base))
        .header("content-type", "application/octet-stream")
        .body(Body::from(&b"\xff\x00"[..]))
        .unwrap();
    let answer = emulator.client.raw(request).await.unwrap().expect(201);
    assert_eq!(
        (&answer.headers["x-greeter"], &answer.headers["set-cookie"]),
        (&"python".parse().unwrap(), &"greeted=yes; Path=/".parse().unwrap())
    );
    let told = answer.json();
    assert_eq!(
        (&told["hello"], &told["method"], &told["body"]),
        (&json!("world"), &json!("PUT"), &json!("ff00"))
    );
    assert_eq!(told["query"], json!({ "a": "1,2" }));
    assert!((1..=2_000).contains(&told["remaining_ms"].as_u64().unwrap()), "{told}");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers and Python packages: infra/test runs it"]
async fn a_function_that_can_t_be_loaded_says_why() {
    let place = tokio::task::spawn_blocking(greeting).await.unwrap();
    let place = place.set(
        "FUNCTIONS__GREETING__COMMAND",
        &format!("{},-m,awslambdaric,no_such_module.handler", python()),
    );
    let emulator = place.start(&["--no-demo", "--invoke-listen", "127.0.0.1:0"]);
    let started = Instant::now();
    let answer = emulator
        .invoker()
        .post("/2015-03-31/functions/greeting/invocations", None, json!({}))
        .await
        .expect(200);
    let (kind, message) = error(&answer);
    assert_eq!(kind, "Runtime.ImportModuleError");
    assert!(message.contains("no_such_module"), "{message}");
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "told by the function itself, not by the clock: {:?}",
        started.elapsed()
    );
    emulator.client.get("/greeting/x", None).await.expect_problem(502, "function-failed");
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers and Python packages: infra/test runs it"]
async fn aws_s_own_sdk_invokes_functions() {
    let place = tokio::task::spawn_blocking(greeting).await.unwrap();
    let emulator = place.start(&["--no-demo", "--invoke-listen", "127.0.0.1:0"]);
    let base = emulator.invoker().base.clone();
    let run = move || {
        Command::new(python()).arg(python_dir().join("invoking.py")).arg(base).output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    emulator.stop();
}
