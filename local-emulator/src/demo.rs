//! A demo sale, and two demo users whose passwords are printed.

use std::{fs, io::Write as _, os::unix::fs::OpenOptionsExt as _};

use anyhow::Context as _;
use flashsale::{
    api::NewSale,
    app::App,
    config::{CaptchaMode, ServersMode},
    domain::{Phone, Role},
    problem::Problem,
};

use crate::cli;

const SHOPPER: &str = "+12015550123";
const ADMIN: &str = "+12015550199";
const FILE: &str = "demo-passwords";

/// Whether the command line wants the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// When embedded and empty.
    Default,
    Yes,
    No,
}

/// Makes the demo if it is wanted, and prints how to sign in.
pub async fn prepare(app: &App, mode: Mode) -> anyhow::Result<()> {
    let known = app.config.data_dir.join(FILE).exists();
    let wanted = match mode {
        Mode::No => return Ok(()),
        Mode::Yes => true,
        Mode::Default => {
            !app.config.is_production()
                && app.config.servers == ServersMode::Embedded
                && (known || app.ports.sales.list(None, 1).await?.is_empty())
        }
    };
    if !wanted {
        return Ok(());
    }
    if app.config.is_production() {
        anyhow::bail!("--demo: not with --profile production");
    }
    let passwords = passwords(app)?;
    for (phone, password, role) in
        [(SHOPPER, &passwords[0], Role::Shopper), (ADMIN, &passwords[1], Role::Admin)]
    {
        let phone = Phone::from_e164(phone)?;
        if app.ports.users.by_phone(&phone).await?.is_none() {
            let added = app.add_user(phone, password.clone(), role).await;
            match added.inspect_err(Problem::log_cause) {
                Ok(_) | Err(Problem::PhoneTaken) => {}
                Err(problem) => anyhow::bail!("demo user: {}", problem.detail()),
            }
        } else if !known {
            cli::say(
                "the demo users exist already: their passwords are in the data directory of the emulator that made them",
            )?;
        }
    }
    let now = app.now();
    let open = app.ports.sales.ending_from(now.plus_ms(60_000), None, 1).await?.into_iter().next();
    let sale_id = match open {
        Some(sale) => sale.sale_id,
        None => {
            let title = "Demo: a phone for the price of its case";
            let sale = NewSale {
                description: "One hundred units, one for each buyer.".to_owned(),
                image_url: "/assets/shop/demo.svg".to_owned(),
                original_price: Some(49_900),
                ..NewSale::new(title, 1_999, 100, now..now.plus_ms(24 * 3_600_000))
            };
            app.create_sale(sale)
                .await
                .inspect_err(Problem::log_cause)
                .map_err(|problem| anyhow::anyhow!("demo sale: {}", problem.detail()))?
                .sale_id
        }
    };
    cli::say(&format!("demo sale     {sale_id}"))?;
    cli::say(&format!("demo shopper  {SHOPPER}  password {}", passwords[0]))?;
    cli::say(&format!("demo admin    {ADMIN}  password {}", passwords[1]))?;
    if app.config.captcha != CaptchaMode::Off {
        cli::say("captchas are on: to try things with curl alone, start with --captcha off")?;
    }
    Ok(())
}

/// The demo users' passwords, made at the first start and kept beside the data for later ones.
fn passwords(app: &App) -> anyhow::Result<[String; 2]> {
    let path = app.config.data_dir.join(FILE);
    let shown = path.display();
    if path.exists() {
        let text = fs::read_to_string(&path).with_context(|| format!("{shown}"))?;
        if let [shopper, admin] = text.lines().collect::<Vec<_>>().as_slice() {
            return Ok([(*shopper).to_owned(), (*admin).to_owned()]);
        }
        anyhow::bail!(
            "{shown}: expected two lines; remove the file and the demo users' rows to start over"
        );
    }
    fs::create_dir_all(&app.config.data_dir)?;
    let passwords = [password(app), password(app)];
    let mut file = fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("{shown}"))?;
    writeln!(file, "{}\n{}", passwords[0], passwords[1])?;
    Ok(passwords)
}

fn password(app: &App) -> String {
    let mut bytes = [0; 12];
    app.ports.random.fill(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(b"abcdefghjkmnpqrstuvwxyz23456789-"[usize::from(byte % 32)]))
        .collect()
}
