//! A sale by draw, from entries to the result.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use flashsale::{
    adapters::memory::MemoryAdmission,
    api::EntryView,
    app::{Caller, CheckedEntry, check_draw},
    domain::{EntryState, OrderStatus, SaleId, Seed, UserId},
    ports::{DrawLedger as _, OrderQueue as _},
    problem::Problem,
    testing::Shop,
};

use crate::spies::SharedQueue;

const HOUR_MS: u64 = 3_600_000;

/// Everybody enters, and the worker records the entries.
async fn enter(shop: &Shop, sale: SaleId, shoppers: &[Caller]) -> Vec<String> {
    let mut entries = Vec::new();
    for who in shoppers {
        entries.push(shop.app.enter_draw(who, sale, None).await.unwrap().entry);
    }
    while shop.work().await > 0 {}
    entries
}

/// Runs sweeps for some seconds, and the worker before each.
async fn seconds(shop: &Shop, count: u32) -> u32 {
    let mut invited = 0;
    for _ in 0..count {
        shop.clock.advance_ms(1_000);
        while shop.work().await > 0 {}
        invited += shop.sweep().await.invited;
    }
    invited
}

async fn state(shop: &Shop, who: &Caller, sale: SaleId, entry: &str) -> EntryView {
    // Past the life of what instances remember of the line.
    tokio::time::sleep(std::time::Duration::from_millis(260)).await;
    shop.app.entry_state(who, sale, Some(entry)).await.unwrap()
}

async fn states(
    shop: &Shop,
    sale: SaleId,
    shoppers: &[Caller],
    entries: &[String],
) -> BTreeMap<UserId, EntryView> {
    tokio::time::sleep(std::time::Duration::from_millis(260)).await;
    let mut states = BTreeMap::new();
    for (who, entry) in shoppers.iter().zip(entries) {
        let view = shop.app.entry_state(who, sale, Some(entry)).await.unwrap();
        states.insert(who.session.user_id, view);
    }
    states
}

async fn seed(shop: &Shop, sale: SaleId) -> Seed {
    shop.store.draw(sale).await.unwrap().unwrap().seed
}

/// The users in the order that the seed gives them.
async fn line(shop: &Shop, sale: SaleId, shoppers: &[Caller]) -> Vec<UserId> {
    let scores = seed(shop, sale).await.scores();
    let mut line: Vec<_> = shoppers.iter().map(|who| who.session.user_id).collect();
    line.sort_unstable_by_key(|user| (scores.of(sale, *user), *user));
    line
}

fn of(shoppers: &[Caller], user: UserId) -> &Caller {
    shoppers.iter().find(|who| who.session.user_id == user).unwrap()
}

/// A shop whose admission store can lose its data.
async fn losing(admission: &Arc<MemoryAdmission>) -> Shop {
    let (port, line_port) = (Arc::clone(admission), Arc::clone(admission));
    Shop::open_with(&[("CAPTCHA", "off")], |ports| {
        (ports.admission, ports.line) = (port, line_port);
    })
    .await
}

