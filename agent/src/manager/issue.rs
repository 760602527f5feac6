//! One request to the server: fresh keys, CSRs, evidence checked once more, answers sorted by what follows from them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ring::rand::SystemRandom;
use signet_certs::csr::create_csr;
use signet_certs::signer::LeafKey;

use super::shelf::Proof;
use crate::cache::{Failure, UnixFacts, Verdict, Wanted, WorkloadId};
use crate::context::PeerProcess;
use crate::server_client::objections::Objections;
use crate::server_client::{
    IssueEvidence, IssueItem, IssueOutcome, IssuedChain, RefusalReason, ServerApi, ServerError,
};
use crate::unix::UnixAttestor;

/// The server refuses a whole request for one longer token; Kubernetes' have a few kilobytes.
const MAX_TOKEN: usize = 16 * 1024;

/// How long the processes behind a request are looked at again. Who keeps the agent busy with his own must not hold up the
/// others'.
const RECHECK_LIMIT: Duration = Duration::from_secs(5);

/// What a request needs.
#[derive(Clone)]
pub(super) struct Requester {
    pub(super) api: Arc<dyn ServerApi>,
    pub(super) objections: Arc<Objections>,
    pub(super) rng: SystemRandom,
    pub(super) unix: Option<UnixAttestor>,
}

/// What came of one wanted identity.
#[expect(
    clippy::large_enum_variant,
    reason = "most answers are the large one, and each is moved twice"
)]
pub(super) enum Answer {
    /// A chain, not verified yet, for the key that was made for it.
    Issued {
        chain: IssuedChain,
        key: LeafKey,
    },
    Refused(Verdict),
    Failed(Failure),
}

/// A prepared item with the key it certifies.
struct Prepared {
    wanted: Wanted,
    key: LeafKey,
    item: IssueItem,
}

impl Requester {
    /// Asks for all of them in one request. Every wanted identity gets exactly one answer.
    pub(super) async fn ask(self, batch: Vec<(Wanted, Option<Proof>)>) -> Vec<(Wanted, Answer)> {
        let mut answers = Vec::with_capacity(batch.len());
        let mut prepared = Vec::with_capacity(batch.len());
        let preparing = batch.into_iter().map(|(wanted, proof)| async {
            let outcome = self.prepare(&wanted, proof).await;
            (wanted, outcome)
        });
        for (wanted, outcome) in join_all(preparing).await {
            match outcome {
                Ok((key, item)) => prepared.push(Prepared { wanted, key, item }),
                Err(message) => answers.push((wanted, Answer::Failed(Failure::new(message)))),
            }
        }
        answers.extend(self.send(prepared).await);
        answers
    }

    /// A fresh key for each certificate (X5S-15); it stays in this process (invariant 5).
    async fn prepare(&self, wanted: &Wanted, proof: Option<Proof>) -> Result<(LeafKey, IssueItem), String> {
        let evidence = self.evidence(&wanted.workload, proof).await?;
        let key = LeafKey::generate(&self.rng).map_err(|error| format!("cannot make a key: {error}"))?;
        let csr = create_csr(&key).map_err(|error| format!("cannot make a certificate request: {error}"))?;
        Ok((
            key,
            IssueItem {
                csr,
                spiffe_id: wanted.spiffe_id.clone(),
                evidence,
            },
        ))
    }

    async fn evidence(&self, workload: &WorkloadId, proof: Option<Proof>) -> Result<IssueEvidence, String> {
        match proof {
            Some(Proof::Token(token)) if token.secret().len() > MAX_TOKEN => {
                Err(format!("the pod's token is longer than {MAX_TOKEN} bytes"))
            }
            Some(Proof::Token(token)) => Ok(IssueEvidence::PodToken {
                token,
                of_pod: match workload {
                    WorkloadId::Pod(uid) => uid.clone(),
                    WorkloadId::Unix(_) => String::new(),
                },
            }),
            Some(Proof::Process { facts, peers }) => {
                match tokio::time::timeout(RECHECK_LIMIT, self.recheck(&facts, &peers)).await {
                    Ok(outcome) => outcome.map(|()| IssueEvidence::Unix(facts)),
                    Err(_) => Err("the calling process could not be looked at in time".to_owned()),
                }
            }
            None => Err("nothing is left that proves the workload".to_owned()),
        }
    }

    /// One of the processes still is what was attested: not ended, and not running another program since (EP-26).
    async fn recheck(&self, facts: &UnixFacts, peers: &[PeerProcess]) -> Result<(), String> {
        let Some(unix) = &self.unix else {
            return Err("this agent attests no processes".to_owned());
        };
        let mut last = "the calling process has ended".to_owned();
        for peer in peers {
            match unix.attest(peer).await {
                Ok(now) if now == *facts => return Ok(()),
                Ok(_) => "the calling process runs another program by now".clone_into(&mut last),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn send(&self, prepared: Vec<Prepared>) -> Vec<(Wanted, Answer)> {
        if prepared.is_empty() {
            return Vec::new();
        }
        let mut items = Vec::with_capacity(prepared.len());
        let mut keys = Vec::with_capacity(prepared.len());
        for Prepared { wanted, key, item } in prepared {
            items.push(item);
            keys.push((wanted, key));
        }
        match self.api.issue(items).await {
            Ok(outcomes) if outcomes.len() == keys.len() => {
                let pairs = keys.into_iter().zip(outcomes);
                pairs
                    .map(|((wanted, key), outcome)| (wanted, answer(outcome, key)))
                    .collect()
            }
            Ok(_) => all_failed(
                keys,
                &Failure::new("the server's answer does not fit the question"),
            ),
            Err(error) => {
                self.objections.hear(&error);
                all_failed(keys, &failure_of(&error))
            }
        }
    }
}

fn all_failed(keys: Vec<(Wanted, LeafKey)>, failure: &Failure) -> Vec<(Wanted, Answer)> {
    keys.into_iter()
        .map(|(wanted, _)| (wanted, Answer::Failed(failure.clone())))
        .collect()
}

fn failure_of(error: &ServerError) -> Failure {
    let retry_after = match error {
        ServerError::Unavailable { retry_after, .. } => *retry_after,
        _ => None,
    };
    Failure {
        message: format!("the server did not issue: {error}"),
        retry_after,
    }
}

/// Only "no rule" and "denied" are verdicts. Refused evidence may be replaced by better evidence, a faulty request is
/// this agent's own fault, a budget frees itself: what is held stays meanwhile.
fn answer(outcome: IssueOutcome, key: LeafKey) -> Answer {
    match outcome {
        IssueOutcome::Issued(chain) => Answer::Issued { chain, key },
        IssueOutcome::Refused {
            reason: RefusalReason::NoMatch | RefusalReason::Denied,
            message,
            policy_revision,
            ..
        } => Answer::Refused(Verdict {
            message,
            policy_revision,
        }),
        IssueOutcome::Refused {
            message, retry_after, ..
        }
        | IssueOutcome::Unavailable { message, retry_after } => {
            Answer::Failed(Failure { message, retry_after })
        }
    }
}
