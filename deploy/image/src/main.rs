//! A container image of one program and nothing else: no base image, no registry, no shell. The same program gives the same
//! bytes, on whatever machine and day.

mod archive;
mod files;

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;

/// Packs a program, with the loader and the libraries that it needs, into an OCI archive.
#[derive(Debug, Parser)]
#[command(name = "signet-image", version)]
struct Args {
    /// The program, of this machine's architecture. One that is linked statically comes alone.
    program: PathBuf,
    /// Archive to write: an OCI image layout in a tar file, for `ctr images import` and the like.
    #[arg(long)]
    out: PathBuf,
    /// Name of the image with its tag; one without a registry is as Kubernetes reads it, on docker.io/library.
    #[arg(long)]
    name: String,
    /// User and group that the program runs as.
    #[arg(long, value_name = "UID:GID", default_value = "65532:65532")]
    user: String,
}

fn main() -> ExitCode {
    match pack(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // A reader that has gone is no reason to panic.
            let _ = writeln!(std::io::stderr(), "signet-image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn pack(args: &Args) -> Result<()> {
    let files = files::of_program(&args.program)?;
    let image = archive::Image {
        name: &args.name,
        user: &args.user,
        files: &files,
    };
    let out = File::create(&args.out).with_context(|| args.out.display().to_string())?;
    image.write(out).with_context(|| args.out.display().to_string())
}
