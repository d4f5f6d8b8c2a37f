//! Passes the platform's name to the examples, which list the dependencies of this platform.

#[allow(clippy::print_stdout)]
fn main() {
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=EXAMPLES_HOST={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
