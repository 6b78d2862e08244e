//! Tells the binary what built it, for `roomkeeper version --json`.
//!
//! It reads nothing but the compiler's own words, so that one source gives one binary; the commit
//! is said by whoever builds, in `ROOMKEEPER_COMMIT`.

use std::env;
use std::process::Command;

fn main() {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let words = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    // A build must not fail for want of these words.
    println!("cargo::rustc-env=ROOMKEEPER_RUSTC={}", words.unwrap_or_default());
    println!("cargo::rustc-env=ROOMKEEPER_TARGET={}", env::var("TARGET").unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC");
    println!("cargo::rerun-if-env-changed=ROOMKEEPER_COMMIT");
}
