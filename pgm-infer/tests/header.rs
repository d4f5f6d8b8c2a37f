//! The C header is the one that cbindgen makes of `src/capi`.

#[test]
fn the_header_is_what_cbindgen_makes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(folder.join("cbindgen.toml")).unwrap();
    // It reads the modules of this file, too.
    let builder = cbindgen::Builder::new().with_src(folder.join("src/capi/mod.rs"));
    let bindings = builder.with_config(config).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = folder.join("include/pgm.h");
    if std::env::var_os("PGM_WRITE_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap();
    assert!(kept == made, "include/pgm.h is out of date; run PGM_WRITE_HEADER=1 cargo test --workspace --test header");
}
