//! `users seed`, `users add-admin`, `users demote`, `users set-password`.

use std::{
    fs,
    io::{BufRead as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use flashsale::{
    app::App,
    domain::{Phone, Role, User},
    problem::Problem,
};
use futures_util::{StreamExt as _, stream};

use super::{progress::Progress, refused};
use crate::cli;

/// Users stored together: memory does not grow with the number of users, and progress is shown this
/// often.
const GROUP: u32 = 1_000;
/// Groups stored at the same time, so that the database commits one while the next is made.
const GROUPS_AT_ONCE: usize = 3;

/// Makes shoppers with sessions and writes them as CSV. Only the file's owner may read it, because
/// it contains session tokens.
pub async fn seed(app: &App, count: u32, out: &Path) -> anyhow::Result<ExitCode> {
    let shown = || format!("--out {}", out.display());
    let file = fs::File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(out)
        .with_context(shown)?;
    if file.metadata().with_context(shown)?.is_file() {
        // An existing file may be readable by others.
        file.set_permissions(fs::Permissions::from_mode(0o600)).with_context(shown)?;
    }
    let mut lines = std::io::BufWriter::new(file);
    writeln!(lines, "user_id,phone,token").with_context(shown)?;
    let progress = Progress::of(count.into(), "users");
    let mut left = count;
    while left > 0 {
        let wanted = left;
        let groups = (0..wanted.div_ceil(GROUP))
            .map(|group| app.seed_users(GROUP.min(wanted - group * GROUP)));
        let mut seeding = stream::iter(groups).buffered(GROUPS_AT_ONCE);
        while let Some(seeded) = seeding.next().await {
            let seeded = seeded.map_err(|problem| refused(&problem))?;
            for (user, token) in &seeded {
                writeln!(lines, "{},{},{token}", user.user_id, user.phone.as_str())
                    .with_context(shown)?;
            }
            // Fewer than requested if a random phone number was already taken.
            left -= u32::try_from(seeded.len())?;
            progress.advance(seeded.len());
        }
    }
    progress.end();
    lines.flush().with_context(shown)?;
    cli::complain(&format!("{count} users written to {}", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// Makes an administrator.
pub async fn add_admin(app: &App, phone: &str) -> anyhow::Result<ExitCode> {
    let phone = read_phone(phone)?;
    let user = app
        .add_user(phone, read_password()?, Role::Admin)
        .await
        .map_err(|problem| refused(&problem))?;
    said(&user)
}

/// Makes an administrator a shopper.
pub async fn demote(app: &App, phone: &str) -> anyhow::Result<ExitCode> {
    let user = app.demote(&read_phone(phone)?).await.map_err(|problem| match problem {
        Problem::NotFound => anyhow::anyhow!("--phone: no administrator has this number"),
        problem => refused(&problem),
    })?;
    said(&user)
}

/// Sets a user's password.
pub async fn set_password(app: &App, phone: &str) -> anyhow::Result<ExitCode> {
    let phone = read_phone(phone)?;
    let user =
        app.set_password(&phone, read_password()?).await.map_err(|problem| match problem {
            Problem::NotFound => anyhow::anyhow!("--phone: no user has this number"),
            problem => refused(&problem),
        })?;
    said(&user)
}

fn said(user: &User) -> anyhow::Result<ExitCode> {
    cli::say(&format!("{{\"user_id\":\"{}\"}}", user.user_id))?;
    Ok(ExitCode::SUCCESS)
}

fn read_phone(phone: &str) -> anyhow::Result<Phone> {
    Phone::parse(phone, None).context("--phone")
}

/// The first line of standard input.
fn read_password() -> anyhow::Result<String> {
    let mut password = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut password)
        .context("the password is read from standard input")?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    if password.is_empty() {
        anyhow::bail!("the password is read from standard input, which is empty");
    }
    Ok(password)
}
