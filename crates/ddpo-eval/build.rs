//! Lets tests find libtorch where the same build wants ddpo-reward's networks, as that of the whole workspace does:
//! then it is linked although nothing here asks for it.
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if let Ok(lib) = std::env::var("DEP_DDPO_REWARD_LIBTORCH") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
}
