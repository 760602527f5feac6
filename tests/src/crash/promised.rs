//! What a server has promised by its answers, and whether it is kept.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Error, Result, ensure};
use bytes::Bytes;
use signet_certs::authority::AuthorityCertificate;
use signet_certs::crl::Crl;
use signet_certs::serial::SerialNumber;
use signet_certs::verify::LeafInfo;
use signet_proto::admin::admin_client::AdminClient;
use signet_proto::admin::{
    AllowRequest, ListDenialsRequest, ListSvidsRequest, ShowAuthoritiesRequest, ShowCrlsRequest,
    StatusRequest,
};
use signet_testkit::check_der;
use tonic::transport::Channel;

use super::BroughtAbout;
use super::load::Found;
use crate::workload::Identity;

/// Rows that one answer may have.
const ROWS: u32 = 10_000;

/// Denials that go on over several lives.
const KEPT: usize = 3;

/// Everything that was answered so far, and what was seen.
#[derive(Default)]
pub(super) struct Promised {
    issued: BTreeMap<String, LeafInfo>,
    /// Serials by authority.
    revoked: BTreeMap<String, BTreeSet<SerialNumber>>,
    sequence: u64,
    /// The newest list of each authority.
    lists: BTreeMap<String, (Crl, Bytes)>,
    authorities: BTreeMap<String, AuthorityCertificate>,
    /// Those that were seen to sign.
    signed: BTreeSet<String>,
    /// Denials that stand, and whom they deny.
    denied: BTreeMap<String, String>,
    lifted: BTreeSet<String>,
    twice: Option<String>,
    despite: Option<LeafInfo>,
}

impl Promised {
    pub(super) fn take(&mut self, found: Vec<Found>) {
        // What is denied while somebody asks may come to either.
        let denied: BTreeSet<String> = self.denied.values().cloned().collect();
        for found in found {
            match found {
                Found::Issued(leaf) => {
                    if denied.contains(leaf.spiffe_id.as_str()) {
                        self.despite = Some(leaf.clone());
                    }
                    let serial = leaf.serial.to_string();
                    if self.issued.insert(serial.clone(), leaf).is_some() {
                        self.twice = Some(serial);
                    }
                }
                Found::Revoked(serial, authority) => {
                    if let Ok(serial) = serial.parse() {
                        self.revoked.entry(authority).or_default().insert(serial);
                    }
                }
                Found::Denied(denial, id) => drop(self.denied.insert(denial, id)),
                Found::Lifting(denial) => drop(self.denied.remove(&denial)),
                Found::Allowed(denial) => drop(self.lifted.insert(denial)),
            }
        }
    }

    pub(super) fn brought_about(&self) -> BroughtAbout {
        BroughtAbout {
            issued: self.issued.len(),
            revoked: self.revoked.values().map(BTreeSet::len).sum(),
            denied: self.lifted.len() + self.denied.len(),
            authorities: self.authorities.len(),
            signed: self.signed.len(),
        }
    }

    /// Whether a workload's lists name all that was revoked.
    pub(super) fn is_known_to(&self, identity: &Identity) -> bool {
        let lists = identity
            .authorities
            .iter()
            .filter_map(|authority| authority.crl.as_ref());
        let lists: BTreeMap<_, _> = lists
            .map(|list| (list.authority_id().to_string(), list))
            .collect();
        let names = |list: &Crl, serials: &BTreeSet<_>| serials.iter().all(|serial| list.is_revoked(serial));
        let mut revoked = self.revoked.iter();
        revoked.all(|(authority, serials)| lists.get(authority).is_some_and(|list| names(list, serials)))
    }

    /// Asks the server that is there again.
    ///
    /// # Errors
    /// What was promised and is not so.
    pub(super) async fn check(&mut self, admin: &mut AdminClient<Channel>, pods: &[String]) -> Result<()> {
        ensure!(self.twice.is_none(), "a serial was given twice: {:?}", self.twice);
        ensure!(
            self.despite.is_none(),
            "issued though it is denied: {:?}",
            self.despite
        );
        self.check_ledger(admin, pods).await?;
        self.check_denials(admin).await?;
        self.check_authorities(admin).await?;
        self.check_lists(admin).await
    }

    /// INV-4: what left the server is in its ledger, once.
    async fn check_ledger(&self, admin: &mut AdminClient<Channel>, pods: &[String]) -> Result<()> {
        let mut rows = BTreeMap::new();
        for pod in pods {
            let request = ListSvidsRequest {
                pod: format!("shop/{pod}"),
                limit: ROWS,
                ..ListSvidsRequest::default()
            };
            let listed = admin.list_svids(request).await?.into_inner();
            ensure!(!listed.truncated, "more certificates of {pod} than can be listed");
            for row in listed.svids {
                let twice = rows.insert(row.serial.clone(), row);
                ensure!(twice.is_none(), "a serial stands twice in the ledger: {twice:?}");
            }
        }
        for (serial, leaf) in &self.issued {
            let row = rows.get(serial);
            let row = row.with_context(|| format!("left the server and is not in its ledger: {leaf:?}"))?;
            ensure!(
                row.spiffe_id == leaf.spiffe_id.as_str() && row.authority_id == leaf.authority_id.to_string(),
                "the ledger has {row:?} of {leaf:?}"
            );
            let revoked = self.revoked.get(&row.authority_id);
            let was_revoked = revoked.is_some_and(|serials| serials.contains(&leaf.serial));
            ensure!(
                !was_revoked || row.revoked_unix_ms != 0,
                "the ledger has forgotten that {serial} is revoked"
            );
        }
        Ok(())
    }

