//! How a connection of `signet.agent.v1` is opened: the version and the features of this build, and what two builds
//! agree on. Both sides ask this one table.

use super::ProtocolVersion;

/// The version that this build speaks.
pub const VERSION: ProtocolVersion = ProtocolVersion { major: 1, minor: 1 };

/// What a connection has only when both of its sides name it in their Hello.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Feature {
    /// Evidence of the kind `PodToken`.
    PodToken,
    /// Evidence of the kind `UnixWorkload`.
    Unix,
    /// Every connection begins with Hello, and what that agrees on holds for the connection and for no other.
    HelloFirst,
    /// A trust state names by their digests the lists that the agent reports as held.
    CrlDigest,
}

/// Every feature, its name on the wire, and the minor version that brought it.
const FEATURES: [(Feature, &str, u32); 4] = [
    (Feature::PodToken, "pod-token", 0),
    (Feature::Unix, "unix", 0),
    (Feature::HelloFirst, "hello-first", 1),
    (Feature::CrlDigest, "crl-digest", 1),
];

/// The names of all features of this build, for its Hello.
pub fn names() -> Vec<String> {
    FEATURES.iter().map(|(_, name, _)| (*name).to_owned()).collect()
}

/// What holds on one connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Agreement {
    minor: u32,
    features: Vec<Feature>,
}

impl Agreement {
    /// Of this build with a peer that said this: the lower minor version, and the features that both know. Minor
    /// version 0 had two features that its agents never named; they are agreed on with it.
    ///
    /// # Errors
    /// The peer's version, 0.0 when it named none, when its major version is another one.
    pub fn with(peer: Option<ProtocolVersion>, names: &[String]) -> Result<Self, ProtocolVersion> {
        let peer = peer.unwrap_or_default();
        if peer.major != VERSION.major {
            return Err(peer);
        }
        let minor = peer.minor.min(VERSION.minor);
        let known = |name: &str| minor == 0 || names.iter().any(|theirs| theirs == name);
        let agreed = FEATURES
            .iter()
            .filter(|(_, name, since)| *since <= minor && known(name));
        Ok(Self {
            minor,
            features: agreed.map(|(feature, ..)| *feature).collect(),
        })
    }

    /// The version that both sides speak.
    pub fn version(&self) -> ProtocolVersion {
        ProtocolVersion {
            major: VERSION.major,
            minor: self.minor,
        }
    }

    /// Whether both sides have it.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// The names of the features that both sides have.
    pub fn names(&self) -> Vec<String> {
        let agreed = FEATURES.iter().filter(|(feature, ..)| self.has(*feature));
        agreed.map(|(_, name, _)| (*name).to_owned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(minor: u32, named: &[&str]) -> (u32, Vec<String>) {
        let named: Vec<_> = named.iter().map(ToString::to_string).collect();
        let peer = ProtocolVersion {
            major: VERSION.major,
            minor,
        };
        let agreement = Agreement::with(Some(peer), &named).unwrap();
        (agreement.version().minor, agreement.names())
    }

    #[test]
    fn two_of_this_build_agree_on_everything() {
        let all = names();
        let named: Vec<_> = all.iter().map(String::as_str).collect();
        assert_eq!(agreed(VERSION.minor, &named), (VERSION.minor, all));
    }

    #[test]
    fn what_only_one_side_knows_does_not_hold() {
        assert_eq!(
            agreed(VERSION.minor + 1, &["unix", "of-tomorrow"]),
            (VERSION.minor, vec!["unix".to_owned()])
        );
        assert_eq!(agreed(VERSION.minor, &[]).1, Vec::<String>::new());
    }

    #[test]
    fn minor_version_0_has_its_two_features_named_or_not_and_never_a_newer_one() {
        let first = vec!["pod-token".to_owned(), "unix".to_owned()];
        assert_eq!(agreed(0, &[]), (0, first.clone()));
        assert_eq!(agreed(0, &["unix", "hello-first"]), (0, first));
    }

    #[test]
    fn another_major_version_or_none_is_no_agreement() {
        for peer in [None, Some(ProtocolVersion { major: 2, minor: 1 })] {
            assert_eq!(Agreement::with(peer, &names()), Err(peer.unwrap_or_default()));
        }
    }
}
