//! The arrows of `ARCHITECTURE.md`, and rules of style that no lint knows.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "test code"
)]

mod adr;
mod audit;
mod bounds;
mod crates;
mod environment;
mod examples;
mod files;
mod growth;
mod homes;
mod ignored;
mod modules;
mod paths;
mod providers;
mod rooms;
mod threats;
mod tokens;
mod words;
