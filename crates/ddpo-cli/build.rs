//! Lets the binary find libtorch without `LD_LIBRARY_PATH`, and tells it which commit it was built from.
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Grows with every commit, whichever branch it is on.
    let log = "../../.git/logs/HEAD";
    if std::path::Path::new(log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
    let commit = Command::new("git").args(["rev-parse", "HEAD"]).output();
    if let Some(output) = commit.ok().filter(|output| output.status.success()) {
        let commit = String::from_utf8_lossy(&output.stdout);
        println!("cargo:rustc-env=DDPO_COMMIT={}", commit.trim());
    }
}
