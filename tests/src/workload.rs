//! A workload that speaks the Workload API with nothing but the generated stubs, and checks what it gets as a peer would.

use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use signet_certs::{
    authority::AuthorityCertificate,
    crl::Crl,
    id::{SpiffeId, TrustDomain},
    signer::LeafKey,
    svid::X509Svid,
    verify::{Role, TrustRoots, TrustedAuthority, VerifiedSvid, verify_chain},
};
use signet_proto::workload::{
    X509svidRequest, X509svidResponse, spiffe_workload_api_client::SpiffeWorkloadApiClient,
};
use signet_runtime::clock::{Clock, SystemClock};
use signet_testkit::check_der;
use tokio::net::UnixStream;
use tonic::{Request, Status, Streaming, metadata::MetadataValue, transport::Channel};

use crate::{uds, wait};

/// A Workload API client on one socket.
#[derive(Clone)]
pub struct WorkloadClient(SpiffeWorkloadApiClient<Channel>);

impl WorkloadClient {
    /// For the socket at `path`, connected when the first call needs it.
    pub fn new(path: &Path) -> Self {
        Self::of(uds::connect_lazy(path))
    }

    /// Over a connection, whoever has made it.
    pub fn over(stream: UnixStream) -> Self {
        Self::of(uds::over(stream))
    }

    fn of(channel: Channel) -> Self {
        Self(SpiffeWorkloadApiClient::new(channel).max_decoding_message_size(64 << 20))
    }

    /// The stub, for calls that a well-behaved client would not make.
    pub fn stub(&self) -> SpiffeWorkloadApiClient<Channel> {
        self.0.clone()
    }

    /// Opens the watch of X.509-SVIDs.
    ///
    /// # Errors
    /// What the agent answers.
    pub async fn watch(&self) -> Result<Updates, Status> {
        let request = with_header(X509svidRequest {});
        let response = self.0.clone().fetch_x509svid(request).await?;
        Ok(Updates(response.into_inner()))
    }

    /// The first answer of a watch that is closed again.
    ///
    /// # Errors
    /// What the agent answers.
    pub async fn fetch(&self) -> Result<Identity, Status> {
        self.watch().await?.next().await
    }

    /// Asks again until there is an identity: an agent that has just started has none yet.
    pub async fn identity(&self) -> Identity {
        wait::eventually("an identity on the workload's socket", async || {
            self.fetch().await.ok()
        })
        .await
    }
}

/// The header that every call of the Workload API must carry.
pub fn with_header<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("workload.spiffe.io", MetadataValue::from_static("true"));
    request
}

/// The agent's answers on one stream.
pub struct Updates(Streaming<X509svidResponse>);

impl Updates {
    /// The next answer.
    ///
    /// # Errors
    /// The status the stream ended with; `Unknown` for an end without one, or an answer that makes no sense.
    pub async fn next(&mut self) -> Result<Identity, Status> {
        match self.0.message().await? {
            Some(message) => Identity::read(&message).map_err(|error| Status::unknown(format!("{error:#}"))),
            None => Err(Status::unknown("the stream ended with OK")),
        }
    }

    /// Reads on until an answer fits.
    ///
    /// # Panics
    /// When the stream ends before, or [`wait::PATIENCE`] does.
    pub async fn until(&mut self, what: &str, fits: impl Fn(&Identity) -> bool) -> Identity {
        let reading = async {
            loop {
                match self.next().await {
                    Ok(identity) if fits(&identity) => return identity,
                    Ok(_) => {}
                    Err(status) => panic!("the stream ended before {what}: {status:?}"),
                }
            }
        };
        match tokio::time::timeout(wait::PATIENCE, reading).await {
            Ok(identity) => identity,
            Err(_) => panic!("waited {} s in vain for {what}", wait::PATIENCE.as_secs()),
        }
    }
}

/// What a workload holds: its default SVID and what it needs to judge others.
pub struct Identity {
    /// The default SVID with its key.
    pub svid: X509Svid,
    /// IDs of all SVIDs, default first.
    pub ids: Vec<SpiffeId>,
    /// Authorities of the trust domain with their lists.
    pub authorities: Vec<TrustedAuthority>,
}

impl Identity {
    fn read(message: &X509svidResponse) -> Result<Self> {
        let first = message.svids.first().context("an answer without an SVID")?;
        let pkcs8 = first.x509_svid_key.to_vec().into();
        let key = LeafKey::from_pkcs8(pkcs8, &ring::rand::SystemRandom::new())?;
        let svid = X509Svid::new(split_der(&first.x509_svid)?, key)?;
        ensure!(
            svid.spiffe_id().as_str() == first.spiffe_id,
            "the leaf names another ID than the answer"
        );
        let ids = message.svids.iter().map(|svid| SpiffeId::parse(&svid.spiffe_id));
        let mut authorities = Vec::new();
        for der in split_der(&first.bundle)? {
            let certificate = AuthorityCertificate::from_der(&der)?;
            let lists = message
                .crl
                .iter()
                .filter_map(|crl| Crl::verify(crl, &certificate).ok());
            let mut lists: Vec<Crl> = lists.collect();
            for list in &lists {
                check_der(list.der(), certificate.der(), None).map_err(Error::msg)?;
            }
            ensure!(lists.len() <= 1, "two revocation lists of one authority");
            authorities.push(TrustedAuthority {
                crl: lists.pop(),
                certificate,
            });
        }
        ensure!(
            authorities.len() == message.crl.len(),
            "a revocation list of nobody in the bundle"
        );
        Ok(Self {
            ids: ids.collect::<Result<_, _>>()?,
            svid,
            authorities,
        })
    }

    /// Roots as this workload would use them to judge a peer.
    pub fn roots(&self) -> TrustRoots {
        let domain: TrustDomain = self.svid.spiffe_id().trust_domain();
        TrustRoots::new(vec![(domain, self.authorities.clone())])
    }

    /// Judges a peer's SVID now, as a server would judge its client.
    ///
    /// # Errors
    /// Why the peer is refused.
    pub fn judge(&self, peer: &X509Svid) -> Result<VerifiedSvid> {
        let chain: Vec<_> = peer.chain().iter().map(|der| der.as_slice().into()).collect();
        Ok(verify_chain(
            &chain,
            Role::Client,
            &self.roots(),
            SystemClock.now(),
        )?)
    }

    /// Whether the lists say that this serial is revoked.
    pub fn sees_revoked(&self, peer: &X509Svid) -> bool {
        let lists = self
            .authorities
            .iter()
            .filter_map(|authority| authority.crl.as_ref());
        lists
            .filter(|crl| crl.authority_id() == peer.authority_id())
            .any(|crl| crl.is_revoked(&peer.serial()))
    }
}

/// Splits concatenated DER values.
///
/// # Errors
/// When the bytes are no sequence of complete DER SEQUENCEs.
pub fn split_der(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (header, length) = match bytes {
            [0x30, short @ 0..=0x7f, ..] => (2, usize::from(*short)),
            [0x30, 0x81, a, ..] => (3, usize::from(*a)),
            [0x30, 0x82, a, b, ..] => (4, usize::from(*a) << 8 | usize::from(*b)),
            _ => bail!("no DER SEQUENCE of less than 64 KiB"),
        };
        ensure!(bytes.len() >= header + length, "a truncated DER SEQUENCE");
        let (part, rest) = bytes.split_at(header + length);
        parts.push(part.to_vec());
        bytes = rest;
    }
    Ok(parts)
}
