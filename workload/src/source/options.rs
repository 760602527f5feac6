//! How a source is set up.

use std::sync::Arc;
use std::time::Duration;

use signet_runtime::clock::{Clock, SystemClock};

use crate::endpoint::Endpoint;
use crate::message::Pick;
use crate::policy::{CrlPolicy, Federated};

/// How a source is set up.
///
/// ```
/// use std::time::Duration;
/// use signet_workload::{CrlPolicy, Options, Pick};
///
/// let options = Options {
///     pick: Pick::Hint("internal".into()),
///     wait: Some(Duration::from_secs(10)),
///     crls: CrlPolicy::Prefer,
///     ..Options::new("unix:///run/agent.sock".parse()?)
/// };
/// # assert_eq!(options.endpoint.to_string(), "unix:///run/agent.sock");
/// # Ok::<(), signet_workload::EndpointError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the Workload API is.
    pub endpoint: Endpoint,
    /// Which of several SVIDs is presented.
    pub pick: Pick,
    /// How long [`ready`](crate::X509Source::ready) waits for the first state; `None` for ever. The source itself goes on
    /// trying.
    pub wait: Option<Duration>,
    /// How often the agent is pinged, and how long it may leave a ping unanswered before it is called again; ten milliseconds at
    /// least.
    pub keep_alive: Duration,
    /// What happens to peers whose authority has no current CRL here.
    pub crls: CrlPolicy,
    /// Which trust domains count beside our own.
    pub federated: Federated,
    /// The wall time by which certificates and CRLs are judged.
    pub clock: Arc<dyn Clock>,
    /// First and longest wait before the agent is called again. Each wait is drawn between half of it and all of it.
    pub backoff: (Duration, Duration),
}

/// How often an agent is pinged where nobody says otherwise.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

impl Options {
    /// The usual setup: the default SVID, a minute's wait at the start, pings every ten seconds, CRLs required, all domains
    /// that the agent passes on, system time, waits from 500 ms to 30 s between calls.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            pick: Pick::Default,
            wait: Some(Duration::from_secs(60)),
            keep_alive: KEEP_ALIVE,
            crls: CrlPolicy::Require,
            federated: Federated::All,
            clock: Arc::new(SystemClock),
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
        }
    }
}
