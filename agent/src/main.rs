//! `signet-agent`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    signet_agent::cli::main()
}
