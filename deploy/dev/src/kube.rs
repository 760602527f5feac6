//! The fake Kubernetes API as a process: says where it listens in a file, then serves until SIGTERM.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use signet_runtime::cli::Program;
use signet_runtime::files::{self, Durability};
use signet_tests::fake_kube::{FakeKube, FakeKubeConfig};

/// `fake-kube <file for its URL> <kubeconfig to write>`.
pub(crate) fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let files: Vec<PathBuf> = args.skip(1).map(PathBuf::from).collect();
    Program("fake-kube").run(serve(&files))
}

async fn serve(files: &[PathBuf]) -> anyhow::Result<()> {
    let [url_file, kubeconfig] = files else {
        anyhow::bail!("two file names are needed")
    };
    let stop = signet_runtime::signal::shutdown_signal();
    let kube = FakeKube::start(FakeKubeConfig::default()).await?;
    kube.kubeconfig(kubeconfig)?;
    files::replace(url_file, kube.url().as_bytes(), 0o644, Durability::Volatile)?;
    stop.await;
    Ok(())
}
