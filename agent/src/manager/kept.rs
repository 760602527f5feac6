//! The workloads' SVIDs over a restart of the agent: written before anybody holds them, and taken over when they still
//! are what a peer would believe. A pod's lie beside its token in the folder of each of its volumes, a program's in the
//! agent's own folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use serde::{Deserialize, Serialize};
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;
use signet_certs::verify::{VerifyError, inspect_leaf};
use signet_runtime::files::private_dir;
use signet_runtime::pace::random_unit;

use super::admission::Admitted;
use super::receive::leaf_of;
use super::shelf::{KeptFiles, Shelf};
use crate::cache::{Cache, CacheState, Granted, Leaf, UnixFacts, WorkloadId};
use crate::kept::{self, Places, SvidHex, SvidText};
use crate::server_client::received::{Unusable, verified};
use crate::server_client::trust::TrustState;
use crate::time::Moment;

/// Folder of the programs' files, in the agent's.
const PROGRAMS: &str = "programs";

/// What a file has beside keys, chains and names, at most; and for each identity.
const ENVELOPE: usize = 512;

/// One workload's file.
#[derive(Deserialize, Serialize)]
struct File<'a> {
    /// Whose: a file that was moved is not taken over.
    owner: String,
    /// Default first.
    #[serde(borrow)]
    svids: Vec<Entry<'a>>,
}

#[derive(Deserialize, Serialize)]
struct Entry<'a> {
    #[serde(borrow)]
    svid: SvidText<'a>,
    #[serde(default)]
    hint: String,
    /// One that no server says asks again.
    #[serde(default)]
    policy_revision: u64,
}

/// What came of reading a workload's file.
enum Loaded {
    /// Leaves with hints, default first; none where nothing was kept or what was kept is no good.
    Leaves(Vec<(Leaf, SpiffeId, String)>),
    /// By the present clock they are no good, and that may be the clock's fault.
    NotNow,
}

/// Why a file is not taken over.
enum Faulty {
    /// It will not get better.
    ForGood(String),
    /// By this clock.
    ByDate(String),
}

/// See the module's documentation.
pub(super) struct Kept {
    /// Pods' may be kept, in the folders of their volumes.
    of_pods: bool,
    /// Where programs' are.
    programs: Option<PathBuf>,
    /// What is in the files.
    written: BTreeMap<WorkloadId, Written>,
    /// The server has been reached since the start, so a date is no mistake of this machine's clock.
    time_is_told: bool,
    rng: SystemRandom,
}

/// Nothing by default: the files are gone.
#[derive(Default, Eq, PartialEq)]
struct Written {
    leaves: Vec<(SerialNumber, String)>,
    files: usize,
}

impl Kept {
    pub(super) fn new(places: &Places) -> Self {
        Self {
            of_pods: places.volumes,
            programs: programs(places),
            written: BTreeMap::new(),
            time_is_told: false,
            rng: SystemRandom::new(),
        }
    }

    /// Takes over what was kept for workloads that are new to this run.
    pub(super) fn take_over(
        &self,
        admitted: &mut Admitted,
        cache: &mut Cache,
        trust: &TrustState,
        now: Moment,
    ) {
        let unread = admitted
            .iter_mut()
            .filter(|(_, shelf)| shelf.kept == KeptFiles::Unread);
        for (id, shelf) in unread {
            shelf.kept = match self.load(id, shelf, trust, now) {
                Loaded::Leaves(leaves) => {
                    cache.restore(id, leaves, now, random_unit());
                    KeptFiles::Done
                }
                Loaded::NotNow => KeptFiles::NotNow,
            };
        }
    }

    /// What was put off because of a date is looked at again, and what has ended is removed.
    pub(super) fn time_is_told(&mut self, admitted: &mut Admitted, now: Moment) {
        self.time_is_told = true;
        let mut known = Vec::new();
        for (id, shelf) in admitted.iter_mut() {
            if shelf.kept == KeptFiles::NotNow {
                shelf.kept = KeptFiles::Unread;
            }
            if shelf.is_process() {
                known.extend(self.files(id, shelf));
            }
        }
        self.sweep(&known, now);
    }

