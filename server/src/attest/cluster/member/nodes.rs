//! Nodes as the API server last showed them: a pod's token goes with the node it rests on.

use std::collections::HashMap;
use std::time::Duration;

use signet_runtime::clock::Clock as _;
use signet_runtime::keyed::Keyed;
use signet_runtime::sync::Mutex;
use tokio::sync::OnceCell;

use super::{Cluster, READING_NODE};
use crate::attest::AttestError;
use crate::attest::policy::{ReviewedToken, same_node};
use crate::kubernetes::api::CallError;
use crate::kubernetes::budget::Payer;
use crate::kubernetes::objects::node_uid;

/// How long one look at a node counts for its pods: one call in that time for each node that asks for some.
pub(super) const NODE_COUNTS_FOR: Duration = Duration::from_secs(300);
/// How long a node that nobody asks about is remembered.
const REMEMBERED_FOR: Duration = Duration::from_secs(3600);

/// What a read of a node found: its UID, if it is there.
type Read = OnceCell<Result<Option<String>, CallError>>;

/// UIDs of nodes by name. Moments are of elapsed time, which goes on while the machine is suspended.
#[derive(Default)]
pub(super) struct SeenNodes {
    /// With when they were read.
    seen: Mutex<HashMap<String, (String, Duration)>>,
    /// Reads that are under way for pods: all of a node's want the same when the last one counts no longer.
    reads: Keyed<String, Read>,
}

impl SeenNodes {
    fn is(&self, name: &str, uid: &str, within: Duration, now: Duration) -> bool {
        let seen = self.seen.lock();
        seen.get(name)
            .is_some_and(|(seen, at)| seen == uid && now.saturating_sub(*at) < within)
    }

    /// Whether it was read after this moment; at any time without one.
    fn is_after(&self, name: &str, uid: &str, moment: Option<Duration>) -> bool {
        let seen = self.seen.lock();
        seen.get(name)
            .is_some_and(|(seen, at)| seen == uid && moment.is_none_or(|moment| *at > moment))
    }

    fn saw(&self, name: &str, uid: Option<&str>, now: Duration) {
        let mut seen = self.seen.lock();
        match uid {
            Some(uid) => seen.insert(name.to_owned(), (uid.to_owned(), now)),
            None => seen.remove(name),
        };
    }

    /// Forgets nodes that nobody has asked about for long.
    pub(super) fn sweep(&self, now: Duration) {
        self.seen
            .lock()
            .retain(|_, (_, at)| now.saturating_sub(*at) < REMEMBERED_FOR);
    }
}

impl Cluster {
    /// Whether the token's node is still the one it names. In an outage, and where a call for it is not answered, it is if
    /// it was when last seen.
    pub(super) async fn still_has_node(&self, token: &ReviewedToken) -> Result<(), AttestError> {
        let (name, uid) = (&token.node_name, &token.node_uid);
        let is_away = self.reach.in_grace().is_some();
        let counts_for = if is_away { Duration::MAX } else { NODE_COUNTS_FOR };
        let seen = |within| self.nodes.is(name, uid, within, self.clock.elapsed());
        if seen(counts_for) {
            return Ok(());
        }
        let read = self.nodes.reads.take(name.clone());
        let live = read.get_or_init(|| self.read_for_pods(name, uid)).await;
        // The next question is asked afresh.
        read.end();
        match live {
            Ok(live) => Ok(same_node(token, live.as_deref())?),
            Err(CallError::Timeout | CallError::Transport(_)) if seen(Duration::MAX) => Ok(()),
            Err(error) => Err(self.api.unavailable(READING_NODE, error).into()),
        }
    }

    /// Whether a node was there at some time after this moment; asks at most once for each. `None` where that is not answered.
    /// The call is the server's own.
    pub(super) async fn has_node(&self, name: &str, uid: &str, after: Option<Duration>) -> Option<bool> {
        if self.nodes.is_after(name, uid, after) {
            return Some(true);
        }
        let live = self.node_uid(name).await.ok()?;
        Some(live.is_some_and(|live| live == uid))
    }

    async fn read_for_pods(&self, name: &str, uid: &str) -> Result<Option<String>, CallError> {
        let _under_way = self.api.admit(Payer::PodsOf(uid)).await?;
        self.node_uid(name).await
    }

    /// The UID that the node of this name has now. The call was admitted, or is the server's own.
    pub(super) async fn node_uid(&self, name: &str) -> Result<Option<String>, CallError> {
        let uid = node_uid(&self.api, name).await?;
        self.nodes.saw(name, uid.as_deref(), self.clock.elapsed());
        Ok(uid)
    }
}
