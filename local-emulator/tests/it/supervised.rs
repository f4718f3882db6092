//! How the emulator reports its state: to systemd (or another supervisor that sets NOTIFY_SOCKET),
//! to a reverse proxy while an instance is replaced, and to health checks by
//! `local-emulator health`.

use std::{
    os::unix::net::UnixDatagram,
    time::{Duration, Instant},
};

use hyper::{Request, header};

use crate::emulator::Place;

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_of_start_life_and_end() {
    let place = Place::embedded();
    let path = place.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut told = String::new();
    let hear = |wanted: &str, told: &mut String| {
        let mut buffer = [0; 4096];
        while !told.lines().any(|line| line == wanted) {
            let bytes = socket
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("no {wanted}: {error}; so far {told:?}"));
            told.push_str(std::str::from_utf8(&buffer[..bytes]).unwrap());
            told.push('\n');
        }
    };
    let place = place
        .environment("NOTIFY_SOCKET", &path.display().to_string())
        .environment("WATCHDOG_USEC", "600000");
    let emulator = place.start(&["--no-demo"]);
    hear("READY=1", &mut told);
    hear("STATUS=ready", &mut told);
    for _ in 0..3 {
        told.clear();
        let before = Instant::now();
        hear("WATCHDOG=1", &mut told);
        assert!(before.elapsed() < Duration::from_millis(600), "{:?}", before.elapsed());
    }
    emulator.stop();
    hear("STOPPING=1", &mut told);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_drains_says_so_before_it_closes() {
    const DRAIN: Duration = Duration::from_millis(2_500);
    let place = Place::embedded().set("DRAIN_MS", &DRAIN.as_millis().to_string());
    let emulator = place.start(&["--no-demo"]);
    let client = emulator.client.clone();
    let address = client.base.strip_prefix("http://").unwrap().to_owned();
    let health = || place.run(&["health", &address]);
    let retried = |retry: &str| {
        let request =
            Request::get(format!("{}/api/sales", client.base)).header("flashsale-retry", retry);
        client.raw(request.body(axum::body::Body::empty()).unwrap())
    };
    assert_eq!(health().status.code(), Some(0));
    let served = retried("502").await.unwrap().expect(200);
    assert!(
        !served.headers.contains_key(header::CONNECTION),
        "an instance that does not drain keeps its connections"
    );

    let started = Instant::now();
    emulator.terminate();
    while client.get("/readyz", None).await.status == 200 {
        assert!(started.elapsed() < DRAIN, "/readyz has not turned red");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(client.get("/readyz", None).await.text("status"), "draining");
    let red = health();
    assert_eq!(red.status.code(), Some(1), "{red:?}");
    assert!(String::from_utf8_lossy(&red.stderr).contains("draining"), "{red:?}");
    // A plain client is served and its connection closed; a proxy that can repeat the request
    // elsewhere gets a 502.
    let served = client.get("/api/sales", None).await.expect(200);
    assert_eq!(served.headers[header::CONNECTION], "close");
    retried("502").await.unwrap().expect(502);
    retried("503").await.unwrap().expect(200);
    assert!(started.elapsed() < DRAIN, "too slow to test anything: {:?}", started.elapsed());

    let took = emulator.ended();
    assert!(started.elapsed() >= DRAIN, "{took:?}");
    let gone = health();
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts_the_draining_short() {
    let place = Place::embedded().set("DRAIN_MS", "60000");
    let emulator = place.start(&["--no-demo"]);
    emulator.terminate();
    tokio::time::sleep(Duration::from_millis(300)).await;
    emulator.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_where_the_settings_say() {
    let place = Place::embedded();
    let emulator = place.start(&["--no-demo"]);
    let port = emulator.client.base.rsplit_once(':').unwrap().1.to_owned();
    // As in a container, where the emulator listens on every address.
    let configured = place.run(&["health", "--listen", &format!("0.0.0.0:{port}")]);
    assert_eq!(configured.status.code(), Some(0), "{configured:?}");
    assert!(
        String::from_utf8_lossy(&configured.stdout).contains(r#""status":"ready""#),
        "{configured:?}"
    );
    // The exit code is 0 or 1 only, as health checks of containers require.
    for wrong in [
        &["health", "--listen", "nowhere"][..],
        &["health", "127.0.0.1:0"],
        &["health", "--listen", "127.0.0.1:0"],
    ] {
        assert_eq!(place.run(wrong).status.code(), Some(1), "{wrong:?}");
    }
    emulator.stop();
}
