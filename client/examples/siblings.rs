//! Two writers that have not seen each other, and how their values become one again.
//!
//! `cargo run --release -p quorate-client --example siblings -- quorate-dev/client.toml`

use quorate_client::{Client, ClientConfig};
use std::path::PathBuf;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = std::env::args_os().nth(1).map(PathBuf::from);
    let client = Client::connect(ClientConfig::from_env_or(config.as_deref())?).await?;
    let carts = client.bucket("carts");

    // Both start from the same empty cart, and neither sees the other's write.
    let start = carts.get("alice").await?;
    let start = match start.context {
        Some(context) => Some(carts.delete("alice", &context).await?.context),
        None => None,
    };
    carts.put("alice", "apples", start.as_ref()).await?;
    carts.put("alice", "pears", start.as_ref()).await?;

    let both = carts.get("alice").await?;
    println!("{} siblings", both.values.len());

    // The write that follows from both replaces both.
    let merged: Vec<_> = both
        .values
        .iter()
        .map(|value| String::from_utf8_lossy(&value.body))
        .collect();
    carts.put("alice", merged.join(" and "), both.context.as_ref()).await?;
    for value in carts.get("alice").await?.values {
        println!("{}", String::from_utf8_lossy(&value.body));
    }
    Ok(())
}
