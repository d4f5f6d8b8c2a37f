//! The page that a browser shows, and its files.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;

// The page loads nothing from other sites, and no other site can frame it. Drawn pictures are `data:` addresses.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

// The scripts, each with its address.
const SCRIPTS: [(&str, &str); 10] = [
    ("/app.js", include_str!("page/app.js")),
    ("/backend.js", include_str!("page/backend.js")),
    ("/blanks.js", include_str!("page/blanks.js")),
    ("/common.js", include_str!("page/common.js")),
    ("/edit.js", include_str!("page/edit.js")),
    ("/fields.js", include_str!("page/fields.js")),
    ("/mask.js", include_str!("page/mask.js")),
    ("/pictures.js", include_str!("page/pictures.js")),
    ("/texts.js", include_str!("page/texts.js")),
    ("/tiles.js", include_str!("page/tiles.js")),
];

/// The routes of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let of = |kind: &'static str, text: &'static str| get(move || async move { file(kind, text) });
    let router = Router::new()
        .route("/", of("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/style.css", of("text/css; charset=utf-8", include_str!("page/style.css")))
        .route("/icon.svg", of("image/svg+xml", include_str!("page/icon.svg")));
    SCRIPTS.iter().fold(router, |router, &(path, text)| router.route(path, of("text/javascript; charset=utf-8", text)))
}

/// A response with a file that is part of the program.
pub fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    response.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OrderKind;

    #[test]
    fn the_page_offers_every_order() {
        let script = include_str!("page/texts.js");
        for name in OrderKind::NAMES {
            assert!(
                script.contains(&format!("  {name}: \"")) || script.contains(&format!("  \"{name}\": \"")),
                "{name}"
            );
        }
    }

    #[test]
    fn every_script_that_is_imported_is_served() {
        let page = include_str!("page/index.html");
        let imports = SCRIPTS.iter().flat_map(|(_, text)| text.split("from \"./").skip(1));
        let imported: Vec<&str> = imports.map(|rest| &rest[..rest.find('"').unwrap()]).collect();
        assert!(imported.len() > SCRIPTS.len(), "{imported:?}");
        let is_served = |name: &str| SCRIPTS.iter().any(|(path, _)| *path == format!("/{name}"));
        for name in &imported {
            assert!(is_served(name), "{name} is imported and not served");
        }
        for (path, _) in SCRIPTS {
            let name = &path[1..];
            assert!(imported.contains(&name) || page.contains(&format!("src=\"{name}\"")), "{name} is not used");
        }
    }

    // A misspelt name would be found only when the script runs into it.
    #[test]
    fn the_scripts_name_elements_that_the_page_has() {
        let page = include_str!("page/index.html");
        for (path, text) in SCRIPTS {
            for rest in text.split("$(\"").skip(1) {
                let id = &rest[..rest.find('"').unwrap()];
                assert!(page.contains(&format!(" id=\"{id}\"")), "{path} names {id}");
            }
        }
    }
}
