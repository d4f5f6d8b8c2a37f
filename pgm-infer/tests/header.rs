//! The C header says what `src/capi.rs` does.

#[test]
fn the_header_is_what_cbindgen_makes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    let bindings =
        cbindgen::Builder::new().with_config(config).with_src(folder.join("src/capi.rs")).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = folder.join("include/pgm.h");
    if std::env::var_os("PGM_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == made, "include/pgm.h is old: PGM_WRITE_HEADER=1 cargo test --workspace --test header");
}
