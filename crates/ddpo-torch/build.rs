//! Compiles the C++ shim against libtorch's headers, and lets binaries and tests find libtorch without `LD_LIBRARY_PATH`.
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").ok();
    if let Some(lib) = &lib {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
    let Some(include) = include_dir(lib.as_deref()) else {
        println!(
            "cargo:warning=libtorch's headers were not found: run `cargo xtask setup`, or set LIBTORCH to a libtorch 2.11.0"
        );
        std::process::exit(1);
    };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(1)
        .define("_GLIBCXX_USE_CXX11_ABI", "1")
        .define("AT_PER_OPERATOR_HEADERS", None)
        // As system headers, libtorch's own warnings stay silent and ours are still shown.
        .flag("-isystem")
        .flag(include.as_os_str())
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include").as_os_str())
        .file("src/shim.cpp")
        .compile("ddpo_torch_shim");
}

/// The folder with `ATen/`: beside the library that torch-sys links, else under `LIBTORCH`.
fn include_dir(lib: Option<&str>) -> Option<PathBuf> {
    let beside = lib.and_then(|lib| Path::new(lib).parent().map(Path::to_path_buf));
    let named = std::env::var_os("LIBTORCH").map(PathBuf::from);
    [beside, named]
        .into_iter()
        .flatten()
        .map(|root| root.join("include"))
        .find(|include| include.join("ATen/core/Tensor.h").is_file())
}
