//! What things are called in this trust domain.

/// Name of the trust domain.
pub(crate) const TRUST_DOMAIN: &str = "example.org";
/// Name of the cluster.
pub(crate) const CLUSTER: &str = "dev";
/// Name of the one node.
pub(crate) const NODE: &str = "laptop";
/// The demo pods: namespace, name, service account.
pub(crate) const PODS: [(&str, &str, &str); 3] = [
    ("shop", "frontend", "frontend"),
    ("shop", "backend", "backend"),
    ("bank", "ledger", "ledger"),
];
