//! The JSON of requests and answers, one file per noun. Fields that API.md explains have no text of their own.
//!
//! Ids, times, money and the few types that are the same inside and outside ([`crate::domain::Sale`],
//! [`crate::domain::SaleChange`]) are the domain's; refusals are in `problem.rs`.

mod accounts;
mod bans;
mod books;
mod captchas;
mod dead_letters;
mod orders;
mod sales;
mod tickets;

pub use accounts::{Account, CurrentSession, PasswordChange, Registered, SignedIn, UserView};
pub use bans::{BanOffset, BanPage, BanView, LiftBan, NewBan};
pub use books::{Finding, SaleBooks};
pub use captchas::{DrawCaptcha, DrawnCaptcha, PurposeWord};
pub use dead_letters::{ParkedList, ParkedView};
pub use orders::{OrderAccepted, OrderPage, OrderView, PlaceOrder};
pub use sales::{ListedSale, NewSale, SaleList, SaleStats, SaleView};
pub use tickets::{Ticket, TicketRequest};
