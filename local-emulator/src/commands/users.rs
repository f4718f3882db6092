//! `users seed`, `users add-admin`.

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
    domain::{Phone, Role},
};

use super::refused;
use crate::cli;

/// Makes shoppers with sessions and writes them as CSV. The file lets its reader in, so only its owner may read it.
pub async fn seed(app: &App, count: u32, out: &Path) -> anyhow::Result<ExitCode> {
    let shown = || format!("--out {}", out.display());
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(out).with_context(shown)?;
    if file.metadata().with_context(shown)?.is_file() {
        // One that was there may be open to others.
        file.set_permissions(fs::Permissions::from_mode(0o600)).with_context(shown)?;
    }
    let mut lines = std::io::BufWriter::new(file);
    writeln!(lines, "user_id,phone,token").with_context(shown)?;
    let mut left = count;
    while left > 0 {
        let seeded = app.seed_users(left).await.map_err(|problem| refused(&problem))?;
        for (user, token) in &seeded {
            writeln!(lines, "{},{},{token}", user.user_id, user.phone.as_str()).with_context(shown)?;
        }
        // Fewer than asked for when a drawn phone number was taken.
        left -= u32::try_from(seeded.len())?;
    }
    lines.flush().with_context(shown)?;
    cli::complain(&format!("{count} users written to {}", out.display()));
    Ok(ExitCode::SUCCESS)
}

/// Makes an administrator.
pub async fn add_admin(app: &App, phone: &str) -> anyhow::Result<ExitCode> {
    const CHARS_MIN: usize = 8;
    let phone = Phone::parse(phone, None).context("--phone")?;
    let mut password = String::new();
    std::io::stdin().lock().read_line(&mut password).context("the password is read from standard input")?;
    let password = password.trim_end_matches(['\r', '\n']).to_owned();
    if password.chars().count() < CHARS_MIN {
        anyhow::bail!("the password on standard input must have at least {CHARS_MIN} characters");
    }
    let user = app.add_user(phone, password, Role::Admin).await.map_err(|problem| refused(&problem))?;
    cli::say(&format!("{{\"user_id\":\"{}\"}}", user.user_id))?;
    Ok(ExitCode::SUCCESS)
}