#[tokio::test]
async fn places_follow_the_seed_and_units_follow_the_places() {
    let shop = Shop::without_captchas().await;
    let sale = shop.draw(3, |_| {}).await;
    let shoppers = shop.shoppers(10).await;
    let entries = enter(&shop, sale, &shoppers).await;
    let again = shop.app.enter_draw(&shoppers[0], sale, None).await.unwrap();
    assert_eq!(again.entry, entries[0], "the same entry");
    let line = line(&shop, sale, &shoppers).await;

    for view in states(&shop, sale, &shoppers, &entries).await.values() {
        assert_eq!((view.state, view.ahead), (EntryState::Waiting, None));
        assert!((1..=31_000).contains(&view.poll_after_ms));
    }
    let early = shop.ticket(of(&shoppers, line[0]), sale).await.unwrap_err();
    assert!(matches!(early, Problem::SaleNotOpen { .. }), "{early:?}");
    shop.clock.advance_ms(HOUR_MS);
    assert_eq!(shop.sweep().await.invited, 0, "entries may still be on their way");
    assert_eq!(seconds(&shop, 6).await, 3, "as many as there are units");
    let seen = states(&shop, sale, &shoppers, &entries).await;
    for (place, user) in (0_u64..).zip(&line) {
        let view = &seen[user];
        if place < 3 {
            assert_eq!(view.state, EntryState::Invited, "{place}");
            assert!(view.invited_until.is_some());
        } else {
            assert_eq!((view.state, view.ahead), (EntryState::Waiting, Some(place - 3)));
            let refused = shop.ticket(of(&shoppers, *user), sale).await.unwrap_err();
            assert!(matches!(refused, Problem::NotInvited { .. }), "{refused:?}");
        }
    }
    let stranger = &shop.shoppers(1).await[0];
    let refused = shop.app.entry_state(stranger, sale, Some(&entries[0])).await.unwrap_err();
    assert!(matches!(refused, Problem::NotFound), "another user's entry: {refused:?}");
    let refused = shop.ticket(stranger, sale).await.unwrap_err();
    assert!(matches!(refused, Problem::NotInvited { .. }), "{refused:?}");

    // One buys, one lets the invitation end, one buys and gives up: two others are next.
    let [first, second, third] = [0, 1, 2].map(|place| of(&shoppers, line[place]));
    let bought = shop.buy(first, sale).await;
    let given_up = shop.buy(third, sale).await;
    assert_eq!(seconds(&shop, 2).await, 0);
    shop.app.cancel_order(third, given_up).await.unwrap();
    assert_eq!(seconds(&shop, 3).await, 1, "the returned unit goes to the next in line");
    let view = state(&shop, of(&shoppers, line[3]), sale, "").await;
    assert_eq!(view.state, EntryState::Invited);
    let refused = shop.ticket(third, sale).await.unwrap_err();
    assert!(matches!(refused, Problem::NotInvited { .. }), "{refused:?}");
    shop.buy(of(&shoppers, line[3]), sale).await;
    assert_eq!(seconds(&shop, 130).await, 1, "an invitation has ended");
    let seen = states(&shop, sale, &shoppers, &entries).await;
    let state_of = |place: usize| seen[&line[place]].state;
    assert_eq!((state_of(0), seen[&line[0]].order_id), (EntryState::Bought, Some(bought)));
    assert_eq!((state_of(1), state_of(2)), (EntryState::Passed, EntryState::Passed));
    assert_eq!((state_of(3), state_of(4)), (EntryState::Bought, EntryState::Invited));
    assert_eq!(state_of(5), EntryState::Waiting);
    let refused = shop.ticket(second, sale).await.unwrap_err();
    assert!(matches!(refused, Problem::NotInvited { .. }), "{refused:?}");
    shop.books_balance().await;
}

#[tokio::test]
async fn long_after_the_end_everybody_still_learns_what_became_of_the_entry() {
    let admission = Arc::new(MemoryAdmission::default());
    let shop = losing(&admission).await;
    let ends_at = shop.app.now().plus_ms(2 * HOUR_MS);
    let sale = shop.draw(2, |new| (new.invite_seconds, new.ends_at) = (Some(60), ends_at)).await;
    let shoppers = shop.shoppers(4).await;
    let entries = enter(&shop, sale, &shoppers).await;
    let line = line(&shop, sale, &shoppers).await;
    shop.clock.advance_ms(HOUR_MS);
    assert_eq!(seconds(&shop, 6).await, 2);
    let bought = shop.buy(of(&shoppers, line[0]), sale).await;
    assert_eq!(seconds(&shop, 70).await, 1, "the second in line did not come");
    shop.buy(of(&shoppers, line[2]), sale).await;
    while shop.work().await > 0 {}
    for who in [line[0], line[2]] {
        let order = shop.app.order_list(of(&shoppers, who), None, 1).await.unwrap();
        shop.app.pay_order(of(&shoppers, who), order.0[0].order_id).await.unwrap();
    }
    // The shared cache has forgotten how far the line had come, and nobody publishes it any more.
    shop.clock.advance_ms(10 * HOUR_MS);
    seconds(&shop, 2).await;
    let seen = states(&shop, sale, &shoppers, &entries).await;
    let in_order: Vec<_> = line.iter().map(|user| seen[user].state).collect();
    let expected =
        [EntryState::Bought, EntryState::Passed, EntryState::Bought, EntryState::SoldOut];
    assert_eq!(in_order, expected);
    assert_eq!(seen[&line[0]].order_id, Some(bought));
    // An admission store that loses its data this late is not filled again.
    admission.lose_everything();
    tokio::time::sleep(std::time::Duration::from_millis(5_010)).await;
    for ((who, entry), token) in shoppers.iter().zip(&entries).zip([true, false, true, false]) {
        let token = token.then_some(entry.as_str());
        let view = shop.app.entry_state(who, sale, token).await.unwrap();
        assert_eq!(view.state, seen[&who.session.user_id].state, "with its entry: {token:?}");
    }
}

