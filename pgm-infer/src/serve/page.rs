//! The page that a browser shows, and its files.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use axum::routing::get;

// The page loads nothing from other sites, and no other site can frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The routes of the page.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let of = |kind: &'static str, text: &'static str| get(move || async move { file(kind, text) });
    Router::new()
        .route("/", of("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/style.css", of("text/css; charset=utf-8", include_str!("page/style.css")))
        .route("/app.js", of("text/javascript; charset=utf-8", include_str!("page/app.js")))
        .route("/texts.js", of("text/javascript; charset=utf-8", include_str!("page/texts.js")))
        .route("/icon.svg", of("image/svg+xml", include_str!("page/icon.svg")))
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
}
