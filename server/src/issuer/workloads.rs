//! Certificates for workloads: a batch of an agent goes through the steps together, and each item gets its own answer.

use bytes::Bytes;
use futures_util::future::join_all;
use signet_certs::{
    authority::{AuthorityKind, X509Authority},
    csr::{WorkloadPublicKey, verification_work, verify_csr},
    id::SpiffeId,
    serial::SerialNumber,
    svid::Purpose,
};

use super::{
    CallRefused, IssueItem, Issued, Issuer, NOT_RECORDED, NOT_SIGNED, NotIssued, Outcome, RefusalReason,
    bounds::{Owners, Rests},
    decide::Decided,
    draft::{Draft, Order, record},
    not_signed,
    parallel::parallel_map,
    recorded::RecordedLeaf,
    report_not_recorded,
};
use crate::{
    attest::AgentIdentity,
    store::{Budget, IssueRefusal, Standing},
};

/// What an answer says beside the certificate.
struct Answer {
    hint: String,
    identities: Vec<(SpiffeId, String)>,
    policy_revision: u64,
    owners: Owners,
    rests: Rests,
    work: u32,
}

/// An item that may become a certificate, if its CSR is sound.
struct Wanted {
    decided: Decided,
    owners: Owners,
    csr: Bytes,
    rests: Rests,
    /// What checking the CSR costs.
    work: u32,
}

impl Issuer {
    /// Issues to workloads of the calling agent's node. Answers item by item, in order; a bad item spoils no other.
    /// `certificate` is the one by which the agent asks: it is judged again with the rows.
    ///
    /// # Errors
    /// [`CallRefused`]; nothing was issued.
    pub(crate) async fn issue(
        &self,
        agent: &AgentIdentity,
        certificate: SerialNumber,
        items: Vec<IssueItem>,
    ) -> Result<Vec<Outcome>, CallRefused> {
        let rest: Vec<_> = items.iter().map(|item| Rests::of(&item.evidence)).collect();
        let _under_way = self.bounds.enter(&agent.spiffe_id, &rest)?;
        let nobody = |why| Ok(items.iter().map(|_| Err(NotIssued::unavailable(why))).collect());
        // API servers are not asked for what cannot be signed.
        if let Err(why) = self.active(AuthorityKind::X509) {
            return nobody(why);
        }
        let decisions = join_all(items.iter().map(|item| self.decide(agent, item))).await;
        for (item, decision) in items.iter().zip(&decisions) {
            if let Err(NotIssued::Refused(_)) = decision {
                self.bounds.pay(&agent.spiffe_id, Rests::of(&item.evidence), 1);
            }
        }
        let authority = match self.active(AuthorityKind::X509) {
            Ok(authority) => authority,
            Err(why) => return nobody(why),
        };
        let drafts = self
            .draft_all(&authority, agent, certificate, items, decisions)
            .await;
        let leaves = self.record_all(agent, drafts).await.inspect_err(|lost| {
            let refusal = self.refusal(
                RefusalReason::NotAttested,
                IssueRefusal::Caller(lost.clone()).to_string(),
            );
            self.audit_refusal(agent.spiffe_id.to_string(), "issue", &refusal);
        });
        let leaves = leaves.map_err(CallRefused::Certificate)?;
        let outcomes = sign_all(authority, leaves).await;
        tracing::debug!(
            agent = %agent.spiffe_id,
            items = outcomes.len(),
            revision = self.parts.rules.revision(),
            "issued"
        );
        self.account(agent, &outcomes);
        Ok(outcomes)
    }

    /// Checks the CSRs of what was decided and may be had, over all cores, and says what each leaf will be.
    async fn draft_all(
        &self,
        authority: &X509Authority,
        agent: &AgentIdentity,
        certificate: SerialNumber,
        items: Vec<IssueItem>,
        decisions: Vec<Result<Decided, NotIssued>>,
    ) -> Vec<Result<(Draft, Answer), NotIssued>> {
        let wanted = items
            .into_iter()
            .zip(decisions)
            .map(|(item, decision)| decision.and_then(|decided| self.wanted(decided, item)))
            .collect();
        let verify = |wanted: Result<Wanted, NotIssued>| {
            wanted.map(|wanted| {
                let key = verify_csr(&wanted.csr);
                (wanted, key)
            })
        };
        let verified = parallel_map(wanted, verify).await.into_iter();
        let lost = || Err(NotIssued::unavailable("the server lost a request item"));
        verified
            .map(|item| {
                let (wanted, key) = item.unwrap_or_else(lost)?;
                let (rests, work) = (wanted.rests, wanted.work);
                let draft = self
                    .acceptable(key)
                    .and_then(|key| self.draft(authority, certificate, wanted, key));
                if let Err(NotIssued::Refused(_)) = draft {
                    self.bounds.pay(&agent.spiffe_id, rests, work);
                }
                draft
            })
            .collect()
    }

