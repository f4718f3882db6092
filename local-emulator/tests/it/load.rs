//! `infra/load`: a small sale with each of the two generators, small sales with an attacker, and what
//! the scripts and the report's judge refuse.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// A script of `infra/load` with the tested binary, and k6 on its path.
fn script(name: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(root().join("infra/load").join(name));
    if let Some(python) = env::var_os("TEST_PYTHON") {
        let bin = Path::new(&python).parent().unwrap().to_owned();
        let path = env::var_os("PATH").unwrap();
        command.env(
            "PATH",
            env::join_paths([bin].into_iter().chain(env::split_paths(&path))).unwrap(),
        );
    }
    command.args(arguments).env("EMULATOR", env!("CARGO_BIN_EXE_local-emulator")).output().unwrap()
}

fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// 100 shoppers and 20 units.
fn play(generator: &str, emulators: &str) {
    let out: PathBuf = env::temp_dir().join(format!("fs-load-{generator}-{}", std::process::id()));
    let folder = out.to_str().unwrap();
    let ran = script(
        "run",
        &[
            "100",
            "--units",
            "20",
            "--generator",
            generator,
            "--emulators",
            emulators,
            "--out",
            folder,
        ],
    );
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
    let report = fs::read_to_string(out.join("report.md")).unwrap();
    for row in ["| errors | 0 |", "| sold-out | 80 |", "| ordered | 20 |", "sales balance |"] {
        assert!(report.contains(row), "{row} is not in {report}");
    }
    assert!(fs::read_to_string(out.join("report.html")).unwrap().contains("<svg"));
    fs::remove_dir_all(out).unwrap();
}

#[test]
#[ignore = "needs servers and Python packages: infra/test runs it"]
fn a_sale_is_played_by_k6_and_reported() {
    play("k6", "2");
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn a_sale_is_played_by_the_second_generator_and_reported() {
    play("shoppers", "1");
}

#[test]
#[ignore = "needs servers: infra/test runs it"]
fn idle_connections_are_held_and_measured() {
    let ran = script("connections", &["500"]);
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
    assert!(text(&ran.stdout).contains("bytes each"), "{}", text(&ran.stdout));
}

/// 60 shoppers, 20 accounts of the attacker and 10 units, with every defence on.
#[test]
#[ignore = "needs Python 3.11: infra/test runs it"]
fn an_attacker_is_simulated_and_the_books_balance() {
    let out: PathBuf = env::temp_dir().join(format!("fs-bots-{}", std::process::id()));
    let (folder, small) = (out.to_str().unwrap(), ["--honest", "60", "--attackers", "20"]);
    let rest = ["--units", "10", "--phones", "4", "--prepared", "2", "--out", folder];
    let chosen = ["--scenario", "first-come-all", "--scenario", "draw-all"];
    let ran = script("bots", &[&small[..], &rest, &chosen].concat());
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
    let report = fs::read_to_string(out.join("report.md")).unwrap();
    for row in ["| first come | all of these | 4 |", "| draw | all of these | 4 |"] {
        assert!(report.contains(row), "{row} is not in {report}");
    }
    assert!(fs::read_to_string(out.join("picture.svg")).unwrap().contains("<svg"));
    fs::remove_dir_all(out).unwrap();

    let ran = script("bots", &["--units", "0"]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(text(&ran.stderr).contains("--units: must be a number"), "{}", text(&ran.stderr));
}

#[test]
fn bad_arguments_of_the_load_test_are_named() {
    for (name, arguments, message) in [
        ("run", &["many"][..], "SHOPPERS must be a number"),
        ("run", &["100", "--units", "0"], "--units must be a number"),
        ("run", &["100", "--units"], "--units needs a value"),
        ("run", &["100", "--generator", "ab"], "--generator must be k6 or shoppers"),
        ("run", &["100", "--colour", "red"], "unknown: --colour"),
        ("connections", &["few"], "number of connections must be"),
    ] {
        let ran = script(name, arguments);
        assert_eq!(ran.status.code(), Some(2), "{name} {arguments:?}: {}", text(&ran.stderr));
        assert!(text(&ran.stderr).contains(message), "{name} {arguments:?}: {}", text(&ran.stderr));
    }
}

/// Errors, lost orders and books that do not balance must fail a run.
#[test]
#[ignore = "needs Python 3.11: infra/test runs it"]
fn the_judge_of_the_report_refuses_bad_runs() {
    let tests = ["-m", "unittest", "discover", "-s", "infra/load", "-p", "test_*.py"];
    let ran = Command::new("python3").args(tests).current_dir(root()).output().unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(!text(&ran.stderr).contains("Ran 0 tests"), "{}", text(&ran.stderr));
}
