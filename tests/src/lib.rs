//! Starts `ddpo` as a user does, for the end-to-end checks in `tests/`.

pub mod full_size;
pub mod runs;
pub mod scoring;

pub use ddpo_testkit::chat_server;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Root of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// The program, built from the present sources into the folder that this test runs from.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let profile = test
            .parent()
            .and_then(Path::parent)
            .expect("target/PROFILE/deps/test");
        let mut cargo = cargo(profile, &["build", "--quiet", "--package", "ddpo-cli"]);
        let status = cargo.status().expect("cargo starts");
        assert!(status.success(), "ddpo does not build");
        profile.join("ddpo")
    })
}

/// A command of cargo's in the repository's root, for the profile that is built in folder `profile`.
pub fn cargo(profile: &Path, args: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = Command::new(cargo);
    cargo.current_dir(root()).args(args).arg("--target-dir");
    cargo.arg(profile.parent().expect("target/PROFILE"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo tells a test of the test's own package; ring is built again, with all above it, whenever that changes.
    let of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "OUT_DIR"];
    for (name, _) in std::env::vars_os() {
        let known = name.to_string_lossy();
        if of_package.iter().any(|prefix| known.starts_with(prefix)) {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// What a call of `ddpo` ended with.
#[derive(Debug)]
pub struct Ended {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit code and that standard error has all of these.
    #[track_caller]
    pub fn expect(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, code, "standard error: {}", self.stderr);
        for part in parts {
            assert!(
                self.stderr.contains(part),
                "`{part}` is not in: {}",
                self.stderr
            );
        }
        self
    }
}

/// `ddpo` with arguments, in the repository's root, one thread for libtorch.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program());
    command
        .current_dir(root())
        .args(args)
        .env("OMP_NUM_THREADS", "1");
    command
}

/// Runs [`command`] to its end.
pub fn ddpo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ended {
    ended(&mut command(args))
}

/// Runs a command to its end.
pub fn ended(command: &mut Command) -> Ended {
    Ended::of(&command.output().expect("ddpo starts"))
}

/// The small Stable Diffusion of `tests/golden/sd_tiny.py`, in the diffusers layout.
pub fn tiny_model() -> PathBuf {
    root().join("tests/golden/sd_tiny/model")
}

/// A copy of [`tiny_model`] to be damaged.
pub fn copy_of_tiny_model(to: &Path) -> PathBuf {
    let model = to.join("model");
    copy_folder(&tiny_model(), &model);
    model
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file");
        }
    }
}

/// A file or folder that a generator of `tests/golden` made.
pub fn golden(path: &str) -> PathBuf {
    root().join("tests/golden").join(path)
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are UTF-8")
}
