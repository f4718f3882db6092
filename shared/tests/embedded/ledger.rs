//! Suites of the ledger ports on SQLite.

#![expect(clippy::unwrap_used, reason = "helpers of tests are test code too")]

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use flashsale::{
    adapters::sqlite::{OpenError, Sqlite},
    contract_tests,
    domain::{ActionKind, OrderId, SaleChange},
    ports::{OrderLedger, Sales},
    private_files::Loose,
    testing::{
        self, START,
        contract::ledger::{self, Ledger},
    },
};
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};

use flashsale::testing::TempDir;

async fn ledger() -> (TempDir, Ledger) {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    (dir, Ledger::of(store))
}

contract_tests! { ledger [] ledger() }

/// A separate connection, as another tool would open it.
pub async fn raw(dir: &TempDir) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(dir.path().join("flashsale.sqlite"))
        .connect()
        .await
        .unwrap()
}

#[tokio::test]
async fn constraints_hold() {
    let dir = TempDir::new();
    let forbidden = ledger::forbidden(&Ledger::of(dir.sqlite().await)).await;
    let mut raw = raw(&dir).await;
    for (what, sql) in &forbidden.statements {
        let refused =
            sqlx::query(sqlx::AssertSqlSafe(sql.clone())).execute(&mut raw).await.expect_err(what);
        assert!(refused.to_string().contains("constraint failed"), "{what}: {refused}");
    }
    forbidden.assert_unharmed().await;
    for sql in forbidden.falsehoods() {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut raw).await.unwrap();
    }
    forbidden.assert_falsehood_is_seen().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let dir = TempDir::new();
    let sale = testing::sale(1_000);
    let mut acknowledged = Vec::new();
    for _ in 0..5 {
        let store = dir.sqlite().await;
        store.create(&sale).await.unwrap();
        let batches: Vec<Vec<_>> = (0..20)
            .map(|_| (0..3).map(|_| testing::request(&sale, testing::user_id())).collect())
            .collect();
        let tasks: Vec<_> = batches
            .into_iter()
            .map(|batch| {
                let store = store.clone();
                tokio::spawn(async move { store.record(&batch, START, 1).await })
            })
            .collect();
        drop(store);
        for task in tasks {
            acknowledged.extend(task.await.unwrap().unwrap().into_iter().map(Result::unwrap));
        }
    }
    let store = dir.sqlite().await;
    for recorded in &acknowledged {
        assert_eq!(
            OrderLedger::get(&store, recorded.order.order_id).await.unwrap().as_ref(),
            Some(&recorded.order)
        );
    }
    assert_eq!(store.tally(sale.sale_id).await.unwrap().active, 300);
    assert_eq!(Sales::get(&store, sale.sale_id).await.unwrap().unwrap().sold, 300);
}

const CRASH_DIR: &str = "FLASHSALE_TEST_CRASH_DIR";

