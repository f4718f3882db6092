//! The contract of each port as a list of checks. [`contract_tests!`](crate::contract_tests) makes
//! a test of each check, so that a check that is added to the list runs on every adapter.

pub mod admission;
pub mod cache;
pub mod captcha_provider;
pub mod checkout;
pub mod consumer_reports;
pub mod gate;
pub mod ledger;
pub mod line;
pub mod locks;
pub mod phone_codes;
pub mod queue;
pub mod schema;
pub mod sms;

/// Makes a test of each check of one contract.
///
/// `contract_tests! { ledger [#[ignore = "needs servers"]] new_ledger() }`: the contract, attributes
/// of each test, and a future of a new store for each test. The future gives a guard, which is
/// dropped after the check, and the ports: `Ledger`, `LinePorts`, `GatePorts`, `QueuePorts`,
/// `SmsPorts` or `Arc<dyn …>`.
#[macro_export]
macro_rules! contract_tests {
    (admission $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each admission $attributes $new; reserve orders rebuild caps crowd }
    };
    (checkout $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each checkout $attributes $new;
            entered_is_decided refused_reserves_nothing crowd_is_bounded
        }
    };
    (ledger $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each ledger $attributes $new;
            users kept_sessions session_races kept_bans sales signing_keys challenge_level recording payment
            cancellation expiry expiry_by_sale stock_return attempts network_limit tally paging recording_races ending_races
            draw_entries draw_beacon draw_invitations draw_entry_races reports
            admin_cancellation actions reach health
        }
    };
    (line $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each line $attributes $new; order long missing invited crowd }
    };
    (queue $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each queue $attributes $new;
            published_is_received_once receive_is_bounded a_message_wakes_the_receiver
            a_receiver_may_go_away handed_back_comes_again handed_back_too_often_is_parked
            parked_is_counted parked_is_shown_retried_and_discarded many_publish_at_once
            two_consumers_share
        }
    };
    (gate $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each gate $attributes $new;
            order_of_checks burst_and_rate exact_retry quota_under_contention charges_all_or_none
            clock_set_back strikes sessions many_sessions session_roles blacklist bans_put_back
            failures captchas spent_tokens
        }
    };
    (locks $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each locks $attributes $new; one_holder exclusion }
    };
    (cache $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each cache $attributes $new; newest_version many_entries }
    };
    (captcha_provider $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each captcha_provider $attributes $new; tokens }
    };
    (consumer_reports $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each consumer_reports $attributes $new; last_report_of_each }
    };
    (phone_codes $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each phone_codes $attributes $new;
            replaced_and_expired attempts_are_counted redeemed_once messages_of_a_day
        }
    };
    (sms $attributes:tt $new:expr) => {
        $crate::contract_tests! { @each sms $attributes $new; accepted_is_delivered }
    };
    (@each $contract:ident $attributes:tt $new:expr; $($check:ident)*) => {
        $($crate::contract_tests! { @one $contract $attributes $new; $check })*
    };
    (@one $contract:ident [$($attribute:tt)*] $new:expr; $check:ident) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        $($attribute)*
        async fn $check() {
            let (_guard, ports) = $new.await;
            $crate::testing::contract::$contract::$check(&ports).await;
        }
    };
}
