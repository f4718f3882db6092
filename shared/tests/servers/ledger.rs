//! Suites of the ledger ports on MySQL or MariaDB, each in a database of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code too")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use flashsale::{
    adapters::{mysql::MySql, system::SystemClock},
    config::Config,
    contract_tests,
    domain::{OrderStatus, Transition},
    ports::{Clock as _, Health as _, LedgerClock as _, OrderLedger, Sales, StoreError, Users},
    testing::{
        self, START,
        contract::ledger::{self, Ledger},
    },
    wire,
};
use flashsale_servers::{ServerKind, Servers, StartError};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Connection as _, MySqlConnection};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::support::{servers, unique};

/// Creates a database on the shared server and returns its address.
pub async fn database() -> String {
    let admin = servers().mysql_admin_url().unwrap();
    let name = unique("ledger");
    // The tables must not depend on the database's default character set.
    execute(&mut raw(&admin).await, &format!("CREATE DATABASE {name} CHARACTER SET latin1"))
        .await
        .unwrap();
    format!("{admin}/{name}")
}

/// A separate connection, like that of another tool.
pub async fn raw(url: &str) -> MySqlConnection {
    MySqlConnection::connect(url).await.unwrap()
}

pub async fn execute(connection: &mut MySqlConnection, sql: &str) -> Result<(), sqlx::Error> {
    // Not prepared: MySQL prepares neither BEGIN nor LOCK TABLES.
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
}

pub async fn migrated(url: &str) -> MySql {
    let store = MySql::new(url).unwrap();
    store.migrate().await.unwrap();
    store
}

async fn ledger() -> ((), Ledger) {
    ((), Ledger::of(migrated(&database().await).await))
}

