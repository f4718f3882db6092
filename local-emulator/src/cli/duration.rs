//! Durations as the command line writes them.

/// `500ms`, `0s`, `15m`, `1h`, `2d`, in milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || "expected a number with ms, s, m, h or d, such as 0s or 1h".to_owned();
    let digits = text.find(|char: char| !char.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        assert_eq!(parse_duration_ms("0s"), Ok(0));
        assert_eq!(parse_duration_ms("1h"), Ok(3_600_000));
        assert_eq!(parse_duration_ms("250ms"), Ok(250));
        for wrong in ["", "5", "h", "-1s", "1w", "99999999999999999999s"] {
            assert!(parse_duration_ms(wrong).is_err(), "{wrong}");
        }
    }
}
