//! Code that the examples `quickstart.rs`, `digits/` and `study/` share.

mod documentation;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, anyhow, bail};
use pgm_data::TextInputs;
use serde_json::Value;

use documentation::Documentation;

/// The platform that this is built for, as cargo names it.
const HOST: &str = env!("EXAMPLES_HOST");

/// English sentences from the documentation of the pinned dependencies, an empty line between paragraphs, in order of name,
/// until they hold `max_bytes`.
///
/// # Errors
/// As [`dependency_sources`], and when a source cannot be read.
pub fn dependency_documentation(max_bytes: usize) -> anyhow::Result<String> {
    let mut found = Documentation::default();
    for path in dependency_sources(u64::MAX)? {
        found.add(&std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?);
        if found.text().len() > max_bytes {
            break;
        }
    }
    Ok(found.text().to_string())
}

/// Rust sources of the pinned dependencies, in order of name, until they hold `max_bytes`.
///
/// # Errors
/// When cargo fails, or when there are none.
pub fn dependency_sources(max_bytes: u64) -> anyhow::Result<Vec<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_string());
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    // A build fetches the crates of this platform only, so metadata runs offline. If a crate is missing, such as
    // another member's test dependency, it runs again online.
    let metadata = |offline: &[&str]| {
        Command::new(&cargo)
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", HOST, "--manifest-path"])
            .arg(&manifest)
            .args(offline)
            .output()
            .with_context(|| format!("cannot run {cargo}; give your own text with --text"))
    };
    let mut output = metadata(&["--offline"])?;
    if !output.status.success() {
        output = metadata(&[])?;
    }
    if !output.status.success() {
        let problem = String::from_utf8_lossy(&output.stderr);
        bail!("cargo metadata failed ({}); give your own text with --text", problem.trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let wanted = without_the_window(&metadata);
    let mut packages: Vec<(String, PathBuf)> = list(&metadata["packages"])
        .filter(|package| package["source"].as_str().is_some_and(|source| source.starts_with("registry+")))
        .filter(|package| package["id"].as_str().is_some_and(|id| wanted.contains(id)))
        .filter_map(|package| {
            let manifest = PathBuf::from(package["manifest_path"].as_str()?);
            Some((package["name"].as_str()?.to_string(), manifest.parent()?.join("src")))
        })
        .collect();
    packages.sort();
    let (mut files, mut bytes) = (Vec::new(), 0);
    for (_, folder) in packages {
        let pattern = format!("{}/**/*.rs", folder.display());
        let Ok(inputs) = TextInputs::resolve(&[pattern], "text", "text") else { continue };
        for path in inputs.files() {
            let Ok(text) = std::fs::read_to_string(path) else { continue };
            // Files of this size are tables of numbers, not text.
            if text.len() > 200_000 {
                continue;
            }
            bytes += text.len() as u64;
            files.push(path.display().to_string());
            if bytes > max_bytes {
                return Ok(files);
            }
        }
    }
    if files.is_empty() {
        bail!("found no sources of dependencies; give your own text with --text");
    }
    Ok(files)
}

/// Creates the first folder of `name`, `name-2`, `name-3` .. that does not exist yet.
///
/// # Errors
/// When it cannot be created.
pub fn free_folder(parent: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let names = std::iter::once(name.to_string()).chain((2..).map(|n| format!("{name}-{n}")));
    let free = names.map(|name| parent.join(name)).find(|path| !path.exists());
    let free = free.ok_or_else(|| anyhow!("no free folder below {}", parent.display()))?;
    std::fs::create_dir_all(&free).with_context(|| format!("cannot write {}", free.display()))?;
    Ok(free)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

// Ids of all packages except those of the desktop application alone, which most builds do not fetch.
fn without_the_window(metadata: &Value) -> HashSet<&str> {
    let dependencies: HashMap<&str, &Value> = list(&metadata["resolve"]["nodes"])
        .filter_map(|node| Some((node["id"].as_str()?, &node["dependencies"])))
        .collect();
    let mut left: Vec<&str> = list(&metadata["workspace_members"]).filter_map(Value::as_str).collect();
    left.retain(|id| !id.contains("#pgm-desktop@"));
    let mut found = HashSet::new();
    while let Some(id) = left.pop() {
        if found.insert(id) {
            left.extend(dependencies.get(id).into_iter().flat_map(|ids| list(ids)).filter_map(Value::as_str));
        }
    }
    found
}
