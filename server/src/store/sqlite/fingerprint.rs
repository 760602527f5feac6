//! Workloads by fingerprint: one comparison instead of eight strings, made on the caller's thread.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use ring::digest::{Context, SHA256};

use crate::store::WorkloadRef;

/// A salted SHA-256. Two workloads with one fingerprint do not occur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Hash for Fingerprint {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Already random; the salt keeps a client from choosing names that meet in one bucket.
        let (first, _) = self.0.split_at(8);
        state.write_u64(first.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
}

/// For maps whose keys are fingerprints.
pub(super) type ByFingerprint = BuildHasherDefault<Taken>;

/// Takes the one word of a [`Fingerprint`] as the hash.
#[derive(Default)]
pub(super) struct Taken(u64);

impl Hasher for Taken {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// Makes fingerprints. They mean something within one opening of the store only.
#[derive(Clone, Copy)]
pub(super) struct Fingerprints {
    salt: [u8; 16],
}

impl Fingerprints {
    /// With a random salt.
    pub(super) fn new(salt: [u8; 16]) -> Self {
        Self { salt }
    }

    /// Of all fields.
    pub(super) fn of(&self, workload: &WorkloadRef) -> Fingerprint {
        self.digest(&[
            &workload.cluster_uid,
            workload.spiffe_id.as_str(),
            &workload.pod_namespace,
            &workload.pod_name,
            &workload.pod_uid,
            &workload.node_name,
            &workload.node_uid,
            &workload.agent_id,
            &workload.process,
        ])
    }

    /// Of whose budget it uses: an identity of one pod, or of one process and node where there is no pod.
    pub(super) fn of_budget(&self, workload: &WorkloadRef) -> Fingerprint {
        let id = workload.spiffe_id.as_str();
        if workload.pod_uid.is_empty() {
            self.digest(&["node", id, &workload.node_uid, &workload.process])
        } else {
            self.digest(&["pod", id, &workload.pod_uid])
        }
    }

    fn digest(&self, fields: &[&str]) -> Fingerprint {
        let mut digest = Context::new(&SHA256);
        digest.update(&self.salt);
        for field in fields {
            // The length in front keeps neighbouring fields apart.
            digest.update(&(field.len() as u64).to_be_bytes());
            digest.update(field.as_bytes());
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest.finish().as_ref());
        Fingerprint(fingerprint)
    }
}
