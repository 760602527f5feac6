//! A server for tests: real certificates, scripted behaviour, every request remembered.

mod objects;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use signet_certs::authority::{AuthorityId, X509Authority};
use signet_certs::csr::verify_csr;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_runtime::clock::Clock;
use signet_runtime::sync::{Mutex, MutexGuard};
use signet_testkit::{DOMAIN, HOUR, authority, control_authority, id, leaf, trust_domain};
use tokio::sync::{mpsc, watch};

use self::objects::remember;
pub(crate) use self::objects::{offered, signer_of};
use super::trust::{FileWord, Said, TrustState, accept};
use super::{
    Answer, AttestedNode, IssueItem, IssueOutcome, IssuedChain, NodeAttestation, OfferedAuthority,
    RefusalReason, ServerApi, ServerError, TrustReport, TrustUpdate,
};

/// How the next requests are answered.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// With these identities, default first.
    Issue(Vec<SpiffeId>),
    /// Each item with this refusal.
    Refuse(RefusalReason, u64),
    /// Not at all.
    Away,
    /// The whole request: the agent's certificate is not accepted.
    Unauthenticated,
    /// With a certificate for another identity than the one it names.
    Mislabel,
    /// With a certificate for another key.
    OtherKey,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) spiffe_id: Option<SpiffeId>,
    pub(crate) evidence: String,
    pub(crate) key: [u8; 32],
    pub(crate) csr: Vec<u8>,
}

/// See the module's documentation.
pub(crate) struct FakeServer {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) ttl: Duration,
    /// How long an answer takes.
    pub(crate) latency: Duration,
    pub(crate) running: AtomicUsize,
    pub(crate) most_running: AtomicUsize,
    pub(crate) state: Mutex<State>,
}

/// An authority, what it revoked, and when.
type Of = (AuthorityId, Vec<SerialNumber>, SystemTime);

pub(crate) struct State {
    pub(crate) mode: Mode,
    pub(crate) signer: X509Authority,
    pub(crate) control: X509Authority,
    pub(crate) batches: Vec<Vec<Asked>>,
    pub(crate) node_tokens: Vec<String>,
    /// The key that each node token was first used with.
    pub(crate) node_keys: BTreeMap<String, [u8; 32]>,
    pub(crate) node_mode: VecDeque<ServerError>,
    /// Keys that must not be asked for again.
    pub(crate) node_revoked: Vec<[u8; 32]>,
    /// ID given to the node, if not the right one.
    pub(crate) node_id: Option<SpiffeId>,
    pub(crate) identity_changes: usize,
    /// Streams to hand out, oldest first.
    pub(crate) streams: VecDeque<mpsc::UnboundedReceiver<Result<TrustUpdate, ServerError>>>,
    pub(crate) streams_opened: usize,
    /// What the agent says in answer on the newest stream.
    pub(crate) answers: Option<mpsc::Receiver<Answer>>,
    /// What is public, if it can be read.
    pub(crate) public: Option<TrustUpdate>,
    pub(crate) reads: usize,
    /// Over whose connection all of it is said.
    pub(crate) said: Said,
    /// Of one number there is one list.
    offered: Vec<(Of, OfferedAuthority)>,
}

impl FakeServer {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            ttl: HOUR,
            latency: Duration::from_millis(10),
            running: AtomicUsize::new(0),
            most_running: AtomicUsize::new(0),
            state: Mutex::new(State {
                mode: Mode::Issue(vec![id("/ns/demo/sa/app")]),
                signer: authority(DOMAIN),
                control: control_authority(DOMAIN),
                batches: Vec::new(),
                node_tokens: Vec::new(),
                node_keys: BTreeMap::new(),
                node_mode: VecDeque::new(),
                node_revoked: Vec::new(),
                node_id: None,
                identity_changes: 0,
                streams: VecDeque::new(),
                streams_opened: 0,
                answers: None,
                public: None,
                reads: 0,
                said: Said::default(),
                offered: Vec::new(),
            }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().batches.concat()
    }

