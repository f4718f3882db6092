//! Bans that an operator creates and lifts.

use super::{GatePorts, ban, banned, user};
use crate::{
    domain::{AddressPrefix, Ban, GateDecision, Subject, Timestamp},
    ports::Blacklist,
    testing::{START, phone},
};

/// All bans, page by page.
pub(super) async fn all(blacklist: &dyn Blacklist, now: Timestamp) -> Vec<Ban> {
    const PAGE: u32 = 7;
    let mut all = Vec::new();
    loop {
        let offset = u32::try_from(all.len()).expect("a test has few bans");
        let page = blacklist.list(now, offset, PAGE).await.expect("bans are listed");
        assert!(page.len() <= PAGE as usize);
        let last = page.len() < PAGE as usize;
        all.extend(page);
        if last {
            return all;
        }
    }
}

/// A ban holds from its creation until it ends, is replaced or is lifted.
pub async fn blacklist(ports: &GatePorts) {
    let blacklist = &*ports.blacklist;
    let put = async |ban: &Ban| blacklist.ban(ban).await.expect("a ban is put");
    let Subject::Address(ip) = super::address() else { panic!("an address is one") };
    let network = AddressPrefix::around(ip).into_iter().next();
    let network = Subject::Network(network.expect("every address is in a network"));
    let subjects = [user(), super::address(), network, Subject::Phone(phone())];
    for subject in &subjects {
        assert_eq!(ports.enter(&banned(subject, START)).await, GateDecision::Entered);
        assert!(!blacklist.lift(subject).await.expect("there is none to be lifted"));
        let end = START.plus_ms(1_000);
        put(&ban(subject, START, Some(end))).await;
        assert_eq!(
            ports.enter(&banned(subject, START)).await,
            GateDecision::Banned { until: Some(end) },
            "{subject:?}"
        );
        assert_eq!(
            ports.enter(&banned(subject, end.minus_ms(1))).await,
            GateDecision::Banned { until: Some(end) }
        );
        assert_eq!(ports.enter(&banned(subject, end)).await, GateDecision::Entered);

        // A new ban replaces it, longer or shorter; a repeat changes nothing.
        for until in [None, Some(START.plus_ms(500))] {
            for _ in 0..2 {
                put(&ban(subject, START, until)).await;
            }
            assert_eq!(ports.enter(&banned(subject, START)).await, GateDecision::Banned { until });
        }
        put(&ban(subject, START, None)).await;
        assert_eq!(
            ports.enter(&banned(subject, Timestamp::MAX)).await,
            GateDecision::Banned { until: None }
        );

        assert!(blacklist.lift(subject).await.expect("a ban is lifted"));
        assert!(!blacklist.lift(subject).await.expect("it is lifted already"));
        assert_eq!(ports.enter(&banned(subject, START)).await, GateDecision::Entered);
    }

    // A late lift leaves a newer ban and its place in the list.
    let subject = user();
    assert!(!blacklist.lift_older(&subject, START).await.expect("there is none to be lifted"));
    put(&ban(&subject, START.plus_ms(1), None)).await;
    assert!(!blacklist.lift_older(&subject, START).await.expect("it was put later"));
    assert_eq!(ports.enter(&banned(&subject, START)).await, GateDecision::Banned { until: None });
    assert!(all(blacklist, START).await.iter().any(|ban| ban.subject == subject));
    assert!(blacklist.lift_older(&subject, START.plus_ms(1)).await.expect("it is lifted"));
    assert_eq!(ports.enter(&banned(&subject, START)).await, GateDecision::Entered);
    assert!(!all(blacklist, START).await.iter().any(|ban| ban.subject == subject));

    // A ban of one address covers its whole /64.
    let std::net::IpAddr::V6(ip) = super::ip() else {
        unreachable!("the suite's addresses are IPv6")
    };
    let neighbour = std::net::Ipv6Addr::from_bits(ip.to_bits() | 0xffff);
    put(&ban(&Subject::address(ip.into()), START, None)).await;
    assert_eq!(
        ports.enter(&banned(&Subject::address(neighbour.into()), START)).await,
        GateDecision::Banned { until: None }
    );
    assert!(blacklist.lift(&Subject::address(neighbour.into())).await.expect("a ban is lifted"));

    listing(blacklist).await;
}

