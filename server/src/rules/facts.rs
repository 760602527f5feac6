//! What is known of a workload when rules are asked.

use hex::FromHex as _;

use super::Evidence;
use crate::attest::AttestedPod;

const PATH: &str = " path=";
const SHA256: &str = " sha256=";

/// What attestation proved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Facts<'a> {
    /// A pod, by its own token.
    Pod(&'a AttestedPod),
    /// A process on a node, outside pods.
    Unix(&'a UnixFacts),
}

/// What an agent saw of a process on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnixFacts {
    /// Cluster of the agent.
    pub cluster: String,
    /// Node of the agent.
    pub node_name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Path of the executable, where it could be read.
    pub path: Option<String>,
    /// SHA-256 of the executable, where it could be read.
    pub sha256: Option<[u8; 32]>,
}

impl UnixFacts {
    /// As one text, without cluster and node: what the ledger keeps of a process.
    pub(crate) fn process(&self) -> String {
        let mut process = format!("uid={} gid={}", self.uid, self.gid);
        if let Some(path) = &self.path {
            process.push_str(PATH);
            process.push_str(path);
        }
        if let Some(sha256) = &self.sha256 {
            process.push_str(SHA256);
            process.push_str(&hex::encode(sha256));
        }
        process
    }

    /// From such a text; `None` where it is none. A path that ends like a hash is taken for one with it.
    pub(crate) fn of_process(cluster: &str, node_name: &str, process: &str) -> Option<Self> {
        let (uid, rest) = process.strip_prefix("uid=")?.split_once(" gid=")?;
        let (rest, sha256) = match rest.rsplit_once(SHA256) {
            Some((before, digits)) => match <[u8; 32]>::from_hex(digits) {
                Ok(sha256) => (before, Some(sha256)),
                Err(_) => (rest, None),
            },
            None => (rest, None),
        };
        let (gid, path) = match rest.split_once(PATH) {
            Some((gid, path)) => (gid, Some(path.to_owned())),
            None => (rest, None),
        };
        Some(Self {
            cluster: cluster.to_owned(),
            node_name: node_name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            path,
            sha256,
        })
    }
}

/// For people: which workload.
impl std::fmt::Display for Facts<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Pod(pod) => write!(formatter, "pod {}/{}", pod.namespace, pod.pod_name),
            Self::Unix(unix) => write!(formatter, "uid {} on {}", unix.uid, unix.node_name),
        }
    }
}

impl Facts<'_> {
    pub(super) fn evidence(&self) -> Evidence {
        match self {
            Self::Pod(_) => Evidence::PodToken,
            Self::Unix(_) => Evidence::Unix,
        }
    }

    pub(super) fn cluster(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.cluster,
            Self::Unix(unix) => &unix.cluster,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::UnixFacts;

    proptest! {
        #[test]
        fn a_process_is_read_as_it_was_written(
            uid: u32,
            gid: u32,
            path in proptest::option::of("/[a-z =/]{0,20}"),
            sha256: Option<[u8; 32]>,
        ) {
            let facts = UnixFacts {
                cluster: "dev".to_owned(),
                node_name: "node-a".to_owned(),
                uid,
                gid,
                path,
                sha256,
            };
            prop_assert_eq!(UnixFacts::of_process("dev", "node-a", &facts.process()), Some(facts));
        }
    }

    #[test]
    fn what_is_no_process_is_none() {
        for text in ["", "uid=1", "uid=x gid=1", "gid=1 uid=1", "uid=1 gid="] {
            assert_eq!(UnixFacts::of_process("dev", "node-a", text), None, "{text}");
        }
    }
}