    /// A sender whose updates the next stream carries.
    pub(crate) fn next_stream(&self) -> mpsc::UnboundedSender<Result<TrustUpdate, ServerError>> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.state().streams.push_back(receiver);
        sender
    }

    /// An update with these workload authorities, of which the first one revoked these.
    pub(crate) fn update(
        &self,
        sequence_number: u64,
        x509: &[X509Authority],
        revoked: &[SerialNumber],
    ) -> TrustUpdate {
        let now = self.clock.now();
        let workload = |(index, authority): (usize, &X509Authority)| {
            let revoked = if index == 0 { revoked } else { &[] };
            self.state().offered(authority, revoked, now)
        };
        let said = self.state().said.clone();
        let control = self.state().control.clone();
        TrustUpdate {
            sequence_number,
            refresh_hint: Duration::from_secs(300),
            x509: x509.iter().enumerate().map(workload).collect(),
            control: vec![self.state().offered(&control, &[], now)],
            policy_revision: 1,
            affected: None,
            epoch: 1,
            clock: None,
            departed: Vec::new(),
            unreachable_since: None,
            not_issuing: Vec::new(),
            wanted: Vec::new(),
            said,
        }
    }

    /// The same, believed.
    pub(crate) fn trust(
        &self,
        sequence: u64,
        x509: &[X509Authority],
        revoked: &[SerialNumber],
    ) -> Arc<TrustState> {
        let update = self.update(sequence, x509, revoked);
        Arc::new(
            accept(
                None,
                &update,
                &trust_domain(),
                &FileWord::default(),
                self.clock.now(),
            )
            .unwrap()
            .state,
        )
    }

    fn answer(&self, item: &IssueItem) -> IssueOutcome {
        let now = self.clock.now();
        let state = self.state();
        match &state.mode {
            Mode::Issue(ids) => self.issue_one(&state.signer, item, ids, now),
            Mode::Mislabel => {
                let ids = [id("/ns/demo/sa/app")];
                let outcome = self.issue_one(&state.signer, item, &[id("/ns/demo/sa/other")], now);
                match outcome {
                    IssueOutcome::Issued(chain) => IssueOutcome::Issued(IssuedChain {
                        spiffe_id: ids[0].clone(),
                        identities: vec![(ids[0].clone(), String::new())],
                        ..chain
                    }),
                    other => other,
                }
            }
            Mode::OtherKey => {
                let ids = id("/ns/demo/sa/app");
                let svid = leaf(&state.signer, ids.as_str()).at(now).ttl(self.ttl).svid();
                IssueOutcome::Issued(IssuedChain {
                    spiffe_id: ids.clone(),
                    chain: svid.chain().iter().map(|der| der.clone().into()).collect(),
                    identities: vec![(ids, String::new())],
                    policy_revision: 1,
                })
            }
            Mode::Refuse(reason, policy_revision) => IssueOutcome::Refused {
                reason: *reason,
                message: format!("refused: {reason:?}"),
                policy_revision: *policy_revision,
                retry_after: None,
            },
            Mode::Away | Mode::Unauthenticated => unreachable!("answered for the whole request"),
        }
    }

    fn issue_one(
        &self,
        signer: &X509Authority,
        item: &IssueItem,
        ids: &[SpiffeId],
        now: SystemTime,
    ) -> IssueOutcome {
        let spiffe_id = item.spiffe_id.clone().unwrap_or_else(|| ids[0].clone());
        let key = verify_csr(&item.csr).unwrap();
        let leaf = leaf(signer, spiffe_id.as_str())
            .at(now)
            .ttl(self.ttl)
            .signed(&key);
        IssueOutcome::Issued(IssuedChain {
            spiffe_id,
            chain: vec![leaf.into()],
            identities: ids.iter().map(|id| (id.clone(), "hint".to_owned())).collect(),
            policy_revision: 1,
        })
    }

    async fn issue_all(&self, items: Vec<IssueItem>) -> Result<Vec<IssueOutcome>, ServerError> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        self.state().batches.push(items.iter().map(remember).collect());
        tokio::time::sleep(self.latency).await;
        self.running.fetch_sub(1, Ordering::SeqCst);
        let mode = self.state().mode.clone();
        match mode {
            Mode::Away => Err(ServerError::unavailable("the server is away")),
            Mode::Unauthenticated => Err(ServerError::Unauthenticated("who are you?".to_owned())),
            _ => Ok(items.iter().map(|item| self.answer(item)).collect()),
        }
    }

    fn attest(&self, request: &NodeAttestation) -> Result<AttestedNode, ServerError> {
        let now = self.clock.now();
        let mut state = self.state();
        state.node_tokens.push(request.token.as_str().to_owned());
        if let Some(error) = state.node_mode.pop_front() {
            return Err(error);
        }
        let spki = verify_csr(&request.csr).unwrap().spki_sha256();
        let first = *state
            .node_keys
            .entry(request.token.as_str().to_owned())
            .or_insert(spki);
        if first != spki {
            return Err(ServerError::Refused(
                "this node token was already used with another key".to_owned(),
            ));
        }
        if state.node_revoked.contains(&spki) {
            return Err(ServerError::Refused("this key is revoked".to_owned()));
        }
        let right = SpiffeId::agent(&trust_domain(), &request.cluster, "node-1").unwrap();
        let spiffe_id = state.node_id.clone().unwrap_or(right);
        let leaf = leaf(&state.control, spiffe_id.as_str())
            .at(now)
            .ttl(self.ttl)
            .signed(&verify_csr(&request.csr).unwrap());
        Ok(AttestedNode {
            chain: vec![leaf.into()],
            spiffe_id,
            node_name: "node-a".to_owned(),
            node_uid: "node-1".to_owned(),
            control_authorities: vec![state.control.certificate().der().to_vec().into()],
            said: state.said.clone(),
        })
    }
}

impl ServerApi for FakeServer {
    fn attest_node(&self, request: NodeAttestation) -> BoxFuture<'_, Result<AttestedNode, ServerError>> {
        Box::pin(async move { self.attest(&request) })
    }

    fn issue(&self, items: Vec<IssueItem>) -> BoxFuture<'_, Result<Vec<IssueOutcome>, ServerError>> {
        Box::pin(self.issue_all(items))
    }

    fn sync_trust(
        &self,
        _reports: watch::Receiver<TrustReport>,
        answers: mpsc::Receiver<Answer>,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<TrustUpdate, ServerError>>, ServerError>> {
        let next = self.state().streams.pop_front();
        self.state().streams_opened += 1;
        self.state().answers = Some(answers);
        Box::pin(async move {
            let receiver = next.ok_or_else(|| ServerError::unavailable("no stream"))?;
            Ok(stream::unfold(receiver, |mut receiver| async {
                Some((receiver.recv().await?, receiver))
            })
            .boxed())
        })
    }

    fn read_trust(&self) -> BoxFuture<'_, Result<TrustUpdate, ServerError>> {
        let mut state = self.state();
        state.reads += 1;
        let public = state.public.clone();
        Box::pin(async move { public.ok_or_else(|| ServerError::unavailable("nothing to read")) })
    }

    fn identity_changed(&self, _: SerialNumber) {
        self.state().identity_changes += 1;
    }
}