    /// Nothing is checked for whom a budget is known to be used up.
    fn wanted(&self, decided: Decided, item: IssueItem) -> Result<Wanted, NotIssued> {
        let owners = Owners::of(&decided);
        if let Some(spent) = self.bounds.spent(&owners) {
            return Err(self.record_refusal(&IssueRefusal::Budget(spent)));
        }
        Ok(Wanted {
            rests: Rests::of(&item.evidence),
            work: verification_work(&item.csr),
            decided,
            owners,
            csr: item.csr,
        })
    }

    fn draft(
        &self,
        authority: &X509Authority,
        certificate: SerialNumber,
        wanted: Wanted,
        key: WorkloadPublicKey,
    ) -> Result<(Draft, Answer), NotIssued> {
        let decided = wanted.decided;
        let identity = decided.identity;
        let mut profile = self.parts.profile.clone();
        profile.ttl = identity.ttl.unwrap_or(profile.ttl);
        let policy_revision = self.parts.rules.revision();
        let order = Order {
            purpose: Purpose::Workload,
            workload: decided.workload,
            dns_names: identity.dns_names,
            key,
            evidence: decided.evidence,
            token_jti: decided.token_jti,
            rule: identity.rule,
            policy_revision,
            earliest: self.parts.clock.time().earliest,
            caller: Some(certificate),
            attestation: None,
            outage: decided.outage,
            budget: Some(Budget {
                free: self.parts.max_live,
                share: decided.share,
            }),
        };
        let answer = Answer {
            hint: identity.hint,
            identities: decided.identities,
            policy_revision,
            owners: wanted.owners,
            rests: wanted.rests,
            work: wanted.work,
        };
        Draft::new(
            order,
            &profile,
            authority,
            &self.parts.rng,
            self.parts.clock.now(),
        )
        .map(|draft| (draft, answer))
        .map_err(|error| self.no_draft(error))
    }

    /// Records all drafts in one transaction. Items that are none keep their answers and places. An error when the agent may
    /// not ask any more: then nothing was recorded, for one certificate is behind all of them.
    async fn record_all(
        &self,
        agent: &AgentIdentity,
        items: Vec<Result<(Draft, Answer), NotIssued>>,
    ) -> Result<Vec<Result<(RecordedLeaf, Answer), NotIssued>>, Standing> {
        let mut drafts = Vec::with_capacity(items.len());
        let mut places: Vec<Result<Answer, NotIssued>> = Vec::with_capacity(items.len());
        for item in items {
            places.push(item.map(|(draft, answer)| {
                drafts.push(draft);
                answer
            }));
        }
        let recorded = record(self.parts.store.as_ref(), drafts, self.parts.clock.now()).await;
        let mut leaves = recorded
            .inspect_err(report_not_recorded)
            .unwrap_or_default()
            .into_iter()
            .map(|answer| match answer {
                Err(IssueRefusal::Caller(lost)) => Err(lost),
                answer => Ok(answer),
            })
            .collect::<Result<Vec<_>, Standing>>()?
            .into_iter();
        let leaves = places
            .into_iter()
            .map(|place| {
                let answer = place?;
                match leaves.next() {
                    Some(Ok(leaf)) => {
                        self.count_displaced(&leaf);
                        Ok((leaf, answer))
                    }
                    Some(Err(refusal)) => {
                        self.bounds.pay(&agent.spiffe_id, answer.rests, answer.work);
                        if let IssueRefusal::Budget(spent) = &refusal {
                            self.bounds.note(answer.owners, *spent);
                        }
                        Err(self.record_refusal(&refusal))
                    }
                    None => Err(NotIssued::unavailable(NOT_RECORDED)),
                }
            })
            .collect();
        Ok(leaves)
    }
}

/// Signs what was recorded, over all cores.
async fn sign_all(
    authority: X509Authority,
    leaves: Vec<Result<(RecordedLeaf, Answer), NotIssued>>,
) -> Vec<Outcome> {
    let sign = move |item: Result<(RecordedLeaf, Answer), NotIssued>| {
        let (leaf, answer) = item?;
        let leaf = leaf.sign(&authority).map_err(|error| not_signed(&error))?;
        Ok(Issued {
            spiffe_id: leaf.says.spiffe_id,
            leaf: leaf.der,
            hint: answer.hint,
            identities: answer.identities,
            policy_revision: answer.policy_revision,
        })
    };
    let outcomes = parallel_map(leaves, sign).await.into_iter();
    outcomes
        .map(|outcome| outcome.unwrap_or_else(|| Err(NotIssued::unavailable(NOT_SIGNED))))
        .collect()
}
