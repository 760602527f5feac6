//! TLS to the server, by somebody who asks for no proof.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use rustls::ClientConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::ClientCertificate;
use crate::any_server;

/// A TLS connection from this address of the machine's own, over which nothing has been said yet.
///
/// # Errors
/// When there is no server, or it refuses the handshake.
pub async fn open_tls(
    own: IpAddr,
    address: SocketAddr,
    certificate: &ClientCertificate,
) -> Result<TlsStream<TcpStream>> {
    let tls = Arc::new(tls_config(Some(certificate))?);
    let connected = dial(Some(own), address, tls).await;
    connected.with_context(|| format!("connect to {address} from {own}"))
}

pub(super) async fn dial(
    own: Option<IpAddr>,
    address: SocketAddr,
    tls: Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = match own {
        None => TcpStream::connect(address).await?,
        Some(own) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind(SocketAddr::new(own, 0))?;
            socket.connect(address).await?
        }
    };
    stream.set_nodelay(true)?;
    let name = ServerName::IpAddress(address.ip().into());
    TlsConnector::from(tls).connect(name, stream).await
}

pub(super) fn tls_config(certificate: Option<&ClientCertificate>) -> Result<ClientConfig> {
    let certificate = certificate.map(|certificate| {
        let chain = certificate.chain.iter();
        let chain = chain.map(|der| CertificateDer::from(der.clone())).collect();
        let key = PrivatePkcs8KeyDer::from(certificate.key.pkcs8_der().to_vec());
        (chain, PrivateKeyDer::Pkcs8(key))
    });
    let mut config = any_server::client_config(certificate)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
