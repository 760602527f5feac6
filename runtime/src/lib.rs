//! What both binaries need and that knows nothing of certificates.
//!
//! | module | gives |
//! |---|---|
//! | [`clock`] | wall time as a value someone hands in |
//! | [`drain`], [`ready`], [`signal`] | how a process ends, begins, and is told to end |
//! | [`backoff`], [`pace`] | waiting times between attempts, waiting for a moment of the wall clock |
//! | [`bucket`] | how much, how often, of one caller or of each |
//! | [`quota`], [`places`] | what several callers share: a guaranteed part and a cap for each |
//! | [`keyed`] | what several do about one thing at a time, done once |
//! | [`source`] | where a connection comes from |
//! | [`tally`], [`refusals`] | events that are told once an interval, with their number; refusals at a door, counted as well |
//! | [`body`] | request bodies that are paid for as they arrive |
//! | `encoded` | answers of gRPC whose messages are encoded already; with the feature `grpc` |
//! | [`accept`], [`progress`] | connections of any listener, until told to stop; ended when their reader is stuck |
//! | [`files`] | files replaced whole |
//! | [`error`] | an error and its causes as one line |
//! | [`sync`] | locks that no panic poisons |
//! | [`config`] | one YAML file, checked; all faults with line and remedy |
//! | [`telemetry`], [`http`] | logs, metrics, health |
//! | [`uds`] | Unix sockets with an exact mode |
//! | [`limits`] | what the system lets the process use, and rows of the table of what the process lets others use |
//! | [`table`] | output for people |
//! | [`cli`] | the skeleton of a command line: set-up, answers, exit codes |

pub mod accept;
pub mod backoff;
pub mod body;
pub mod bucket;
pub mod cli;
pub mod clock;
pub mod config;
pub mod drain;
#[cfg(feature = "grpc")]
pub mod encoded;
pub mod error;
pub mod files;
pub mod http;
pub mod keyed;
pub mod limits;
pub mod pace;
pub mod places;
pub mod progress;
pub mod quota;
pub mod ready;
pub mod refusals;
pub mod signal;
pub mod source;
pub mod sync;
pub mod table;
pub mod tally;
pub mod telemetry;
pub mod uds;
