//! Bans, as an administrator creates, lifts and lists them.

use super::{Admin, App, finish};
use crate::{
    api::{BanPreview, BanView, NewBan},
    domain::{ActionKind, AddressPrefix, Ban, BanReach, FieldChange, Subject},
    metrics::BANS,
    problem::Problem,
    security,
};

impl App {
    /// Creates a ban. A banned user's sessions remain, but their requests are refused.
    ///
    /// # Errors
    /// `invalid`, `unavailable`.
    pub async fn put_ban(&self, admin: &Admin, new: NewBan) -> Result<BanView, Problem> {
        const REASON_CHARS_MAX: usize = 500;
        let invalid = |field: &str, expected: &str| Problem::Invalid {
            field: field.to_owned(),
            expected: expected.to_owned(),
        };
        let subject = read_subject(&new.kind, &new.value)?;
        if new.reason.trim().is_empty() || new.reason.chars().count() > REASON_CHARS_MAX {
            return Err(invalid("reason", "1 to 500 characters"));
        }
        let now = self.now();
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(invalid("expires_at", "a time to come, or left out for a ban without end"));
        }
        let ban = Ban { subject, reason: new.reason, created_at: now, expires_at: new.expires_at };
        let mut changes = vec![FieldChange::to("reason", ban.reason.as_str())];
        changes.extend(ban.expires_at.map(|end| FieldChange::to("expires_at", end.to_string())));
        let object = security::loggable(&ban.subject);
        let action = admin.action(self, ActionKind::BanPut, object, changes);
        let (app, admin) = (self.clone(), *admin);
        finish(async move {
            app.ports.ban_ledger.put(&ban, &action).await?;
            BANS.counter(&["operator"]).increment(1);
            admin.did(&action);
            // If a later step fails, the sweeper does the rest.
            app.ports.blacklist.ban(&ban).await?;
            app.refusals.forget_bans();
            app.end_sessions_of(&ban.subject).await?;
            Ok(BanView::from(&ban))
        })
        .await
    }

    /// Lifts a ban.
    ///
    /// # Errors
    /// `invalid`, `not-found`, `unavailable`.
    pub async fn lift_ban(&self, admin: &Admin, kind: &str, value: &str) -> Result<(), Problem> {
        let subject = read_subject(kind, value)?;
        let object = security::loggable(&subject);
        let action = admin.action(self, ActionKind::BanLifted, object, Vec::new());
        let (app, admin) = (self.clone(), *admin);
        finish(async move {
            let lifted = app.ports.ban_ledger.lift(&subject, app.now(), &action).await?;
            if lifted {
                admin.did(&action);
            }
            // This also lifts an automatic ban, which is not in the ledger.
            let lifted_here = app.ports.blacklist.lift(&subject).await?;
            if !lifted {
                if !lifted_here {
                    return Err(Problem::NotFound);
                }
                admin.did(&action);
                app.ports.admin_ledger.note(&action).await?;
            }
            app.refusals.forget_bans();
            Ok(())
        })
        .await
    }

    /// Whom a ban would hit. Nothing is changed.
    ///
    /// # Errors
    /// `invalid`, `unavailable`.
    pub async fn preview_ban(
        &self,
        _: &Admin,
        kind: &str,
        value: &str,
    ) -> Result<BanPreview, Problem> {
        let subject = read_subject(kind, value)?;
        let ledger = &self.ports.admin_ledger;
        // The ledger keeps the widest prefix of an order's address only.
        let address_prefix = match &subject {
            Subject::Address(address) => Some(AddressPrefix::of(*address)),
            Subject::Network(network) => Some(AddressPrefix::of(network.network())),
            _ => None,
        };
        let user_id = match &subject {
            Subject::User(user_id) => Some(*user_id),
            Subject::Phone(phone) => {
                self.ports.users.by_phone(phone).await?.map(|user| user.user_id)
            }
            _ => None,
        };
        let reach = match (address_prefix, user_id) {
            (Some(prefix), _) => ledger.reach_of_network(prefix).await?,
            (None, Some(user_id)) => ledger.reach_of_user(user_id, self.now()).await?,
            (None, None) => BanReach::default(),
        };
        let BanReach { users, orders, active_orders, sessions, searched_orders } = reach;
        Ok(BanPreview {
            kind: subject.kind(),
            value: subject.value(),
            address_prefix,
            users,
            orders,
            active_orders,
            sessions,
            searched_orders,
        })
    }

    /// Bans in force, newest first.
    ///
    /// # Errors
    /// `unavailable`.
    pub async fn bans(&self, _: &Admin, offset: u32, limit: u32) -> Result<Vec<BanView>, Problem> {
        Ok(self
            .ports
            .blacklist
            .list(self.now(), offset, limit)
            .await?
            .iter()
            .map(BanView::from)
            .collect())
    }
}

fn read_subject(kind: &str, value: &str) -> Result<Subject, Problem> {
    let invalid = |field: &str, expected: &str| Problem::Invalid {
        field: field.to_owned(),
        expected: expected.to_owned(),
    };
    if !["user", "address", "network", "phone"].contains(&kind) {
        return Err(invalid("kind", "user, address, network or phone"));
    }
    Subject::parse(kind, value).map_err(|_| {
        invalid(
            "value",
            "a user's id, an IP address, a prefix (IPv4 /24, IPv6 /56 or /48), or a phone number with its country code, as kind says",
        )
    })
}
