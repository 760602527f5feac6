//! A peer of the proxies that holds its identity as files, and uses it for as long as it likes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, ensure};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use signet_tests::any_server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Its files, as `signet-agent fetch x509 --write` writes them.
pub(crate) struct Stranger(pub(crate) PathBuf);

impl Stranger {
    /// A connection that is open until the proxy ends it.
    pub(crate) async fn connect(&self, port: u16) -> Result<TlsStream<TcpStream>> {
        let chain = CertificateDer::pem_file_iter(self.file("svid.pem"))?.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.file("svid_key.pem"))?;
        let config = any_server::client_config(Some((chain, key)))?;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::try_from("localhost")?;
        Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
    }

    /// One request over a new connection.
    pub(crate) async fn asks(&self, port: u16) -> Result<()> {
        ask(&mut self.connect(port).await?).await
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.0).join(name)
    }
}

/// One request and its answer; the connection stays.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>) -> Result<()> {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: stranger\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"answered") {
        let read = stream.read_buf(&mut answer).await?;
        ensure!(
            read > 0,
            "the connection ended: {}",
            String::from_utf8_lossy(&answer)
        );
    }
    let first = answer.split(|byte| *byte == b'\r').next().context("no answer")?;
    ensure!(first == b"HTTP/1.1 200 OK", "{}", String::from_utf8_lossy(first));
    Ok(())
}