/// The test below runs this as a separate process and kills it.
#[tokio::test]
#[ignore = "runs inside what_was_acknowledged_is_there_after_a_kill"]
async fn crashing_process() {
    let Some(dir) = std::env::var_os(CRASH_DIR) else { return };
    let store = Sqlite::open(dir.as_ref(), Loose::Tighten).await.unwrap();
    let sale = testing::sale(1_000_000);
    store.create(&sale).await.unwrap();
    let workers = (0..4).map(|_| async {
        loop {
            let batch: Vec<_> =
                (0..10).map(|_| testing::request(&sale, testing::user_id())).collect();
            for recorded in store.record(&batch, START, 1).await.unwrap() {
                println!("acknowledged {}", recorded.unwrap().order.order_id);
            }
        }
    });
    let () = futures_util::future::select_all(workers.map(Box::pin)).await.0;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = TempDir::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ledger::crashing_process", "--ignored", "--nocapture"])
        .env(CRASH_DIR, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged: Vec<OrderId> = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        // The kill may truncate the last line.
        if let Some(id) = line.strip_prefix("acknowledged ").and_then(|id| id.parse().ok()) {
            acknowledged.push(id);
        }
        if acknowledged.len() == 500 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(acknowledged.len() >= 500, "{}", acknowledged.len());
    let store = dir.sqlite().await;
    assert_eq!(store.get_many(&acknowledged).await.unwrap().len(), acknowledged.len());
    let sale = store.list(None, 1).await.unwrap().pop().unwrap();
    assert_eq!(store.tally(sale.sale_id).await.unwrap().active, u64::from(sale.sold));
}

#[tokio::test]
async fn a_directory_has_one_owner() {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    let refused = Sqlite::open(dir.path(), Loose::Tighten).await.err().unwrap();
    assert!(matches!(refused, OpenError::InUse(_)), "{refused}");
    let clone = store.clone();
    drop(store);
    assert!(
        matches!(
            Sqlite::open(dir.path(), Loose::Tighten).await.err().unwrap(),
            OpenError::InUse(_)
        ),
        "a clone still has it open"
    );
    drop(clone);
    dir.sqlite().await;
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Every file in the directory, and the directory.
fn modes(dir: &std::path::Path) -> Vec<(String, u32)> {
    let mut found = vec![(".".to_owned(), mode(dir))];
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        found.push((path.file_name().unwrap().to_string_lossy().into_owned(), mode(&path)));
    }
    found.sort();
    found
}

fn only_ours(modes: &[(String, u32)]) -> bool {
    modes.iter().all(|(name, mode)| *mode == if name == "." { 0o700 } else { 0o600 })
}

#[tokio::test]
async fn only_its_user_can_read_the_store() {
    let dir = TempDir::new();
    let new = dir.path().join("above/data");
    let store = Sqlite::open(&new, Loose::Refuse).await.unwrap();
    store.create(&testing::sale(1)).await.unwrap();
    let there = modes(&new);
    // The directory, the lock, the database, its log and the log's index.
    assert!(there.len() == 5 && only_ours(&there), "{there:?}");
    assert_eq!(mode(&dir.path().join("above")), 0o700, "the created parent directory");
    drop(store);
}

#[tokio::test]
async fn a_store_that_others_can_read_is_closed_to_them_or_refused() {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    store.create(&testing::sale(1)).await.unwrap();
    drop(store);
    for (name, loose) in [(".", 0o755), ("lock", 0o644), ("flashsale.sqlite", 0o640)] {
        let path = dir.path().join(name);
        let opened = loop {
            set_mode(&path, loose);
            match Sqlite::open(dir.path(), Loose::Refuse).await {
                // The previous process is still closing.
                Err(OpenError::InUse(_)) => {}
                other => break other,
            }
        };
        let shown = opened.err().unwrap().to_string();
        assert!(
            shown.contains(&format!("(mode {loose:04o})")) && shown.contains("chmod"),
            "{shown}"
        );
        assert_eq!(mode(&path), loose, "a refused path is left unchanged");
        let store = dir.sqlite().await;
        let there = modes(dir.path());
        assert!(only_ours(&there), "{there:?}");
        drop(store);
    }

    // A directory that contains other files keeps its permissions.
    let foreign = dir.path().join("srv");
    std::fs::create_dir(&foreign).unwrap();
    set_mode(&foreign, 0o755);
    std::fs::write(foreign.join("index.html"), "").unwrap();
    let shown = Sqlite::open(&foreign, Loose::Tighten).await.err().unwrap().to_string();
    assert!(shown.contains("other files") && mode(&foreign) == 0o755, "{shown}");

    let shared = dir.path().join("tmp");
    std::fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    let shown = Sqlite::open(&shared, Loose::Tighten).await.err().unwrap().to_string();
    assert!(shown.contains("every user"), "{shown}");
}

#[tokio::test]
async fn a_price_of_a_process_that_kept_none_stays_good() {
    let dir = TempDir::new();
    let store = dir.sqlite().await;
    let sale = testing::sale(1);
    Sales::create(&store, &sale).await.unwrap();
    let admitted = testing::request(&sale, testing::user_id());
    // The state that a process of an earlier version leaves during an upgrade.
    sqlx::query("DELETE FROM sale_prices").execute(&mut raw(&dir).await).await.unwrap();
    let change = SaleChange { price: Some(sale.price + 1), ..SaleChange::default() };
    Sales::change(&store, sale.sale_id, &change, &testing::action(ActionKind::SaleChanged))
        .await
        .unwrap();
    let recorded = store.record(&[admitted], START, 10).await.unwrap();
    assert!(
        recorded[0].as_ref().is_ok_and(|recorded| recorded.order.status.is_active()),
        "{recorded:?}"
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_directory_is_said() {
    let open = async |path: &std::path::Path| {
        Sqlite::open(path, Loose::Tighten).await.err().unwrap().to_string()
    };
    let dir = TempDir::new();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for path in [&file, &file.join("below")] {
        let shown = open(path).await;
        assert!(
            shown.contains(&path.display().to_string()) && shown.contains("no directory"),
            "{shown}"
        );
    }

    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(
        other.join("flashsale.sqlite"),
        "this is no database, and long enough to be seen as none ".repeat(99),
    )
    .unwrap();
    let shown = open(&other).await;
    assert!(
        shown.contains("flashsale.sqlite")
            && shown.contains("no SQLite database")
            && shown.contains("--data-dir"),
        "{shown}"
    );

    let newer = TempDir::new();
    drop(newer.sqlite().await);
    let future = "INSERT INTO _sqlx_migrations VALUES (9999, 'contract 9.0.0 from the future', CURRENT_TIMESTAMP, 1, x'00', 0)";
    sqlx::query(future).execute(&mut raw(&newer).await).await.unwrap();
    let shown = open(newer.path()).await;
    assert!(shown.contains("newer release") && shown.contains("9999"), "{shown}");
}

/// Not a test: prints how fast batches are recorded. `cargo test --release -p flashsale --test
/// embedded -- --ignored --nocapture rate`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn record_rate() {
    let dir = TempDir::new();
    ledger::record_rate(&Ledger::of(dir.sqlite().await), "SQLite").await;
}
