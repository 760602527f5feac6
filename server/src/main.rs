//! `signet-server`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    signet_server::cli::main()
}
