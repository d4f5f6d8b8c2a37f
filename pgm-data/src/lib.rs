//! pgm-data
