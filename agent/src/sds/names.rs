//! By which names secrets are asked for.

use crate::context::X509Context;

/// Most names of one stream. A proxy opens a stream for each secret.
pub(super) const MOST: usize = 100;

/// Longest name: that of a SPIFFE ID (ID-04).
pub(super) const LONGEST: usize = 2048;

/// Asks for everything that the workload may have.
pub(super) const EVERYTHING: &str = "*";

/// The names of secrets that are no SPIFFE IDs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Names {
    /// The default identity's certificate.
    pub(crate) default_svid: String,
    /// What verifies the workload's own trust domain.
    pub(crate) own_bundle: String,
    /// What verifies every trust domain that the workload knows.
    pub(crate) all_bundles: String,
}

impl Default for Names {
    /// Those of Istio and of most configurations that exist.
    fn default() -> Self {
        Self {
            default_svid: "default".to_owned(),
            own_bundle: "ROOTCA".to_owned(),
            all_bundles: "ALL".to_owned(),
        }
    }
}

/// What a name means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked<'a> {
    /// The default identity.
    DefaultSvid,
    /// The identity with this SPIFFE ID.
    Svid(&'a str),
    /// The bundle of the workload's own trust domain.
    OwnBundle,
    /// That of the trust domain with this name.
    Bundle(&'a str),
    /// Those of all trust domains.
    AllBundles,
}

impl Names {
    /// Whether a name asks for what verifies peers.
    pub(super) fn is_trust(&self, name: &str) -> bool {
        let meaning = self.meaning(name);
        meaning.is_some_and(|asked| !matches!(asked, Asked::DefaultSvid | Asked::Svid(_)))
    }

    /// What is asked for by `name`; None where that is nothing.
    pub(super) fn meaning<'a>(&self, name: &'a str) -> Option<Asked<'a>> {
        if name == self.default_svid {
            return Some(Asked::DefaultSvid);
        }
        if name == self.own_bundle {
            return Some(Asked::OwnBundle);
        }
        if name == self.all_bundles {
            return Some(Asked::AllBundles);
        }
        let id = name.strip_prefix("spiffe://")?;
        Some(if id.contains('/') {
            Asked::Svid(name)
        } else {
            Asked::Bundle(id)
        })
    }
}

/// Everything that a workload may have, each by one name: certificates, then bundles.
pub(super) fn all_of(context: &X509Context) -> Vec<String> {
    let svids = context.svids.iter().map(|svid| svid.spiffe_id.clone());
    // A domain without authorities has nothing to show, and nothing is waited for.
    let foreign = context
        .federated_bundles
        .iter()
        .filter(|(_, bundle)| !bundle.is_empty());
    let domains = std::iter::once(&context.trust_domain).chain(foreign.map(|(domain, _)| domain));
    let bundles = domains.map(|domain| format!("spiffe://{domain}"));
    svids.chain(bundles).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers SDS-02.
    #[test]
    fn names_mean_what_the_configuration_says_and_ids_what_they_are() {
        let names = Names {
            default_svid: "mine".to_owned(),
            ..Names::default()
        };
        for (name, meaning) in [
            ("mine", Some(Asked::DefaultSvid)),
            ("default", None),
            ("ROOTCA", Some(Asked::OwnBundle)),
            ("ALL", Some(Asked::AllBundles)),
            ("all", None),
            ("", None),
            ("spiffe://a.example", Some(Asked::Bundle("a.example"))),
            ("spiffe://a.example/b", Some(Asked::Svid("spiffe://a.example/b"))),
            ("SPIFFE://a.example/b", None),
        ] {
            assert_eq!(names.meaning(name), meaning, "{name}");
        }
    }
}
