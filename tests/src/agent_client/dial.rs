//! TLS to the server, by somebody who asks for no proof.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context, Result};
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, ring as provider, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::ClientCertificate;

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
    let provider = provider::default_provider();
    let verifier = AnyServer(provider.signature_verification_algorithms);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(certificate) => {
            let chain = certificate
                .chain
                .iter()
                .map(|der| CertificateDer::from(der.clone()));
            let key = PrivatePkcs8KeyDer::from(certificate.key.pkcs8_der().to_vec());
            builder.with_client_auth_cert(chain.collect(), PrivateKeyDer::Pkcs8(key))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Accepts any server: this client plays an attacker as often as an agent, and neither is what is tested through it.
#[derive(Debug)]
struct AnyServer(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
