//! Images of the programs beside this test, on the node beside this test.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use signet_tests::process::binary;
use tokio::process::Command;

/// containerd's socket.
pub(crate) fn containerd() -> Result<PathBuf> {
    if let Some(socket) = std::env::var_os("SIGNET_TEST_CONTAINERD") {
        return Ok(socket.into());
    }
    let kubeconfig = std::env::var_os(crate::KUBECONFIG).context("no cluster")?;
    Ok(Path::new(&kubeconfig).with_file_name("c.sock"))
}

/// Packs a program and imports it under this name, as docs/kubernetes.md tells a user to.
pub(crate) async fn import(program: &str, name: &str) -> Result<()> {
    let folder = signet_testkit::folder();
    let archive = folder.path().join("image.tar");
    let mut pack = Command::new(binary("signet-image"));
    pack.arg(binary(program))
        .args(["--user", "0:0", "--name", name, "--out"])
        .arg(&archive);
    said(&mut pack).await?;
    let mut import = Command::new("ctr");
    import
        .arg("-a")
        .arg(containerd()?)
        .args(["-n", "k8s.io", "images", "import"])
        .arg(&archive);
    said(&mut import).await.map(drop)
}

/// What a command says, which has to succeed.
pub(crate) async fn said(command: &mut Command) -> Result<String> {
    let output = command
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot be started")?;
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    ensure!(output.status.success(), "{}: {text}", output.status);
    Ok(text)
}