    /// Writes what is about to be published, or removes what may not be served any more; nothing where the files say it
    /// already.
    pub(super) fn follow(&mut self, id: &WorkloadId, shelf: &Shelf, state: &CacheState<'_>) {
        match state {
            CacheState::Ready(leaves) => self.write(id, shelf, leaves),
            CacheState::Pending { .. } | CacheState::Refused { .. } => {
                let nothing = Written::default();
                if self.written.insert(id.clone(), nothing) != Some(Written::default()) {
                    self.remove_files(id, shelf);
                }
            }
        }
    }

    /// Removes a workload's files.
    pub(super) fn remove(&mut self, id: &WorkloadId, shelf: &Shelf) {
        self.written.remove(id);
        self.remove_files(id, shelf);
    }

    fn remove_files(&self, id: &WorkloadId, shelf: &Shelf) {
        for path in self.files(id, shelf) {
            kept::remove(&path);
        }
    }

    fn write(&mut self, id: &WorkloadId, shelf: &Shelf, leaves: &[Granted<'_>]) {
        let files = self.files(id, shelf);
        let written = Written {
            leaves: leaves
                .iter()
                .map(|granted| (granted.leaf.serial, granted.hint.to_owned()))
                .collect(),
            files: files.len(),
        };
        if files.is_empty() || self.written.get(id) == Some(&written) {
            return;
        }
        let texts: Vec<_> = leaves
            .iter()
            .map(|Granted { leaf, .. }| SvidHex::new(&leaf.svid.chain, &leaf.svid.key.bytes()))
            .collect();
        let svids = leaves.iter().zip(&texts).map(|(granted, svid)| Entry {
            svid: svid.text(),
            hint: granted.hint.to_owned(),
            policy_revision: granted.leaf.policy_revision,
        });
        let file = File {
            owner: owner(id),
            svids: svids.collect(),
        };
        // A hint may be escaped.
        let size_of =
            |(svid, granted): (&SvidHex, &Granted<'_>)| svid.size() + 6 * granted.hint.len() + ENVELOPE;
        let size = texts.iter().zip(leaves).map(size_of).sum::<usize>() + 6 * file.owner.len() + ENVELOPE;
        for path in files {
            if let Err(error) = kept::write(&path, &file, size) {
                tracing::warn!(%error, "an X.509-SVID is not kept, after a restart it is asked for anew");
            }
        }
        self.written.insert(id.clone(), written);
    }

    /// What an earlier run wrote, if all of it fits: key and leaf, the workload, chain and lists of the trust that is held.
    /// What is no good for good is removed; by a date it is so only once the server has told the time.
    fn load(&self, id: &WorkloadId, shelf: &Shelf, trust: &TrustState, now: Moment) -> Loaded {
        let mut not_now = false;
        for path in self.files(id, shelf) {
            let Some(bytes) = kept::read(&path) else { continue };
            let problem = match self.read(&bytes, id, trust, now) {
                Ok(leaves) => return Loaded::Leaves(leaves),
                Err(Faulty::ByDate(problem)) if !self.time_is_told => {
                    not_now = true;
                    problem
                }
                Err(Faulty::ForGood(problem) | Faulty::ByDate(problem)) => {
                    kept::remove(&path);
                    problem
                }
            };
            tracing::warn!(path = %path.display(), %problem, "a kept X.509-SVID is not served");
        }
        if not_now {
            Loaded::NotNow
        } else {
            Loaded::Leaves(Vec::new())
        }
    }

    fn read(
        &self,
        bytes: &[u8],
        id: &WorkloadId,
        trust: &TrustState,
        now: Moment,
    ) -> Result<Vec<(Leaf, SpiffeId, String)>, Faulty> {
        let damaged = || Faulty::ForGood("the file is damaged".to_owned());
        let file: File<'_> = serde_json::from_slice(bytes).map_err(|_| damaged())?;
        if file.owner != owner(id) {
            return Err(Faulty::ForGood(format!("it is of {}", file.owner)));
        }
        let entry = |entry: Entry<'_>| {
            let chain = entry.svid.chain().ok_or_else(damaged)?;
            let key = entry.svid.key(&self.rng).ok_or_else(damaged)?;
            let first = chain.first().ok_or_else(damaged)?;
            let spiffe_id = inspect_leaf(first).map_err(|_| damaged())?.spiffe_id;
            let svid =
                verified(&chain, &spiffe_id, key, &trust.roots, now.date).map_err(|error| faulty(&error))?;
            Ok((leaf_of(svid, entry.policy_revision), spiffe_id, entry.hint))
        };
        file.svids.into_iter().map(entry).collect()
    }

    /// Removes the files of programs that have ended by now and that nobody has called for since the agent started.
    fn sweep(&self, known: &[PathBuf], now: Moment) {
        let Some(dir) = &self.programs else { return };
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if !known.contains(&path) && kept::read(&path).is_some_and(|bytes| has_ended(&bytes, now)) {
                kept::remove(&path);
            }
        }
    }

