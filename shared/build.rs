//! Has the crate compiled again when a migration is added: `sqlx::migrate!` reads the directory at compile time, and
//! Cargo does not know.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
