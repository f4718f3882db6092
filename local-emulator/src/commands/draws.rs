//! `sales export-entries`, `sales verify-draw`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use flashsale::{
    app::{App, CheckedDraw, CheckedEntry, check_draw},
    domain::{SaleId, Seed, SeedHash, UserId},
};

use super::progress::Progress;
use crate::cli;

const HEADER: &str = "user_id,arrival,invited_as";

/// Writes the entries of a sale as CSV.
pub async fn export(app: &App, sale_id: SaleId, out: &Path) -> anyhow::Result<ExitCode> {
    let shown = || format!("--out {}", out.display());
    if app.ports.draws.draw(sale_id).await?.is_none() {
        bail!("--sale: there is no sale by draw with this id");
    }
    let entries = app.draw_entries(sale_id).await?;
    let mut lines = BufWriter::new(File::create(out).with_context(shown)?);
    writeln!(lines, "{HEADER}").with_context(shown)?;
    let text = |number: Option<u64>| number.map_or_else(String::new, |number| number.to_string());
    for entry in &entries {
        let CheckedEntry { user_id, arrival, invited_as } = entry;
        writeln!(lines, "{user_id},{},{}", text(*arrival), text(*invited_as))
            .with_context(shown)?;
    }
    lines.flush().with_context(shown)?;
    cli::complain(&format!("{} entries written to {}", entries.len(), out.display()));
    Ok(ExitCode::SUCCESS)
}

/// What `verify-draw` was given.
pub struct Given<'a> {
    pub sale_id: SaleId,
    pub entries: &'a Path,
    pub seed: &'a Seed,
    pub seed_hash: SeedHash,
    pub beacon_value: Option<&'a str>,
    pub out: Option<&'a Path>,
}

/// Recomputes the places of a draw.
pub fn verify(given: &Given<'_>) -> anyhow::Result<ExitCode> {
    let entries =
        read(given.entries).with_context(|| format!("--entries {}", given.entries.display()))?;
    let CheckedDraw { line, faults } =
        check_draw(given.sale_id, given.seed, given.seed_hash, given.beacon_value, &entries);
    if let Some(out) = given.out {
        let shown = || format!("--out {}", out.display());
        let mut lines = BufWriter::new(File::create(out).with_context(shown)?);
        writeln!(lines, "place,user_id,score").with_context(shown)?;
        for (place, entry) in line.iter().enumerate() {
            let score = entry.score.map_or_else(String::new, |score| score.to_string());
            writeln!(lines, "{place},{},{score}", entry.user_id).with_context(shown)?;
        }
        lines.flush().with_context(shown)?;
    }
    let invited = entries.iter().filter(|entry| entry.invited_as.is_some()).count();
    if faults.is_empty() {
        cli::say(&format!("{} entries, {invited} invited, all in turn", entries.len()))?;
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &faults {
        cli::say(fault)?;
    }
    Ok(ExitCode::FAILURE)
}

fn read(path: &Path) -> anyhow::Result<Vec<CheckedEntry>> {
    let mut lines = BufReader::new(File::open(path)?).lines();
    if lines.next().transpose()?.as_deref() != Some(HEADER) {
        bail!("the first line must be {HEADER}");
    }
    let progress = Progress::open_ended("entries");
    let mut entries = Vec::new();
    for (number, line) in (2_usize..).zip(lines) {
        let line = line?;
        let entry = parse(&line).with_context(|| format!("line {number}"))?;
        entries.push(entry);
        progress.advance(1);
    }
    progress.end();
    Ok(entries)
}

fn parse(line: &str) -> anyhow::Result<CheckedEntry> {
    let mut fields = line.split(',');
    let mut field = |name: &str| fields.next().with_context(|| format!("{name} is missing"));
    let user_id: UserId = field("user_id")?.parse().context("user_id")?;
    let number = |text: &str| (!text.is_empty()).then(|| text.parse::<u64>()).transpose();
    let arrival = number(field("arrival")?).context("arrival")?;
    let invited_as = number(field("invited_as")?).context("invited_as")?;
    if fields.next().is_some() {
        bail!("there are more than three fields");
    }
    Ok(CheckedEntry { user_id, arrival, invited_as })
}
