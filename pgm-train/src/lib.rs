//! pgm-train
