//! pgm-infer