/// The list has the bans that hold, newest first, on pages without gaps or repeats.
async fn listing(blacklist: &dyn Blacklist) {
    let mut put = Vec::new();
    for index in 0..25_u64 {
        let subject = match index % 3 {
            0 => user(),
            1 => super::address(),
            _ => Subject::Phone(phone()),
        };
        // Not in order of time, and two with the same time.
        let created_at = START.plus_ms(index * 7 % 24);
        let expires_at = if index % 2 == 0 { None } else { Some(START.plus_ms(1_000 + index)) };
        let ban =
            Ban { reason: format!("reason {index}"), ..ban(&subject, created_at, expires_at) };
        blacklist.ban(&ban).await.expect("a ban is put");
        put.push(ban);
    }
    let own = async |now| {
        let mut listed = all(blacklist, now).await;
        assert!(listed.is_sorted_by(|a, b| a.created_at >= b.created_at), "newest first");
        listed.retain(|ban| put.iter().any(|known| known.subject == ban.subject));
        listed
    };
    let expected = |now| {
        let mut holding: Vec<&Ban> = put.iter().filter(|ban| ban.holds(now)).collect();
        holding.sort_by_key(|ban| ban.reason.clone());
        holding.into_iter().cloned().collect::<Vec<_>>()
    };
    // Ended bans are left out, even when an earlier call had a later time.
    for now in
        [START.plus_ms(24), START.plus_ms(1_011), START.plus_ms(86_400_000), START.plus_ms(24)]
    {
        let mut listed = own(now).await;
        listed.sort_by_key(|ban| ban.reason.clone());
        assert_eq!(listed, expected(now));
    }
    assert_eq!(blacklist.list(START, 0, 0).await.expect("an empty page is listed"), []);
    assert_eq!(
        blacklist.list(START, 1_000_000, 10).await.expect("a page past the end is listed"),
        []
    );

    // A lifted ban disappears from the list; a renewed one is listed once, at its new time.
    let (lifted, renewed) = (put[3].subject.clone(), put[8].subject.clone());
    assert!(blacklist.lift(&lifted).await.expect("a ban is lifted"));
    blacklist.ban(&ban(&renewed, START.plus_ms(500), None)).await.expect("a ban is put again");
    let listed = own(START.plus_ms(600)).await;
    assert_eq!(listed.len(), 24);
    assert_eq!(listed[0].subject, renewed);
    assert!(listed.iter().all(|ban| ban.subject != lifted));
}

/// Restored bans fill in what the store has lost, and never replace a ban that lasts longer. The
/// bans count as not loaded until the last caller to begin has finished.
pub async fn bans_put_back(ports: &GatePorts) {
    let blacklist = &*ports.blacklist;
    let end = |seconds: u64| Some(START.plus_ms(seconds * 1_000));
    let cases = [
        (None, end(5), end(5)),
        (end(3), end(5), end(5)),
        (end(9), end(5), end(9)),
        (None, None, None),
        (end(9), None, None),
    ];
    for (known, put_back, holds) in cases {
        let subject = user();
        if known.is_some() {
            blacklist.ban(&ban(&subject, START, known)).await.expect("a ban is put");
        }
        for _ in 0..2 {
            blacklist.restore(&[ban(&subject, START, put_back)]).await.expect("a ban is restored");
        }
        assert_eq!(
            ports.enter(&banned(&subject, START)).await,
            GateDecision::Banned { until: holds }
        );
        assert!(
            all(blacklist, START).await.iter().any(|ban| ban.subject == subject),
            "it is listed"
        );
    }
    let endless = user();
    blacklist.ban(&ban(&endless, START, None)).await.expect("a ban is put");
    blacklist.restore(&[ban(&endless, START, end(5))]).await.expect("a ban is restored");
    assert_eq!(ports.enter(&banned(&endless, START)).await, GateDecision::Banned { until: None });
    let many: Vec<Ban> = (0..300).map(|_| ban(&user(), START, None)).collect();
    blacklist.restore(&many).await.expect("many are restored");
    for ban in many.iter().step_by(37) {
        assert_eq!(
            ports.enter(&banned(&ban.subject, START)).await,
            GateDecision::Banned { until: None }
        );
    }

    assert!(blacklist.begin_loading(1).await.expect("loading begins"), "a new store has no bans");
    assert!(blacklist.begin_loading(2).await.expect("another may begin too"));
    blacklist.finish_loading(1).await.expect("loading ends");
    assert!(
        blacklist.begin_loading(2).await.expect("loading begins"),
        "only the last to begin may finish"
    );
    for _ in 0..2 {
        blacklist.finish_loading(2).await.expect("loading ends");
    }
    assert!(!blacklist.begin_loading(3).await.expect("the store answers"), "all are restored");
}