    /// Where a workload's SVIDs are.
    fn files(&self, id: &WorkloadId, shelf: &Shelf) -> Vec<PathBuf> {
        match id {
            WorkloadId::Pod(_) if self.of_pods => shelf
                .volumes()
                .iter()
                .map(|volume| volume.svid_file.clone())
                .collect(),
            WorkloadId::Pod(_) => Vec::new(),
            WorkloadId::Unix(facts) => {
                let dir = self.programs.as_ref();
                dir.map(|dir| dir.join(format!("{}.json", program(facts))))
                    .into_iter()
                    .collect()
            }
        }
    }
}

/// The folder of the programs' files, made where it is missing; `None` when they stay in memory.
fn programs(places: &Places) -> Option<PathBuf> {
    let dir = places.state_dir.as_ref()?.join(PROGRAMS);
    match private_dir(&dir) {
        Ok(()) => Some(dir),
        Err(error) => {
            tracing::warn!(%error, "X.509-SVIDs of programs are not kept");
            None
        }
    }
}

fn faulty(error: &Unusable) -> Faulty {
    let text = error.to_string();
    match error {
        Unusable::NotBelieved(VerifyError::Expired(_) | VerifyError::NotYetValid(_)) => Faulty::ByDate(text),
        _ => Faulty::ForGood(text),
    }
}

fn owner(id: &WorkloadId) -> String {
    match id {
        WorkloadId::Pod(uid) => format!("pod:{uid}"),
        WorkloadId::Unix(facts) => format!("program:{}", program(facts)),
    }
}

/// A name for everything that was attested about a program.
fn program(facts: &UnixFacts) -> String {
    let UnixFacts {
        uid,
        gid,
        path,
        sha256,
    } = facts;
    let sha256 = sha256.map(hex::encode);
    // Debug marks what is missing, and where a path ends.
    let text = format!("{uid} {gid} {sha256:?} {path:?}");
    hex::encode(&digest(&SHA256, text.as_bytes()).as_ref()[..16])
}

/// Damaged ones too: nobody could use them.
fn has_ended(bytes: &[u8], now: Moment) -> bool {
    let Ok(file) = serde_json::from_slice::<File<'_>>(bytes) else {
        return true;
    };
    let not_after = |entry: &Entry<'_>| {
        let chain = entry.svid.chain()?;
        Some(inspect_leaf(chain.first()?).ok()?.not_after)
    };
    !file.svids.iter().filter_map(not_after).any(|end| end > now.date)
}

#[cfg(test)]
mod tests;