contract_tests! { ledger [#[ignore = "needs servers: infra/test runs it"]] ledger() }

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn the_servers_clock_is_told() {
    let store = migrated(&database().await).await;
    let before = SystemClock.now();
    let told = store.ask().await.unwrap();
    // The server runs on this machine and reports milliseconds, truncated.
    assert!(before.minus_ms(1) <= told && told <= SystemClock.now(), "{before} {told}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn several_instances_migrate_at_once() {
    let url = database().await;
    for _ in 0..2 {
        let stores: Vec<_> = (0..4).map(|_| MySql::new(&url).unwrap()).collect();
        for outcome in join_all(stores.iter().map(MySql::migrate)).await {
            outcome.unwrap();
        }
    }
    let runs: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM _sqlx_migrations WHERE success")
        .fetch_one(&mut raw(&url).await)
        .await
        .unwrap();
    assert_eq!(runs, std::fs::read_dir("migrations/mysql").unwrap().count() as i64);
    MySql::new(&url).unwrap().check().await.unwrap();
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_migrator_waits_for_another() {
    let url = database().await;
    let mut other = raw(&url).await;
    let lock = "DO GET_LOCK(CONCAT('flashsale-migrate-', LEFT(SHA2(DATABASE(), 256), 32)), 0)";
    execute(&mut other, lock).await.unwrap();
    let store = MySql::new(&url).unwrap();
    let migration = tokio::spawn(async move { store.migrate().await });
    // Long enough to finish if it did not wait. The check is that it waited, not for how long.
    sleep(Duration::from_millis(500)).await;
    let tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE()",
    )
    .fetch_one(&mut other)
    .await
    .unwrap();
    assert_eq!(tables, 0);
    other.close().await.unwrap();
    migration.await.unwrap().unwrap();
}

#[tokio::test]
#[ignore = "needs servers: infra/test runs it"]
async fn a_schema_that_is_missing_is_not_healthy() {
    let store = MySql::new(&database().await).unwrap();
    let unmigrated = store.check().await.expect_err("there are no tables");
    assert!(matches!(unmigrated, StoreError::Unavailable { .. }), "{unmigrated}");
    store.migrate().await.unwrap();
    store.check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn constraints_hold() {
    let url = database().await;
    let forbidden = ledger::forbidden(&Ledger::of(migrated(&url).await)).await;
    let mut raw = raw(&url).await;
    for (what, sql) in &forbidden.statements {
        let refused = execute(&mut raw, sql).await.expect_err(what);
        let refused = refused.as_database_error().unwrap();
        assert!(refused.is_check_violation() || refused.is_unique_violation(), "{what}: {refused}");
    }
    forbidden.assert_unharmed().await;
    for sql in forbidden.falsehoods() {
        execute(&mut raw, &sql).await.unwrap();
    }
    forbidden.assert_falsehood_is_seen().await;
}

/// Waits until a transaction of the database waits for a row. Returns the transaction's isolation
/// level.
async fn somebody_waits(raw: &mut MySqlConnection) -> String {
    loop {
        let waiting: Option<String> = sqlx::query_scalar(
            "SELECT CAST(t.trx_isolation_level AS CHAR) FROM information_schema.innodb_trx t \
             JOIN information_schema.processlist p ON p.id = t.trx_mysql_thread_id \
             WHERE t.trx_state = 'LOCK WAIT' AND p.db = DATABASE()",
        )
        .fetch_optional(&mut *raw)
        .await
        .unwrap();
        match waiting {
            Some(level) => return level,
            // The server refreshes that table ten times a second.
            None => sleep(Duration::from_millis(110)).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn locks_of_one_sale_hold_up_no_other() {
    let url = database().await;
    let store = migrated(&url).await;
    let (held, free) = (testing::sale(5), testing::sale(5));
    store.create_sale(&held).await;
    store.create_sale(&free).await;
    let old = testing::request(&held, testing::user_id());
    store.record(std::slice::from_ref(&old), START, 10).await.unwrap();

    // The table is young and small: a plan that scanned it would run into these locks.
    let mut holder = raw(&url).await;
    execute(&mut holder, "BEGIN").await.unwrap();
    let sale = format!("SELECT stock FROM sales WHERE sale_id = '{}' FOR UPDATE", held.sale_id);
    execute(&mut holder, &sale).await.unwrap();
    execute(
        &mut holder,
        &format!("UPDATE orders SET version = version WHERE order_id = '{}'", old.order_id),
    )
    .await
    .unwrap();

    let batch: Vec<_> = (0..50).map(|_| testing::request(&free, testing::user_id())).collect();
    let recorded = store.record(&batch, START, 10_000).await.unwrap();
    assert_eq!(recorded[4].as_ref().unwrap().order.status, OrderStatus::Confirmed);
    let request = &batch[4];
    let cancelled = store.cancel(request.order_id, request.user_id, None, START).await.unwrap();
    assert!(matches!(cancelled, Transition::Done(_)));
    let due = testing::request(&free, testing::user_id());
    store.record(&[due], START, 5).await.unwrap();
    assert_eq!(store.expire_due(START.plus_ms(5), 10).await.unwrap().len(), 1);
    let ids: Vec<_> = batch.iter().map(|request| request.order_id).collect();
    store.mark_stock_returned(&ids, START).await.unwrap();
    // Reads do not wait for locks.
    assert_eq!(store.tally(held.sale_id).await.unwrap().active, 1);

    // The locked sale itself: the call rolls back in time and reports that.
    let begun = Instant::now();
    let blocked = testing::request(&held, testing::user_id());
    let refused = store.record(std::slice::from_ref(&blocked), START, 10).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());

    // The call is retried when the lock is released while it waits.
    let waiting = tokio::spawn({
        let (store, blocked) = (store.clone(), blocked.clone());
        async move { store.record(&[blocked], START, 10).await }
    });
    assert_eq!(somebody_waits(&mut holder).await, "READ COMMITTED");
    execute(&mut holder, "ROLLBACK").await.unwrap();
    let recorded = waiting.await.unwrap().unwrap();
    assert!(recorded[0].as_ref().unwrap().fresh, "the refused attempt left nothing");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_deadlock_is_tried_again() {
    let url = database().await;
    let store = migrated(&url).await;
    let sale = testing::sale(50);
    store.create_sale(&sale).await;
    let old = testing::request(&sale, testing::user_id());
    store.record(std::slice::from_ref(&old), START, 10).await.unwrap();

    // Another client locks in the wrong order: the order first, then the sale.
    let mut stranger = raw(&url).await;
    execute(&mut stranger, "BEGIN").await.unwrap();
    // With changes to roll back, it is not the one that the server aborts.
    for _ in 0..20 {
        let user = testing::user();
        let insert = format!(
            "INSERT INTO users (user_id, phone, password_hash, role, created_at_ms) VALUES ('{}', '{}', '!', 'shopper', 1)",
            user.user_id,
            user.phone.as_str()
        );
        execute(&mut stranger, &insert).await.unwrap();
    }
    let update = format!(
        "UPDATE orders SET created_at_ms = created_at_ms + 1 WHERE order_id = '{}'",
        old.order_id
    );
    execute(&mut stranger, &update).await.unwrap();

    let new = testing::request(&sale, testing::user_id());
    let batch = [old.clone(), new.clone()];
    let recording = tokio::spawn({
        let store = store.clone();
        async move { store.record(&batch, START, 10).await }
    });
    somebody_waits(&mut raw(&url).await).await;
    let lock = format!("UPDATE sales SET title = 'stranger' WHERE sale_id = '{}'", sale.sale_id);
    execute(&mut stranger, &lock).await.expect("the other side gave up");
    execute(&mut stranger, "COMMIT").await.unwrap();
    let recorded = recording.await.unwrap().unwrap();
    assert_eq!(
        recorded.iter().map(|recorded| recorded.as_ref().unwrap().fresh).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(store.tally(sale.sale_id).await.unwrap().active, 2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn nothing_deadlocks() {
    let server = OwnServer::start().await;
    let ledger = Ledger::of(migrated(&server.url()).await);
    ledger::recording_races(&ledger).await;
    ledger::ending_races(&ledger).await;
    let deadlocks: i64 =
        sqlx::query_scalar("SELECT CAST(count AS SIGNED) FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'")
            .fetch_one(&mut raw(&server.admin_url()).await)
            .await
            .unwrap();
    assert_eq!(deadlocks, 0, "all transactions lock in the same order");
}

/// Both `Sales` and `Users` have a `create`.
trait CreateSale {
    async fn create_sale(&self, sale: &flashsale::domain::Sale);
}

impl CreateSale for MySql {
    async fn create_sale(&self, sale: &flashsale::domain::Sale) {
        Sales::create(self, sale).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn errors_keep_secrets() {
    let url = database().await;
    let (scheme, address) = url.split_once("://").unwrap();
    let (_, host) = address.split_once('@').unwrap();
    let closed = "mysql://flashsale:hunter2@127.0.0.1:1/hunter2".to_owned();
    for url in [format!("{scheme}://flashsale:hunter2@{host}"), closed] {
        let begun = Instant::now();
        let refused = MySql::new(&url).unwrap().check().await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(matches!(refused, StoreError::Unavailable { .. }), "{refused}");
        let shown = format!("{refused} {refused:?}");
        assert!(!shown.contains("hunter2") && !shown.contains(host), "{shown}");
    }

    // The server's message about a refused value would contain a phone number.
    let store = migrated(&url).await;
    let user = flashsale::domain::User { password_hash: "é".repeat(300), ..testing::user() };
    let refused = Users::create(&store, &user).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    let shown = refused.to_string();
    // MySQL does not name the column.
    assert!(
        shown.contains("password_hash") || shown.contains("a character that its column can't hold"),
        "{shown}"
    );
    assert!(!shown.contains("xC3") && !shown.contains('é'), "{shown}");
    let long = flashsale::domain::Sale { title: "t".repeat(201), ..testing::sale(1) };
    let refused = Sales::create(&store, &long).await.unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt { .. }), "not cut: {refused}");
    assert!(refused.to_string().contains("title"), "{refused}");
}

/// A private server, for tests that break it or measure it.
struct OwnServer {
    // Its calls block, and so does its drop.
    server: Option<Arc<Servers>>,
    dir: PathBuf,
}

impl OwnServer {
    async fn start() -> Self {
        let dir = std::env::temp_dir().join(unique("fs"));
        let its = dir.clone();
        let server = tokio::task::spawn_blocking(|| Servers::builder(its).mysql().start().unwrap())
            .await
            .unwrap();
        Self { server: Some(Arc::new(server)), dir }
    }

    fn url(&self) -> String {
        self.server.as_ref().unwrap().mysql_url().unwrap()
    }

    fn admin_url(&self) -> String {
        self.server.as_ref().unwrap().mysql_admin_url().unwrap()
    }

    async fn does(&self, what: fn(&Servers, ServerKind) -> Result<(), StartError>) {
        let server = self.server.clone().unwrap();
        tokio::task::spawn_blocking(move || what(&server, ServerKind::MySql).unwrap())
            .await
            .unwrap();
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        tokio::task::block_in_place(|| {
            drop(self.server.take());
            let _ = std::fs::remove_dir_all(&self.dir);
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_server_that_fails_comes_back() {
    let server = OwnServer::start().await;
    let store = migrated(&server.url()).await;
    let sale = testing::sale(1_000_000);
    store.create_sale(&sale).await;

    // The server is killed under load: acknowledged work is still there afterwards.
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (store, sale) = (store.clone(), sale.clone());
            tokio::spawn(async move {
                let mut acknowledged = Vec::new();
                loop {
                    let batch: Vec<_> =
                        (0..5).map(|_| testing::request(&sale, testing::user_id())).collect();
                    match store.record(&batch, START, 10).await {
                        Ok(recorded) => acknowledged.extend(
                            recorded.into_iter().map(|recorded| recorded.unwrap().order.order_id),
                        ),
                        Err(error @ StoreError::Corrupt { .. }) => panic!("{error}"),
                        Err(_) => return acknowledged,
                    }
                }
            })
        })
        .collect();
    while store.tally(sale.sale_id).await.unwrap().active < 100 {
        sleep(Duration::from_millis(5)).await;
    }
    server.does(Servers::stop_hard).await;
    let acknowledged: Vec<_> =
        join_all(workers).await.into_iter().flat_map(Result::unwrap).collect();
    assert!(acknowledged.len() >= 80, "{}", acknowledged.len());
    let down = store.check().await.unwrap_err();
    assert!(matches!(down, StoreError::Unavailable { .. }), "{down}");
    server.does(Servers::restart).await;
    store.check().await.unwrap();
    assert_eq!(store.get_many(&acknowledged).await.unwrap().len(), acknowledged.len());
    let row = Sales::get(&store, sale.sale_id).await.unwrap().unwrap();
    assert_eq!(store.tally(sale.sale_id).await.unwrap().active, u64::from(row.sold));

    // Hanging connections are detected in time, and not used again.
    server.does(Servers::pause).await;
    let request = testing::request(&sale, testing::user_id());
    let begun = Instant::now();
    let calls =
        join_all((0..20).map(|_| store.record(std::slice::from_ref(&request), START, 10))).await;
    assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
    assert!(calls.iter().all(|call| matches!(
        call,
        Err(StoreError::Unknown { .. } | StoreError::Unavailable { .. })
    )));
    server.does(Servers::resume).await;
    let begun = Instant::now();
    while store.record(std::slice::from_ref(&request), START, 10).await.is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it did not recover");
    }
    assert_eq!(
        store.tally(sale.sale_id).await.unwrap().active,
        u64::from(row.sold) + 1,
        "recorded once"
    );
}

/// Forwards to a server until `frozen`: then existing connections stay open without passing any
/// data, like after a network failure. New connections work. Returns the port.
async fn proxy(server: String, frozen: watch::Receiver<bool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (server, mut frozen) = (server.clone(), frozen.clone());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                frozen.mark_unchanged();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = frozen.changed() => std::future::pending().await,
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn connections_that_lead_nowhere_are_replaced() {
    let url = database().await;
    let (credentials, address) = url.rsplit_once('@').unwrap();
    let (host, name) = address.split_once('/').unwrap();
    let (freeze, frozen) = watch::channel(false);
    let port = proxy(host.to_owned(), frozen).await;
    let store = migrated(&format!("{credentials}@127.0.0.1:{port}/{name}")).await;
    let all_work = async || {
        join_all((0..10).map(|_| store.check())).await.into_iter().all(|checked| checked.is_ok())
    };
    assert!(all_work().await);

    // All connections are frozen in the middle of a call.
    freeze.send_replace(true);
    assert!(!all_work().await);
    // No call waits for an answer that can't come, now or later.
    let begun = Instant::now();
    while !all_work().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "the pool is full of dead connections");
    }

    // The same for idle connections.
    sleep(Duration::from_millis(1_100)).await;
    freeze.send_replace(true);
    let begun = Instant::now();
    while !all_work().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "the pool is full of dead connections");
    }
}

/// Not a test: prints the speed of recording batches.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: needs servers"]
async fn record_rate() {
    let server = OwnServer::start().await;
    ledger::record_rate(&Ledger::of(migrated(&server.url()).await), "MySQL").await;
}

/// Requests that hold all of their connections, like status polls on a slow database, do not block
/// the worker and the sweeper, which have their own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn mysql_records_while_requests_hold_every_connection() {
    let url = database().await;
    let settings = [
        ("SERVERS", "external".to_owned()),
        ("DATABASE_URL", url.clone()),
        ("REDIS_URL", servers().redis_url().unwrap()),
        ("AMQP_URL", servers().amqp_url().unwrap()),
    ];
    let settings = settings.map(|(name, value)| (format!("FLASHSALE_{name}"), value));
    let config = Config::load(None, settings, []).unwrap();
    wire::migrate(&config).await.unwrap();
    let ports = wire::connect(&config).await.unwrap();
    let background =
        ports.background.clone().expect("the worker and the sweeper have connections of their own");
    let sale = testing::sale(5);
    ports.sales.create(&sale).await.unwrap();

    // Calls that read users wait; the others do not.
    let mut locking = raw(&url).await;
    execute(&mut locking, "LOCK TABLES users WRITE").await.unwrap();
    let (reads, orders) = (ports.users.clone(), ports.orders.clone());
    let busy =
        tokio::spawn(
            async move { join_all((0..30).map(|_| reads.by_id(testing::user_id()))).await },
        );
    let begun = Instant::now();
    while let Ok(answer) =
        timeout(Duration::from_millis(300), orders.get(testing::order_id())).await
    {
        answer.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3), "requests still get a connection");
    }
    let request = testing::request(&sale, testing::user_id());
    let recorded = timeout(
        Duration::from_secs(2),
        background.orders.record(std::slice::from_ref(&request), START, 900_000),
    )
    .await;
    assert!(recorded.expect("at once").unwrap()[0].is_ok());
    assert_eq!(background.sales.get(sale.sale_id).await.unwrap().unwrap().sold, 1);
    background.ledger_clock.ask().await.unwrap();
    assert!(!busy.is_finished(), "the blocked requests still wait");
    execute(&mut locking, "UNLOCK TABLES").await.unwrap();
    busy.await.unwrap();
}
