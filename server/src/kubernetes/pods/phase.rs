//! Where a pod is in its life.

use serde::Deserialize;

/// `status.phase` of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum PodPhase {
    /// Accepted, not all containers run yet.
    Pending,
    /// Running.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one of them badly.
    Failed,
    /// The node does not report, or the phase has a name that is new here.
    #[default]
    #[serde(other)]
    Unknown,
}

impl PodPhase {
    /// As Kubernetes writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}