#[tokio::test]
async fn an_entry_that_was_not_durable_is_repeated_without_another_captcha() {
    let mut queue = None;
    let shop = Shop::open_with(&[], |ports| {
        let shared = Arc::new(SharedQueue::new(Arc::clone(&ports.queue)));
        queue = Some(Arc::clone(&shared));
        ports.queue = shared;
    })
    .await;
    let (queue, sale) = (queue.unwrap(), shop.draw(1, |_| {}).await);
    let [who, other] = &shop.shoppers(2).await[..] else { panic!("two were asked for") };
    let answer = shop.purchase_captcha(who, sale).await;
    queue.refuses_entries.store(true, Ordering::Relaxed);
    let refused = shop.app.enter_draw(who, sale, Some(answer.clone())).await.unwrap_err();
    assert!(matches!(refused, Problem::NotDurableYet { .. }), "{refused:?}");
    queue.refuses_entries.store(false, Ordering::Relaxed);
    shop.app.enter_draw(who, sale, Some(answer.clone())).await.unwrap();
    let refused = shop.app.enter_draw(other, sale, Some(answer)).await.unwrap_err();
    assert!(matches!(refused, Problem::CaptchaGone), "another user: {refused:?}");
}

#[tokio::test]
async fn late_entries_stand_behind_in_order_of_arrival() {
    let shop = Shop::without_captchas().await;
    let sale = shop.draw(2, |new| new.invite_seconds = Some(10)).await;
    let shoppers = shop.shoppers(5).await;
    let entries = enter(&shop, sale, &shoppers[..1]).await;
    shop.clock.advance_ms(HOUR_MS);
    let mut late = Vec::new();
    for who in &shoppers[1..] {
        late.push(shop.app.enter_draw(who, sale, None).await.unwrap().entry);
    }
    assert_eq!(seconds(&shop, 8).await, 2, "the one in time, and the first of the others");
    assert_eq!(state(&shop, &shoppers[0], sale, &entries[0]).await.state, EntryState::Invited);
    assert_eq!(state(&shop, &shoppers[1], sale, &late[0]).await.state, EntryState::Invited);
    for (ahead, n) in [(0, 2), (1, 3), (2, 4)] {
        let view = state(&shop, &shoppers[n], sale, &late[n - 1]).await;
        assert_eq!((view.state, view.ahead), (EntryState::Waiting, Some(ahead)));
        let view = shop.app.entry_state(&shoppers[n], sale, None).await.unwrap();
        assert_eq!((view.state, view.ahead), (EntryState::Waiting, Some(ahead)), "no entry sent");
    }
    shop.books_balance().await;
}

#[tokio::test]
async fn entries_need_an_open_sale_by_draw_and_an_eligible_user() {
    let shop = Shop::without_captchas().await;
    let who = &shop.shoppers(1).await[0];
    let registered_at = who.session.user_id.made_at();
    let first_come = shop.sale(1).await;
    let refused = shop.app.enter_draw(who, first_come, None).await.unwrap_err();
    assert!(matches!(refused, Problem::NotFound), "{refused:?}");
    let refused = shop.app.draw_result(who, first_come).await.unwrap_err();
    assert!(matches!(refused, Problem::NotFound), "{refused:?}");

    let soon = shop.draw(1, |new| new.entries_open_at = Some(new.starts_at.minus_ms(1))).await;
    let refused = shop.app.enter_draw(who, soon, None).await.unwrap_err();
    assert!(matches!(refused, Problem::EntriesNotOpen { .. }), "{refused:?}");

    let closed = shop.draw(1, |new| new.eligible_registered_before = Some(registered_at)).await;
    let refused = shop.app.enter_draw(who, closed, None).await.unwrap_err();
    assert!(matches!(refused, Problem::NotEligible { .. }), "{refused:?}");
    let open =
        shop.draw(1, |new| new.eligible_registered_before = Some(registered_at.plus_ms(1))).await;
    shop.app.enter_draw(who, open, None).await.unwrap();

    shop.clock.advance_ms(30 * HOUR_MS);
    let who = &shop.shoppers(1).await[0];
    let refused = shop.app.enter_draw(who, open, None).await.unwrap_err();
    assert!(matches!(refused, Problem::SaleEnded), "{refused:?}");
}

