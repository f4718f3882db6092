//! Whole sales by draw, with crashes while users enter, at the draw, and while users are invited.

use std::{
    process::Command,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    books::{add_admin, balanced_books},
    client::Client,
    crash::flush,
    emulator::{Emulator, Place},
    shop::{Bought, buy, follow},
};

const SHOPPERS: usize = 60;
const STOCK: u32 = 10;
/// Every third shopper lets the invitation end.
const IDLE: usize = 3;
/// From the sale's creation to its start.
const STARTS_IN: Duration = Duration::from_secs(10);
/// How long a shopper tries.
const PATIENCE: Duration = Duration::from_secs(150);

/// The emulator that runs at the moment. After a crash another one takes its place.
#[derive(Clone)]
struct Current(Arc<Mutex<Client>>);

impl Current {
    fn client(&self) -> Client {
        self.0.lock().unwrap().clone()
    }

    async fn send(&self, method: &str, path: &str, token: &str, entry: Option<&str>) -> Value {
        let client = self.client();
        let mut request = axum::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", client.base))
            .header("authorization", format!("Bearer {token}"));
        if let Some(entry) = entry {
            request = request.header("entry", entry);
        }
        let answer = client.raw(request.body(axum::body::Body::empty()).unwrap()).await;
        let Ok(answer) = answer else { return json!({}) };
        let mut json = answer.json();
        json["status"] = answer.status.as_u16().into();
        json
    }
}

struct Shopper {
    token: String,
    /// When it enters, and whether it sends its entry with polls.
    number: usize,
}

/// How a shopper's sale ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Bought(String),
    Passed,
    SoldOut,
    StillWaiting,
}

/// Enters, waits, and buys when invited. The second value is the entry.
async fn take_part(current: Current, sale: String, shopper: Shopper, over: Instant) -> End {
    let Shopper { token, number } = shopper;
    // Entries come at leisure; a crash may come between any two of them.
    sleep(Duration::from_millis(number as u64 * 60)).await;
    let path = format!("/api/sales/{sale}/entries");
    let entry = loop {
        let answer = current.send("POST", &path, &token, None).await;
        match answer["status"].as_u64() {
            Some(201) => break answer["entry"].as_str().unwrap().to_owned(),
            None | Some(429 | 502 | 503) => sleep(Duration::from_millis(100)).await,
            _ => panic!("an entry was refused: {answer}"),
        }
        assert!(Instant::now() < over, "no entry");
    };
    let entry = Some(entry.as_str()).filter(|_| number % 2 == 0);
    while Instant::now() < over {
        let view = current.send("GET", &format!("{path}/current"), &token, entry).await;
        match view["state"].as_str() {
            Some("invited") if number % IDLE != 0 => {
                match buy(&[current.client()], &sale, &token, number % 5 == 0, 0).await {
                    Bought::Order(order) => return End::Bought(order),
                    // The emulator was killed, or the invitation has just ended.
                    Bought::Surprise(_) | Bought::SoldOut => {}
                }
            }
            Some("bought") => return End::Bought(view["order_id"].as_str().unwrap().to_owned()),
            Some("passed") => return End::Passed,
            Some("sold_out") => return End::SoldOut,
            Some("invited" | "waiting") => {}
            None if matches!(view["status"].as_u64(), None | Some(429 | 502 | 503)) => {}
            // Right after Redis was emptied only the queue has an entry that is not recorded yet. A
            // client that sends the entry is answered all the same.
            None if view["status"] == 404 && entry.is_none() => {}
            _ => panic!("an entry has this state: {view}"),
        }
        sleep(Duration::from_millis(300)).await;
    }
    End::StillWaiting
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Flush,
}

impl Fault {
    fn strike(self, place: &Place, current: &Current, emulator: &mut Option<Emulator>) {
        match self {
            Self::Kill => {
                emulator.take().unwrap().kill();
                let again = place.start(&["--no-demo"]);
                *current.0.lock().unwrap() = again.client.clone();
                *emulator = Some(again);
            }
            Self::Flush => flush(&place.servers.as_ref().unwrap().redis_url().unwrap()),
        }
    }
}

/// Faults while users enter, right after the start, and once some users were invited.
async fn whole_draw(place: Place, faults: [Fault; 3]) {
    let tokens = place.seed(SHOPPERS);
    add_admin(&place);
    let starts_in = format!("{}s", STARTS_IN.as_secs());
    let begun = Instant::now();
    let printed = place.run(&[
        "sales",
        "create",
        "--title",
        "Draw",
        "--stock",
        &STOCK.to_string(),
        "--price",
        "1999",
        "--allocation",
        "draw",
        "--invite-seconds",
        "10",
        "--starts-in",
        &starts_in,
    ]);
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let created: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let sale = created["sale_id"].as_str().unwrap().to_owned();
    let first = place.start(&["--no-demo"]);
    let current = Current(Arc::new(Mutex::new(first.client.clone())));
    let mut emulator = Some(first);
    let over = Instant::now() + PATIENCE;
    let shoppers: Vec<_> = tokens
        .iter()
        .cloned()
        .enumerate()
        .map(|(number, token)| {
            let shopper = Shopper { token, number };
            tokio::spawn(take_part(current.clone(), sale.clone(), shopper, over))
        })
        .collect();
    sleep(Duration::from_millis(2_500)).await;
    faults[0].strike(&place, &current, &mut emulator);
    let started = begun + STARTS_IN;
    sleep(started.saturating_duration_since(Instant::now())).await;
    faults[1].strike(&place, &current, &mut emulator);
    wait_for_sales(&current, &sale, over).await;
    faults[2].strike(&place, &current, &mut emulator);

    // Once all units are sold the sale is ended, so that those who wait in vain are told so.
    let client = current.client();
    loop {
        let page = client.get(&format!("/api/sales/{sale}"), None).await.json();
        if page["available"] == 0 {
            break;
        }
        assert!(Instant::now() < over, "{page}");
        sleep(Duration::from_millis(500)).await;
    }
    let token = admin_token(&client).await;
    let change = json!({ "ends_at": jiff::Timestamp::now().to_string() });
    let path = format!("/api/admin/sales/{sale}");
    client.call("PATCH", &path, Some(&token), change).await.expect(200);
    let (mut orders, mut others) = (0, 0);
    for (shopper, token) in shoppers.into_iter().zip(&tokens) {
        match shopper.await.unwrap() {
            End::Bought(order) => {
                assert_eq!(follow(&[current.client()], &order, token).await, "confirmed");
                orders += 1;
            }
            End::Passed | End::SoldOut => others += 1,
            End::StillWaiting => panic!("a shopper was neither invited nor told that it is over"),
        }
    }
    assert_eq!((orders, others), (STOCK as usize, SHOPPERS - STOCK as usize));
    assert_eq!(balanced_books(&current.client(), &sale).await["sold"], STOCK);
    check_result(&place, &current, &sale, &created, &tokens).await;
    emulator.unwrap().stop();
}

