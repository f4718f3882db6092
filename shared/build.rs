//! Lists the migrations for the crate, so that it is compiled again when one is added. `sqlx::migrate!` would do it too, but
//! its crate compiles sqlx and SQLite a second time, for the compiler's own process.

use std::{env, fmt::Write as _, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=migrations");
    let root = env::var("CARGO_MANIFEST_DIR").expect("Cargo sets CARGO_MANIFEST_DIR");
    let out = env::var("OUT_DIR").expect("Cargo sets OUT_DIR");
    for database in ["mysql", "sqlite"] {
        let folder = Path::new(&root).join("migrations").join(database);
        let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        let paths =
            files.map(|file| file.unwrap_or_else(|error| panic!("{folder:?}: {error}")).path());
        let mut paths: Vec<_> =
            paths.filter(|path| path.extension().is_some_and(|kind| kind == "sql")).collect();
        paths.sort();
        let mut list = String::from("&[");
        for path in paths {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.expect("a migration's file name is ASCII");
            write!(list, "({name:?}, include_str!({path:?})),").expect("a String takes any text");
        }
        list.push(']');
        let path = Path::new(&out).join(format!("{database}_migrations.rs"));
        fs::write(&path, list).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}
