//! Models and the weights of rewards by their names on the hub, against a small server of that protocol on this
//! machine: no other network.

mod models;
mod rewards;
mod server;

use std::path::Path;
use std::process::Command;

use server::{Behaviour, HubServer};

/// Where nobody listens.
const NOWHERE: &str = "http://127.0.0.1:9";

/// `command` with a cache and a hub of its own.
fn with_hub(mut command: Command, cache: &Path, endpoint: &str) -> Command {
    command.env("HF_HOME", cache).env("HF_ENDPOINT", endpoint);
    for name in [
        "HF_TOKEN",
        "HF_HUB_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "ALL_PROXY",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}
