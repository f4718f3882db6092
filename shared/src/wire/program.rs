//! Which servers each program uses.
//!
//! Each connection is opened at first use. So a program starts while all servers are down, and
//! answers every request that needs only the servers that are up:
//!
//! | program | Redis | database | RabbitMQ | answers while only these are up |
//! |---|---|---|---|---|
//! | `captcha` | gate, captchas | sessions that Redis lacks | - | Redis: everything, for sessions that are in Redis |
//! | `login` | gate, sessions, captchas, phone codes | users, sessions, bans | - | Redis, database: everything |
//! | `sales` | gate, cache, figures | sales | - | Redis: pages that are in its cache; Redis, database: everything |
//! | `seckill` | gate, admission, cache | data that Redis lacks: sessions, sales, orders after a rebuild | orders | Redis: tickets; Redis, RabbitMQ: orders, of sales and sessions that are in Redis |
//! | `waiting-room` | gate, cache, line, admission | draws, entries, sales, sessions that Redis lacks | entries | Redis: places in the line; Redis, RabbitMQ, database: everything |
//! | `order-status` | gate, cache, admission | orders | - | Redis: orders that are in its cache; Redis, database: everything |
//! | `admin` | gate, admission | sales, bans, orders, actions | figures, dead letters | Redis, database: everything but those two |
//! | `order-worker` | admission, cache | orders | messages that can't be used | database: records; the sweeper updates Redis later |
//! | `sweeper` | leadership, admission | all due work | overdue orders | Redis, database: all but publishing and rebuilding |
//! | emulator | everything | everything | everything | sales in memory |
//!
//! With `phone_verification = "webhook"`, `login` and the emulator also call the SMS gateway. With
//! captchas of kind `work`, `captcha` reads the challenge level from the shared cache or the
//! database; without an answer it makes challenges of the level that it read last. With kind
//! `provider`, `login`, `seckill` and `waiting-room` call the captcha provider.
//!
//! In the development profile without configured signing keys, `login`, `seckill`,
//! `waiting-room`, `order-status` and `admin` also need the database, which stores the keys, and
//! `captcha` does for purchases.

/// A program, for [`super::connect_for`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The function `captcha`.
    Captcha,
    /// The function `login`.
    Login,
    /// The function `sales`.
    Sales,
    /// The function `seckill`.
    Seckill,
    /// The function `waiting-room`.
    WaitingRoom,
    /// The function `order-status`.
    OrderStatus,
    /// The function `admin`.
    Admin,
    /// The function `order-worker`.
    OrderWorker,
    /// The function `sweeper`.
    Sweeper,
    /// All functions in one process, with the gateway and the triggers that call them.
    Emulator,
}

impl Program {
    /// Whether the program uses the order queue.
    pub(super) const fn uses_queue(self) -> bool {
        match self {
            Self::Captcha | Self::Login | Self::Sales | Self::OrderStatus => false,
            Self::Seckill
            | Self::WaitingRoom
            | Self::Admin
            | Self::OrderWorker
            | Self::Sweeper
            | Self::Emulator => true,
        }
    }

    /// Whether the program sends text messages.
    pub(super) const fn sends_messages(self) -> bool {
        matches!(self, Self::Login | Self::Emulator)
    }

    /// Whether the order worker and the sweeper share the process with requests. If so, they have
    /// database connections of their own, so that requests can't keep them waiting.
    pub(super) const fn has_background(self) -> bool {
        matches!(self, Self::Emulator)
    }
}
