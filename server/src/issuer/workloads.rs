//! Certificates for workloads: a batch of one requester goes through the steps together, and each item gets its own answer.

use bytes::Bytes;
use futures_util::future::join_all;
use signet_certs::{
    authority::{AuthorityKind, X509Authority},
    csr::{WorkloadPublicKey, verification_work, verify_csr},
    id::SpiffeId,
    svid::Purpose,
};

use super::{
    Answered, CallRefused, IssueItem, Issued, Issuer, NOT_RECORDED, NOT_SIGNED, NotIssued, Outcome, Refusal,
    RefusalReason,
    bounds::{Owners, Rests},
    decide::Decided,
    draft::{Draft, Order, record},
    lately::take_pod,
    no_draft, not_signed,
    parallel::parallel_map,
    record_refusal,
    recorded::RecordedLeaf,
    report_not_recorded,
    requester::Requester,
};
use crate::{
    key_manager::off_thread,
    rules::RuleSet,
    store::{Budget, IssueRefusal, Standing},
};

/// What an answer says beside the certificate.
struct Answer {
    hint: String,
    identities: Vec<(SpiffeId, String)>,
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
    /// Issues to the workloads that the requester can prove. Answers item by item, in order; a bad item spoils no other.
    ///
    /// # Errors
    /// [`CallRefused`]; nothing was issued.
    pub(crate) async fn issue(
        &self,
        requester: &dyn Requester,
        items: Vec<IssueItem>,
    ) -> Result<Answered, CallRefused> {
        let rules = self.parts.rules.borrow().clone();
        let outcomes = self.issue_by(&rules, requester, items).await?;
        // Decided by rules that were replaced meanwhile, and perhaps recorded after everybody was named to whom that matters.
        if let Some(agent) = requester.agent()
            && self.parts.rules.borrow().revision() != rules.revision()
        {
            self.parts.agents.agent_affected(agent.as_str());
        }
        Ok(Answered {
            outcomes,
            policy_revision: rules.revision(),
        })
    }

    /// By these rules, whatever becomes of them meanwhile.
    async fn issue_by(
        &self,
        rules: &RuleSet,
        requester: &dyn Requester,
        mut items: Vec<IssueItem>,
    ) -> Result<Vec<Outcome>, CallRefused> {
        let rest: Vec<_> = items.iter().map(|item| Rests::of(&item.evidence)).collect();
        let _under_way = self.bounds.enter(requester.name(), &rest)?;
        let nobody = |why| Ok(items.iter().map(|_| Err(NotIssued::unavailable(why))).collect());
        // API servers are not asked for what cannot be signed.
        if let Err(why) = self.active(AuthorityKind::X509) {
            return nobody(why);
        }
        let decisions = join_all(items.iter().map(|item| self.decide(rules, requester, item))).await;
        for (item, decision) in items.iter().zip(&decisions) {
            if let Err(NotIssued::Refused(_)) = decision {
                self.bounds.pay(requester.name(), Rests::of(&item.evidence), 1);
            }
        }
        let authority = match self.active(AuthorityKind::X509) {
            Ok(authority) => authority,
            Err(why) => return nobody(why),
        };
        let pods: Vec<_> = items.iter_mut().map(take_pod).collect();
        let drafts = self
            .draft_all((rules, &authority), requester, items, decisions)
            .await;
        let leaves = self.record_all(requester, drafts).await.inspect_err(|lost| {
            let refusal = Refusal::new(
                RefusalReason::NotAttested,
                IssueRefusal::Caller(lost.clone()).to_string(),
            );
            self.audit_refusal(requester.name().to_owned(), "issue", &refusal);
        });
        let leaves = leaves.map_err(CallRefused::Certificate)?;
        let outcomes = sign_all(authority, leaves).await;
        tracing::debug!(
            requester = requester.name(),
            items = outcomes.len(),
            revision = rules.revision(),
            "issued"
        );
        self.account(requester, &outcomes);
        let now = self.parts.clock.now();
        self.lately.note(requester.name(), pods, &outcomes, now);
        Ok(outcomes)
    }

    /// Checks the CSRs of what was decided and may be had, over all cores, and says what each leaf will be.
    async fn draft_all(
        &self,
        (rules, authority): (&RuleSet, &X509Authority),
        requester: &dyn Requester,
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
                    .and_then(|key| self.draft((rules, authority), requester, wanted, key));
                if let Err(NotIssued::Refused(_)) = draft {
                    self.bounds.pay(requester.name(), rests, work);
                }
                draft
            })
            .collect()
    }

    /// Nothing is checked for whom a budget is known to be used up.
    fn wanted(&self, decided: Decided, item: IssueItem) -> Result<Wanted, NotIssued> {
        let owners = Owners::of(&decided);
        if let Some(spent) = self.bounds.spent(&owners) {
            return Err(record_refusal(&IssueRefusal::Budget(spent)));
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
        (rules, authority): (&RuleSet, &X509Authority),
        requester: &dyn Requester,
        wanted: Wanted,
        key: WorkloadPublicKey,
    ) -> Result<(Draft, Answer), NotIssued> {
        let decided = wanted.decided;
        let identity = decided.identity;
        let mut profile = self.parts.profile.clone();
        profile.ttl = identity.ttl.unwrap_or(profile.ttl).min(self.parts.longest_ttl);
        let order = Order {
            purpose: Purpose::Workload,
            workload: decided.workload,
            dns_names: identity.dns_names,
            key,
            evidence: decided.evidence,
            token_jti: decided.token_jti,
            rule: identity.rule,
            policy_revision: rules.revision(),
            earliest: self.parts.clock.time().earliest,
            caller: requester.certificate(),
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
        .map_err(no_draft)
    }

    /// Records all drafts in one transaction. Items that are none keep their answers and places. An error when the requester
    /// may not ask any more: then nothing was recorded, for one certificate is behind all of them.
    async fn record_all(
        &self,
        requester: &dyn Requester,
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
                        self.bounds.pay(requester.name(), answer.rests, answer.work);
                        if let IssueRefusal::Budget(spent) = &refusal {
                            self.bounds.note(answer.owners, *spent);
                        }
                        Err(record_refusal(&refusal))
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
    let signer = authority.signer().clone();
    let sign = move |item: Result<(RecordedLeaf, Answer), NotIssued>| {
        let (leaf, answer) = item?;
        let leaf = leaf.sign(&authority).map_err(|error| not_signed(&error))?;
        Ok(Issued {
            spiffe_id: leaf.says.spiffe_id,
            chain: leaf.chain,
            hint: answer.hint,
            identities: answer.identities,
        })
    };
    let unsigned = || Err(NotIssued::unavailable(NOT_SIGNED));
    if signer.is_remote() {
        let count = leaves.len();
        let signed = off_thread(signer.as_ref(), true, move || {
            leaves.into_iter().map(sign).collect()
        });
        return signed
            .await
            .unwrap_or_else(|_| std::iter::repeat_with(unsigned).take(count).collect());
    }
    let outcomes = parallel_map(leaves, sign).await.into_iter();
    outcomes.map(|outcome| outcome.unwrap_or_else(unsigned)).collect()
}
