//! A workload by our library at a TLS server that nobody here wrote. `tests/interop` sets what it reads: where that server is, which key exchange it
//! must have and whether that takes another round trip.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::env;

use rustls::HandshakeKind;
use signet_certs::tls::KeyExchange;
use signet_workload::{PeerRule, TrustDomain, X509Source};
use tokio::net::TcpStream;

#[tokio::test]
#[ignore = "needs a TLS server: `.ci/step interop` runs it against some"]
async fn a_workload_has_the_key_exchange_that_is_expected() {
    let set = |name| env::var(name).unwrap();
    let source = X509Source::from_env().await.unwrap();
    let anybody = PeerRule::TrustDomain(TrustDomain::parse("example.org").unwrap());
    let connector = source.connector(anybody).unwrap();
    let stream = TcpStream::connect(set("INTEROP_TLS_ADDRESS")).await.unwrap();
    let (stream, _) = connector.connect(stream).await.unwrap();
    let tls = stream.get_ref().1;
    let group = KeyExchange::of(tls).unwrap();
    assert_eq!(group.name(), set("INTEROP_TLS_GROUP"));
    let retried = tls.handshake_kind() == Some(HandshakeKind::FullWithHelloRetryRequest);
    assert_eq!(retried.to_string(), set("INTEROP_TLS_RETRIED"));
}