#[tokio::test]
async fn the_result_proves_the_draw() {
    let shop = Shop::without_captchas().await;
    let sale = shop.draw(2, |new| new.beacon = Some("drand round 7".to_owned())).await;
    let shoppers = shop.shoppers(6).await;
    let entries = enter(&shop, sale, &shoppers).await;
    let admin = shop.admin().await;
    let refused = shop.app.set_beacon_value(&admin, sale, "c0ffee").await.unwrap_err();
    assert!(matches!(refused, Problem::Invalid { .. }), "entries are open: {refused:?}");
    shop.clock.advance_ms(HOUR_MS);
    assert_eq!(seconds(&shop, 8).await, 0, "the draw waits for its beacon");
    let view = state(&shop, &shoppers[0], sale, &entries[0]).await;
    assert_eq!(view.state, EntryState::Waiting);
    shop.app.set_beacon_value(&admin, sale, "c0ffee").await.unwrap();
    shop.app.set_beacon_value(&admin, sale, "other").await.unwrap_err();
    assert_eq!(seconds(&shop, 2).await, 2);
    let refused = shop.app.draw_result(&shoppers[0], sale).await.unwrap_err();
    assert!(matches!(refused, Problem::DrawNotOver { .. }), "{refused:?}");
    shop.books_balance().await;
    // Sessions last for half a day.
    shop.clock.advance_ms(10 * HOUR_MS);
    let changed =
        flashsale::domain::SaleChange { ends_at: Some(shop.app.now()), ..Default::default() };
    shop.app.change_sale(&admin, sale, &changed).await.unwrap();

    let published = shop.app.sale_page(&shop.client, sale).await.unwrap();
    let seed_hash = published.seed_hash.unwrap();
    assert_eq!(published.beacon.as_deref(), Some("drand round 7"));
    let mut places = Vec::new();
    for who in &shoppers {
        let result = shop.app.draw_result(who, sale).await.unwrap();
        let revealed: Seed = result.seed.parse().unwrap();
        assert_eq!(revealed.hash(), seed_hash, "the seed that was committed to");
        assert_eq!((result.entries, result.late_entries, result.cutoff), (6, 0, 2));
        let own = result.own.unwrap();
        let place = own.place.unwrap();
        assert_eq!(own.invited, place < 2);
        let score = revealed.mixed_with("c0ffee").scores().of(sale, who.session.user_id);
        assert_eq!(own.score, Some(score.number()));
        places.push(CheckedEntry {
            user_id: who.session.user_id,
            arrival: None,
            invited_as: Some(place).filter(|place| *place < 2),
        });
    }
    let seed = seed(&shop, sale).await;
    let checked = check_draw(sale, &seed, seed_hash, Some("c0ffee"), &places);
    assert_eq!(checked.faults, [""; 0]);
    let alone = shop.shoppers(1).await.remove(0);
    assert!(shop.app.draw_result(&alone, sale).await.unwrap().own.is_none());
}

#[tokio::test]
async fn the_seed_is_secret_until_entries_are_closed() {
    let shop = Shop::without_captchas().await;
    let sale = shop.draw(2, |_| {}).await;
    let who = &shop.shoppers(1).await[0];
    enter(&shop, sale, std::slice::from_ref(who)).await;
    let admin = shop.admin().await;
    shop.clock.advance_ms(10_000);
    let now = shop.app.now();
    let over = flashsale::domain::SaleChange {
        starts_at: Some(now.minus_ms(1_000)),
        ends_at: Some(now),
        ..Default::default()
    };
    shop.app.change_sale(&admin, sale, &over).await.unwrap();
    let early = shop.app.draw_result(who, sale).await.unwrap_err();
    assert!(matches!(early, Problem::DrawNotOver { .. }), "the end may be moved: {early:?}");
    let page = serde_json::to_string(&shop.app.sale_page(&shop.client, sale).await.unwrap());
    let stored = seed(&shop, sale).await;
    assert!(!page.unwrap().contains(&stored.reveal()));
    seconds(&shop, 6).await;
    assert_eq!(shop.app.draw_result(who, sale).await.unwrap().seed, stored.reveal());
}

#[tokio::test]
async fn entries_close_once_those_before_the_start_are_recorded() {
    let shop = Shop::without_captchas().await;
    let sale = shop.draw(2, |_| {}).await;
    let shoppers = shop.shoppers(3).await;
    for who in &shoppers {
        shop.app.enter_draw(who, sale, None).await.unwrap();
    }
    shop.clock.advance_ms(HOUR_MS);
    for _ in 0..6 {
        shop.clock.advance_ms(1_000);
        assert_eq!(shop.sweep().await.invited, 0, "the entries are still in the queue");
    }
    assert_eq!(shop.store.draw(sale).await.unwrap().unwrap().closed_at, None);
    assert_eq!(seconds(&shop, 3).await, 2);
    assert_eq!(shop.store.draw(sale).await.unwrap().unwrap().in_time, 3);
    shop.books_balance().await;
}

