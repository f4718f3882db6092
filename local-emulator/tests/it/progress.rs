//! The progress of long commands: on a terminal, and nowhere else.

use crate::emulator::Place;

fn seed(place: &Place) -> [String; 6] {
    let out = place.path().join("users.csv").display().to_string();
    ["users", "seed", "--count", "3000", "--out", &out].map(str::to_owned)
}

#[test]
fn a_pipe_gets_no_progress() {
    let place = Place::embedded();
    let command = seed(&place);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let seeded = place.run(&command);
    let said = String::from_utf8(seeded.stderr).unwrap();
    assert_eq!(said, format!("3000 users written to {}\n", command[5]));
    place.sale(5);
    let audited = place.run(&["audit"]);
    assert_eq!(String::from_utf8(audited.stderr).unwrap(), "");
}

#[test]
fn a_terminal_shows_progress_and_is_cleared_afterwards() {
    let place = Place::embedded();
    let command = seed(&place);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let shown = place.run_on_terminal(&command);
    assert!(shown.contains("/3,000 users"), "{shown:?}");
    // The bar is erased, and the last line is the command's own.
    let last = shown.trim_end().rsplit(['\r', '\n']).next().unwrap();
    assert!(last.ends_with(&format!("3000 users written to {}", command[5])), "{shown:?}");
    place.sale(5);
    let shown = place.run_on_terminal(&["audit"]);
    assert!(shown.contains("reservations and orders compared"), "{shown:?}");
}
