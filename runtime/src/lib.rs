//! What both binaries need and that knows nothing of certificates. [`backoff`], [`clock`], [`error`], [`pace`] and [`prefix`] are there for
//! the library for workloads too; the rest is the feature `process`, on by default.
//!
//! | module | gives |
//! |---|---|
//! | [`clock`] | wall time as a value someone hands in |
//! | [`drain`], [`ready`], [`signal`] | how a process ends, begins, and is told to end |
//! | [`notify`] | what systemd is told of it |
//! | [`backoff`], [`pace`] | waiting times between attempts, waiting for a moment of the wall clock |
//! | [`bucket`] | how much, how often, of one caller or of each |
//! | [`turns`] | who comes too often waits, in the order of his caller's |
//! | [`quota`], [`places`] | what several callers share: a guaranteed part and a cap for each |
//! | [`keyed`] | what several do about one thing at a time, done once |
//! | [`source`] | where a connection comes from |
//! | [`tally`], [`refusals`] | events that are told once an interval, with their number; refusals at a door, counted as well |
//! | [`prefix`] | what stands before each message of gRPC |
//! | [`body`] | request bodies that are paid for as they arrive |
//! | `encoded` | answers of gRPC whose messages are encoded already; with the feature `grpc` |
//! | [`accept`], [`progress`] | connections of any listener, until told to stop; ended when their reader is stuck |
//! | [`files`] | files replaced whole, and sets of files that belong together |
//! | [`error`] | errors with their causes, and what others wrote, as one line |
//! | [`sync`] | locks that no panic poisons |
//! | [`config`] | one YAML file, checked; all faults with line and remedy |
//! | [`trial`] | paths and addresses of a configuration, tried before anything is started |
//! | [`output`] | what is printed, without a panic and without waiting for readers |
//! | [`environment`] | the variables that count: the table |
//! | [`telemetry`], [`http`] | logs, metrics, health |
//! | [`spans`] | whose story a line of the log belongs to |
//! | [`uds`] | Unix sockets with an exact mode |
//! | [`limits`] | what the system lets the process use, and rows of the table of what the process lets others use |
//! | [`table`] | output for people |
//! | [`cli`] | the skeleton of a command line: set-up, answers, exit codes |

#[cfg(feature = "process")]
pub mod accept;
pub mod backoff;
#[cfg(feature = "process")]
pub mod body;
#[cfg(feature = "process")]
pub mod bucket;
#[cfg(feature = "process")]
pub mod cli;
pub mod clock;
#[cfg(feature = "process")]
pub mod config;
#[cfg(feature = "process")]
pub mod drain;
#[cfg(feature = "grpc")]
pub mod encoded;
#[cfg(feature = "process")]
pub mod environment;
pub mod error;
#[cfg(feature = "process")]
pub mod files;
#[cfg(feature = "process")]
pub mod http;
#[cfg(feature = "process")]
pub mod keyed;
#[cfg(feature = "process")]
pub mod limits;
#[cfg(feature = "process")]
pub mod notify;
#[cfg(feature = "process")]
pub mod output;
pub mod pace;
#[cfg(feature = "process")]
pub mod places;
pub mod prefix;
#[cfg(feature = "process")]
pub mod progress;
#[cfg(feature = "process")]
pub mod quota;
#[cfg(feature = "process")]
pub mod ready;
#[cfg(feature = "process")]
pub mod refusals;
#[cfg(feature = "process")]
pub mod signal;
#[cfg(feature = "process")]
pub mod source;
#[cfg(feature = "process")]
pub mod spans;
#[cfg(feature = "process")]
pub mod sync;
#[cfg(feature = "process")]
pub mod table;
#[cfg(feature = "process")]
pub mod tally;
#[cfg(feature = "process")]
pub mod telemetry;
#[cfg(feature = "process")]
pub mod trial;
#[cfg(feature = "process")]
pub mod turns;
#[cfg(feature = "process")]
pub mod uds;