#[tokio::test]
async fn uninvited_requests_for_tickets_count() {
    let shop = Shop::without_captchas().await;
    let sale = shop.draw(1, |new| new.starts_at = new.entries_open_at.unwrap().plus_ms(1)).await;
    let who = &shop.shoppers(1).await[0];
    shop.clock.advance_ms(1_000);
    for _ in 0..10 {
        let refused = shop.ticket(who, sale).await.unwrap_err();
        assert!(matches!(refused, Problem::NotInvited { .. }), "{refused:?}");
    }
    let refused = shop.ticket(who, sale).await.unwrap_err();
    assert!(matches!(refused, Problem::RateLimited { name: "ticket", .. }), "{refused:?}");
}

#[tokio::test]
async fn a_lost_line_is_rebuilt_and_nobody_changes_place() {
    let admission = Arc::new(MemoryAdmission::default());
    let shop = losing(&admission).await;
    let sale = shop.draw(2, |_| {}).await;
    let shoppers = shop.shoppers(8).await;
    let entries = enter(&shop, sale, &shoppers).await;
    let line = line(&shop, sale, &shoppers).await;
    // Before the draw.
    admission.lose_everything();
    shop.clock.advance_ms(HOUR_MS);
    assert_eq!(seconds(&shop, 8).await, 2);
    // While one has bought and one is invited.
    shop.buy(of(&shoppers, line[0]), sale).await;
    assert_eq!(seconds(&shop, 1).await, 0);
    admission.lose_everything();
    // As soon as admission is open again, so is the invitation.
    shop.sweep().await;
    let second = shoppers.iter().position(|who| who.session.user_id == line[1]).unwrap();
    let view = state(&shop, &shoppers[second], sale, &entries[second]).await;
    assert_eq!(view.state, EntryState::Invited);
    assert_eq!(seconds(&shop, 8).await, 0, "the invitation that lasts is known again");
    let seen = states(&shop, sale, &shoppers, &entries).await;
    assert_eq!(seen[&line[0]].state, EntryState::Bought);
    assert_eq!(seen[&line[1]].state, EntryState::Invited);
    for (ahead, place) in [(0, 2), (1, 3), (5, 7)] {
        let view = &seen[&line[place]];
        assert_eq!((view.state, view.ahead), (EntryState::Waiting, Some(ahead)));
    }
    let order = shop.buy(of(&shoppers, line[1]), sale).await;
    assert_eq!(seconds(&shop, 2).await, 0);
    assert_eq!(shop.status(of(&shoppers, line[1]), order).await, OrderStatus::Confirmed);
    shop.books_balance().await;
}

#[tokio::test]
async fn entries_of_other_sales_are_parked() {
    let shop = Shop::without_captchas().await;
    let sale = shop.sale(1).await;
    let entry = flashsale::domain::Entry {
        sale_id: sale,
        user_id: flashsale::testing::user_id(),
        entered_at: shop.app.now(),
    };
    shop.store.publish_entries(&[entry]).await.unwrap();
    while shop.work().await > 0 {}
    assert_eq!(shop.store.depth().await.unwrap().parked, 1);
}

#[tokio::test]
async fn an_administrator_watches_a_draw() {
    let shop = Shop::without_captchas().await;
    let sale = shop.draw(2, |new| new.invite_seconds = Some(10)).await;
    let (shoppers, admin) = (shop.shoppers(4).await, shop.admin().await);
    enter(&shop, sale, &shoppers).await;
    let figures = async || shop.app.sale_stats(&admin, sale).await.unwrap().draw.unwrap();
    let before = figures().await;
    assert_eq!((before.in_time, before.late, before.invited), (4, 0, 0));
    assert_eq!((before.open_invitations, before.free, before.closed_at), (0, 2, None));
    shop.clock.advance_ms(HOUR_MS);
    seconds(&shop, 6).await;
    let late = shop.shoppers(1).await;
    enter(&shop, sale, &late).await;
    let drawn = figures().await;
    assert_eq!((drawn.in_time, drawn.late, drawn.invited), (4, 1, 2));
    assert_eq!((drawn.open_invitations, drawn.free), (2, 0));
    assert!(drawn.closed_at.is_some() && drawn.beacon_value.is_none());
    let first = line(&shop, sale, &shoppers).await[0];
    shop.buy(of(&shoppers, first), sale).await;
    let bought = figures().await;
    assert_eq!((bought.open_invitations, bought.free), (1, 0), "the order used its invitation");
    // No sweep in between: the invitation that has ended no longer counts.
    shop.clock.advance_ms(10_000);
    let ended = figures().await;
    assert_eq!((ended.open_invitations, ended.free, ended.invited), (0, 1, 2));
    let first_come = shop.sale(1).await;
    assert!(shop.app.sale_stats(&admin, first_come).await.unwrap().draw.is_none());
}
