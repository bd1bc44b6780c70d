//! A set that several programs add to at the same time, merged by `update`.
//!
//! `cargo run --release -p quorate-client --example update -- quorate-dev/client.toml red green blue`

use quorate_client::{Client, ClientConfig, IntoValue};
use std::collections::BTreeSet;
use std::path::PathBuf;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let config = arguments.next().map(PathBuf::from);
    let colours: Vec<String> = arguments.map(|colour| colour.to_string_lossy().into_owned()).collect();
    let client = Client::connect(ClientConfig::from_env_or(config.as_deref())?).await?;
    let sets = client.bucket("sets");

    for colour in &colours {
        sets.update("colours", |siblings| {
            let mut all: BTreeSet<&str> = siblings
                .iter()
                .filter_map(|sibling| std::str::from_utf8(&sibling.body).ok())
                .flat_map(str::lines)
                .collect();
            all.insert(colour);
            Vec::from_iter(all).join("\n").into_value()
        })
        .await?;
    }

    for value in sets.get("colours").await?.values {
        println!("{}", String::from_utf8_lossy(&value.body));
    }
    Ok(())
}
