//! The schema, embedded in the binary, step by step.
//!
//! A step that was ever run must never change: its checksum stands in databases. It is a list, not sqlx's macro, which
//! would build the drivers a second time for the compiler.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// What each step is about, and what it says. Versions count from 1, like the names of the files.
const STEPS: [(&str, &str); 4] = [
    ("store", include_str!("../migrations/0001_store.sql")),
    ("letters once", include_str!("../migrations/0002_letters_once.sql")),
    (
        "letters given and order of acts",
        include_str!("../migrations/0003_letters_given_and_order_of_acts.sql"),
    ),
    ("lives", include_str!("../migrations/0004_lives.sql")),
];

/// All steps, to be run in their order.
pub(crate) fn migrations() -> Migrator {
    let step = |(version, (about, sql)): (i64, (&'static str, &'static str))| {
        Migration::new(version, about.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(STEPS).map(step).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn each_file_is_a_step_of_its_number() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let mut files: Vec<_> =
            fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let steps = migrations();
        assert_eq!(files.len(), steps.iter().count());
        for (file, step) in files.iter().zip(steps.iter()) {
            let name = format!("{:04}_{}.sql", step.version, step.description.replace(' ', "_"));
            assert!(file.ends_with(&name), "{} is not {name}", file.display());
            assert_eq!(fs::read_to_string(file).unwrap(), step.sql.as_str());
        }
    }
}
