//! Writes a value and reads it back.
//!
//! `cargo run --release -p quorate-client --example hello -- quorate-dev/client.toml`

use quorate_client::{Client, ClientConfig};
use std::path::PathBuf;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = std::env::args_os().nth(1).map(PathBuf::from);
    let client = Client::connect(ClientConfig::from_env_or(config.as_deref())?).await?;
    let greetings = client.bucket("greetings");

    // With the context of a read, a write replaces what the read found, also when this program runs a second time.
    let before = greetings.get("hello").await?;
    let written = greetings.put("hello", "world", before.context.as_ref()).await?;
    for replica in client.name_replicas(&written.replicas) {
        println!("{replica}");
    }

    for value in greetings.get("hello").await?.values {
        println!("hello {}", String::from_utf8_lossy(&value.body));
    }
    Ok(())
}
