//! The JSON of requests and answers, one file per noun. Fields that API.md explains are not
//! documented again here.
//!
//! Ids, times, money and the types that the API shares with the domain ([`crate::domain::Sale`],
//! [`crate::domain::SaleChange`]) are defined in the domain; refusals are in `problem.rs`.

mod accounts;
mod bans;
mod books;
mod captchas;
mod dead_letters;
mod draws;
mod order_csv;
mod orders;
mod phone_codes;
mod reports;
mod sales;
mod tickets;

pub use accounts::{
    Account, CurrentSession, PasswordChange, Registered, Registration, SignedIn, UserView,
};
pub use bans::{BanOffset, BanPage, BanPreview, BanView, LiftBan, NewBan};
pub use books::{Finding, SaleBooks};
pub(crate) use captchas::CaptchaChallenge;
pub use captchas::{
    ChallengeLevelChange, ChallengeLevelView, DrawCaptcha, DrawnCaptcha, ProviderWidget,
    PurposeWord,
};
pub use dead_letters::{ParkedList, ParkedView};
pub use draws::{
    BeaconValue, DrawResult, DrawStats, EntryAccepted, EntryRequest, EntryView, OwnPlace,
};
pub use order_csv::{CSV_HEADER, csv_line};
pub use orders::{OrderAccepted, OrderPage, OrderView, PlaceOrder};
pub use phone_codes::{PasswordRecovery, PhoneCodeRequest, PhoneCodeSent};
pub use reports::{
    AdminActionPage, AdminActionView, AdminCancellation, ReportedOrderPage, ReportedOrderView,
};
pub use sales::{ListedSale, NewSale, SaleList, SaleStats, SaleView};
pub use tickets::{Ticket, TicketRequest};
