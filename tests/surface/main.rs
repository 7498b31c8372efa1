//! Both adapters offer the same, and the one for smol gets along without tokio.

mod items;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use items::Items;

/// What tokio has alone, and why.
const ONLY_ON_TOKIO: &[(&str, &str)] = &[("cli", "the command `macula` is one program, and it is written on tokio")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Everything public of an adapter: its path, and how it is declared.
fn surface(adapter: &str) -> BTreeMap<String, String> {
    let source = root().join(adapter).join("src");
    let mut items = Items::default();
    items.module(&source.join("lib.rs"), "");
    let skipped = |path: &str| {
        let below = |name: &str| {
            path.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        ONLY_ON_TOKIO.iter().any(|(name, _)| below(name))
    };
    items.found.into_iter().filter(|(path, _)| !skipped(path)).collect()
}

#[test]
fn both_adapters_offer_the_same() {
    let (tokio, smol) = (surface("macula-tokio"), surface("macula-smol"));
    // Or it finds nothing, and compares that.
    for name in [
        "Connection",
        "Endpoint::bind_any",
        "RelayClient::connect",
        "dist::discovery::srv::SrvRecords::with_rng",
        "proto",
        "rpc::RpcServer::with_config",
        "tcp::RecvHalf::stop",
        "tcp::splice_tcp",
        "tls",
    ] {
        assert!(tokio.contains_key(name), "{name} in {tokio:#?}");
    }
    let missing: Vec<_> = tokio.keys().filter(|name| !smol.contains_key(*name)).collect();
    assert!(missing.is_empty(), "only on tokio, without a reason: {missing:#?}");
    let missing: Vec<_> = smol.keys().filter(|name| !tokio.contains_key(*name)).collect();
    assert!(missing.is_empty(), "only on smol: {missing:#?}");
    for (name, declared) in &tokio {
        assert_eq!(Some(declared), smol.get(name), "{name} is declared differently");
    }
}

#[test]
fn the_reasons_are_for_something_that_is_there() {
    let mut items = Items::default();
    items.module(&root().join("macula-tokio/src/lib.rs"), "");
    for (name, _) in ONLY_ON_TOKIO {
        assert!(items.found.contains_key(*name), "tokio has no {name}");
    }
}

/// The crates below another, in their ordinary builds.
fn below(package: &str) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(root())
        .args([
            "tree",
            "--locked",
            "--offline",
            "--edges",
            "normal",
            "--all-features",
            "--prefix",
            "none",
        ])
        .args(["--package", package])
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("text");
    tree.lines()
        .filter_map(|line| line.split(' ').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn there_is_no_tokio_below_the_adapter_for_smol() {
    let crates = below("macula-smol");
    for expected in ["macula-smol", "macula-driver", "macula-proto", "async-io", "quinn-udp"] {
        assert!(crates.iter().any(|name| name == expected), "{expected} in {crates:?}");
    }
    let tokio: Vec<_> = crates
        .iter()
        .filter(|name| name.starts_with("tokio") || *name == "mio")
        .collect();
    assert!(tokio.is_empty(), "{tokio:?}");
}

#[test]
fn there_is_no_smol_below_the_adapter_for_tokio() {
    let crates = below("macula-tokio");
    assert!(crates.iter().any(|name| name == "tokio"), "{crates:?}");
    let smol: Vec<_> = crates
        .iter()
        .filter(|name| ["smol", "async-io", "async-executor"].contains(&&***name))
        .collect();
    assert!(smol.is_empty(), "{smol:?}");
}