    /// INV-11: what was denied is, and what was lifted is not. All but a few are lifted, those without an answer too: the load goes on.
    async fn check_denials(&mut self, admin: &mut AdminClient<Channel>) -> Result<()> {
        let standing = admin.list_denials(ListDenialsRequest::default()).await?;
        let standing = standing.into_inner().denials.into_iter().map(|denial| denial.id);
        let standing: BTreeSet<String> = standing.collect();
        let forgotten: Vec<_> = self.denied.keys().filter(|id| !standing.contains(*id)).collect();
        ensure!(forgotten.is_empty(), "denials are forgotten: {forgotten:?}");
        let revived: Vec<_> = self.lifted.intersection(&standing).collect();
        ensure!(
            revived.is_empty(),
            "denials stand though they were lifted: {revived:?}"
        );
        let kept: BTreeSet<String> = self.denied.keys().take(KEPT).cloned().collect();
        self.denied.retain(|denial, _| kept.contains(denial));
        for denial_id in standing.difference(&kept).cloned() {
            admin
                .allow(AllowRequest {
                    denial_id: denial_id.clone(),
                })
                .await?;
            self.lifted.insert(denial_id);
        }
        Ok(())
    }

    /// INV-3 of the bundle; an authority that was there stays, for nothing in these lives takes one away.
    async fn check_authorities(&mut self, admin: &mut AdminClient<Channel>) -> Result<()> {
        let sequence = admin.status(StatusRequest {}).await?.into_inner().sequence_number;
        ensure!(
            sequence >= self.sequence,
            "the bundle's number went back from {} to {sequence}",
            self.sequence
        );
        self.sequence = sequence;
        let shown = admin
            .show_authorities(ShowAuthoritiesRequest {})
            .await?
            .into_inner();
        let mut active = BTreeMap::<&str, u32>::new();
        for authority in shown
            .authorities
            .iter()
            .filter(|authority| authority.state == "active")
        {
            *active.entry(&authority.kind).or_default() += 1;
            self.signed.insert(authority.authority_id.clone());
        }
        ensure!(
            active.len() == 2 && active.values().all(|count| *count == 1),
            "not one authority of each kind is active: {active:?}"
        );
        let mut now = BTreeMap::new();
        for authority in &shown.authorities {
            let certificate = AuthorityCertificate::from_der(&authority.certificate)?;
            now.insert(authority.authority_id.clone(), certificate);
        }
        for signed in self.revoked.keys().chain(self.lists.keys()) {
            ensure!(now.contains_key(signed), "authority {signed} is gone");
        }
        self.authorities = now;
        Ok(())
    }

    /// INV-2, INV-3 and INV-15.
    async fn check_lists(&mut self, admin: &mut AdminClient<Channel>) -> Result<()> {
        let shown = admin.show_crls(ShowCrlsRequest {}).await?.into_inner();
        let mut lists = BTreeMap::new();
        for list in shown.crls {
            let issuer = self.authorities.get(&list.authority_id);
            let issuer = issuer.with_context(|| format!("a list of no authority: {}", list.authority_id))?;
            let crl = Crl::verify(&list.der, issuer)?;
            let before = self.lists.get(&list.authority_id).map(|(_, der)| der.as_ref());
            check_der(&list.der, issuer.der(), before).map_err(Error::msg)?;
            let twice = lists.insert(list.authority_id, (crl, list.der));
            ensure!(twice.is_none(), "an authority has two lists: {twice:?}");
        }
        for id in self.authorities.keys() {
            ensure!(lists.contains_key(id), "authority {id} has no list");
        }
        for (id, (before, bytes)) in &self.lists {
            let (crl, der) = lists
                .get(id)
                .with_context(|| format!("the list of {id} is gone"))?;
            ensure!(
                crl.number() > before.number() || der == bytes,
                "the list of {id} went from {} to {}, or is another of its number",
                before.number(),
                crl.number()
            );
        }
        for (id, serials) in &self.revoked {
            let list = lists.get(id).map(|(crl, _)| crl);
            for serial in serials {
                ensure!(
                    list.is_some_and(|list| list.is_revoked(serial)),
                    "{serial} was revoked and is not on the list of {id}"
                );
            }
        }
        self.lists = lists;
        Ok(())
    }
}