async fn admin_token(client: &Client) -> String {
    let (phone, password) = crate::books::ADMIN;
    let account = json!({ "phone": phone, "password": password });
    client.post("/api/sessions", None, account).await.expect(201).text("token")
}

/// Waits until some units are sold.
async fn wait_for_sales(current: &Current, sale: &str, over: Instant) {
    loop {
        let page = current.send("GET", &format!("/api/sales/{sale}"), "", None).await;
        if page["available"].as_u64().is_some_and(|available| available < u64::from(STOCK) - 2) {
            return;
        }
        assert!(Instant::now() < over, "nobody buys: {page}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The exported entries and the revealed seed prove the draw, to our own command and to Python.
async fn check_result(
    place: &Place,
    current: &Current,
    sale: &str,
    created: &Value,
    tokens: &[String],
) {
    let path = |name: &str| place.path().join(name).display().to_string();
    let (entries, places) = (path("entries.csv"), path("places.csv"));
    // The server's clock may not have reached the end yet.
    let mut result = json!({});
    for _ in 0..20 {
        result = current.send("GET", &format!("/api/sales/{sale}/draw"), &tokens[0], None).await;
        if result["seed"].is_string() {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(result["seed_hash"], created["draw"]["seed_hash"], "{result}");
    assert_eq!(result["entries"], SHOPPERS, "every 201 is an entry");
    let late = result["late_entries"].as_u64().unwrap();
    assert!(late < SHOPPERS as u64 / 2, "{late} entries were late");
    // An embedded store is locked while an emulator runs, so its entries are exported by the caller's
    // process only on servers; `verify-draw` needs no store.
    if place.servers.is_some() {
        let exported = place.run(&["sales", "export-entries", "--sale", sale, "--out", &entries]);
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let (seed, hash) =
            (result["seed"].as_str().unwrap(), result["seed_hash"].as_str().unwrap());
        let verify = |seed: &str| {
            place.run(&[
                "sales",
                "verify-draw",
                "--sale",
                sale,
                "--entries",
                &entries,
                "--seed",
                seed,
                "--seed-hash",
                hash,
                "--out",
                &places,
            ])
        };
        let other = format!("{:064x}", 7);
        assert_eq!(verify(&other).status.code(), Some(1), "another seed is found out");
        let verified = verify(seed);
        let said = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(verified.status.success(), "{said}");
        assert!(said.contains("all in turn"), "{said}");
        recompute_in_python(sale, seed, &entries, &places);
    }
    for token in tokens {
        let result = current.send("GET", &format!("/api/sales/{sale}/draw"), token, None).await;
        let own = &result["own"];
        let place = own["place"].as_u64().unwrap();
        assert_eq!(own["invited"], place < result["cutoff"].as_u64().unwrap(), "{result}");
    }
}

/// Recomputes every place with another language's HMAC.
fn recompute_in_python(sale: &str, seed: &str, entries: &str, places: &str) {
    const SCRIPT: &str = r#"
import csv, hmac, sys, uuid
sale, seed, entries, places = sys.argv[1:]
def score(user):
    message = uuid.UUID(sale).bytes + uuid.UUID(user).bytes
    return int.from_bytes(hmac.digest(bytes.fromhex(seed), message, "sha256")[:8], "big") >> 12
rows = list(csv.DictReader(open(entries)))
in_time = sorted((score(row["user_id"]), row["user_id"]) for row in rows if not row["arrival"])
late = sorted((int(row["arrival"]), row["user_id"]) for row in rows if row["arrival"])
line = [user for _, user in in_time + late]
assert len(set(line)) == len(line) == len(rows)
assert [row["user_id"] for row in csv.DictReader(open(places))] == line
invited = {row["user_id"]: int(row["invited_as"]) for row in rows if row["invited_as"]}
assert invited, "nobody was invited"
assert invited == {user: place for place, user in enumerate(line[:len(invited)])}
print(len(line), "places", len(invited), "invited")
"#;
    let python = std::env::var("TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output =
        Command::new(python).args(["-c", SCRIPT, sale, seed, entries, places]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draw_with_an_embedded_emulator_that_is_killed() {
    whole_draw(Place::embedded(), [Fault::Kill; 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_draw_on_servers_with_an_emulator_that_is_killed() {
    whole_draw(Place::servers(), [Fault::Kill; 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs servers: infra/test runs it"]
async fn a_draw_in_processes_while_redis_is_emptied() {
    whole_draw(Place::processes(), [Fault::Flush; 3]).await;
}
