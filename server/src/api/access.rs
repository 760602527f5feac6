//! Who may call what: one table, enforced in front of every handler and walked by a test for every kind of caller.

mod service;

use std::{sync::Arc, time::SystemTime};

use signet_certs::{
    dates::WhoseClock,
    tls::SharedRoots,
    verify::{VerifiedSvid, VerifyError},
};
use signet_proto::agent::objection;
use tonic::Status;

use super::{
    allowance::Allowances,
    listener::Peer,
    opening::{HELLO, Opening},
    refusals::{self, Doubt, Kind},
};
use crate::{
    agents::{Agents, STREAM_AFTER_END},
    audit::AuditLog,
    clock::TrustedClock,
    store::Standing,
};

/// What a caller must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone who reached the listener over TLS, with or without a certificate.
    Anyone,
    /// An agent whose certificate is worth [`Worth::All`].
    Agent,
    /// As [`Access::Agent`], and one that is worth [`Worth::Stream`]: only public objects are behind it (design §4).
    AgentEvenExpired,
    /// Whoever can open the admin socket; its file mode is the check.
    AdminSocket,
}

/// The call that reads the trust state once.
const GET_TRUST: &str = "/signet.agent.v1.Agent/GetTrust";

/// What must have happened on the connection before a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// Nothing: the call opens the connection, or does without what that agrees on.
    Nothing,
    /// Hello.
    Hello,
}

/// Every RPC of every listener: who may call it, and after what. A path that is not here is refused. Agents of protocol 1.0
/// attest without Hello (ADR 0007); the client of the admin socket comes with this very binary.
pub(crate) const ACCESS: &[(&str, Access, Before)] = {
    use Access::{AdminSocket, Agent, AgentEvenExpired, Anyone};
    use Before::{Hello, Nothing};
    &[
        (HELLO, Anyone, Nothing),
        ("/signet.agent.v1.Agent/AttestNode", Anyone, Nothing),
        ("/signet.agent.v1.Agent/IssueX509Svids", Agent, Hello),
        ("/signet.agent.v1.Agent/SyncTrust", AgentEvenExpired, Hello),
        (GET_TRUST, Anyone, Hello),
        ("/signet.admin.v1.Admin/Status", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ShowAuthorities", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/PrepareAuthority", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ActivateAuthority", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/RotateAuthority", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/StartEmergency", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/TaintAuthority", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/RevokeAuthority", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/WatchOperation", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ListSvids", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/Revoke", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/WatchRevocation", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/Allow", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ListDenials", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ShowCrls", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ListAgents", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ShowClock", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ConfirmClock", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ListRules", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ConfirmRules", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/SetRule", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/DeleteRule", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/TestRule", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ShowAudit", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/TailAudit", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ExplainPod", AdminSocket, Nothing),
        ("/signet.admin.v1.Admin/ExplainId", AdminSocket, Nothing),
    ]
};

/// What the caller turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallerKind<'a> {
    /// TLS without a client certificate.
    Anonymous,
    /// A verified control-plane certificate.
    Certificate {
        /// Whether its SPIFFE ID is an agent's.
        agent: bool,
        /// What it is worth.
        worth: Worth<'a>,
    },
    /// A process that opened the admin socket.
    AdminSocket,
}

/// What an agent's certificate is worth at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth<'a> {
    /// Everything: it is unexpired, on no list, its authority trusted, and the newest that its agent uses.
    All,
    /// The trust stream, on which nothing is taken in, and why no more: it has expired within the last seven days, or the
    /// ledger lacks it.
    Stream(&'a str),
    /// Nothing, and why: revoked, denied, superseded, its authority gone, or long over.
    Nothing(&'a str),
}

/// The decision for one call, on a connection with this opening.
///
/// # Errors
/// `UNIMPLEMENTED` for an unknown path, `FAILED_PRECONDITION` before Hello, `UNAUTHENTICATED` without a usable certificate,
/// `PERMISSION_DENIED` otherwise.
pub(crate) fn decide(path: &str, caller: CallerKind<'_>, opening: &Opening) -> Result<(), Status> {
    let Some((_, access, before)) = ACCESS.iter().find(|(known, ..)| *known == path) else {
        return Err(Status::unimplemented("no such method on this server"));
    };
    match (access, caller) {
        (Access::AdminSocket, CallerKind::AdminSocket) => {}
        (Access::AdminSocket, _) => {
            return Err(Status::permission_denied("served on the admin socket only"));
        }
        (_, CallerKind::AdminSocket) => {
            return Err(Status::permission_denied("not served on the admin socket"));
        }
        _ => {}
    }
    if *before == Before::Hello {
        opening.agreed()?;
    }
    match caller {
        CallerKind::AdminSocket => Ok(()),
        _ if *access == Access::Anyone => Ok(()),
        CallerKind::Anonymous => Err(Status::unauthenticated(
            "an agent certificate is required: attest the node first",
        )),
        CallerKind::Certificate { agent: false, .. } => {
            Err(Status::permission_denied("the certificate is not an agent's"))
        }
        CallerKind::Certificate {
            worth: Worth::Nothing(why),
            ..
        } => Err(refused(why)),
        CallerKind::Certificate {
            worth: Worth::Stream(why),
            ..
        } if *access == Access::Agent => Err(refused(why)),
        CallerKind::Certificate { .. } => Ok(()),
    }
}

fn refused(why: &str) -> Status {
    Status::unauthenticated(format!("the agent certificate is refused: {why}"))
}

/// What is known of a certificate before anybody says whether it may be used.
enum Judged {
    All,
    Stream(Doubt),
    Nothing(Doubt),
}

impl Judged {
    fn worth(&self) -> Worth<'_> {
        match self {
            Self::All => Worth::All,
            Self::Stream(doubt) => Worth::Stream(&doubt.why),
            Self::Nothing(doubt) => Worth::Nothing(&doubt.why),
        }
    }

    /// The kind of a refusal that rests on it.
    fn kind(&self) -> Kind {
        match self {
            Self::All => Kind::NotAllowed,
            Self::Stream(doubt) | Self::Nothing(doubt) => doubt.kind,
        }
    }
}

/// Marks a call of an agent whose certificate is worth the trust stream and no more.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest;

/// Puts [`decide`] in front of every service of one listener.
#[derive(Clone, Debug)]
pub(crate) struct AccessLayer {
    /// Trust in the control plane, for the check that each call repeats; `None` on the admin socket.
    pub control: Option<Arc<SharedRoots>>,
    /// What certificates of agents are worth.
    pub agents: Arc<Agents>,
    /// The server's time.
    pub clock: Arc<TrustedClock>,
    /// Where refused uses of certificates are told.
    pub audit: AuditLog,
    /// What callers have under way.
    pub allowances: Allowances,
}

impl AccessLayer {
    /// Lets a call in, as a guest where that is all that its certificate is worth.
    async fn check(&self, path: &str, peer: Option<Peer>) -> Result<Option<Guest>, Status> {
        if self.control.is_none() {
            decide(path, CallerKind::AdminSocket, &Opening::default())?;
            return Ok(None);
        }
        let Some(peer) = peer else {
            decide(path, CallerKind::Anonymous, &Opening::default())?;
            return Ok(None);
        };
        let Some(svid) = &peer.svid else {
            decide(path, CallerKind::Anonymous, &peer.opening)?;
            return Ok(None);
        };
        let judged = match access_of(path) {
            Some(access @ (Access::Agent | Access::AgentEvenExpired)) => self.judge(svid, access).await?,
            // Whoever it is may call, or nobody with a certificate may.
            Some(Access::Anyone | Access::AdminSocket) | None => Judged::All,
        };
        let caller = CallerKind::Certificate {
            agent: svid.spiffe_id().is_agent(),
            worth: judged.worth(),
        };
        decide(path, caller, &peer.opening).map_err(|status| {
            let (kind, now) = (judged.kind(), self.clock.now());
            self.audit
                .record(refusals::of_call(svid, method(path), kind, &status, now));
            match kind {
                // The agent takes another key on this word.
                Kind::Revoked => objection::revoked(status, &svid.serial().to_string()),
                _ => status,
            }
        })?;
        Ok(matches!(judged, Judged::Stream(_)).then_some(Guest))
    }

    /// Asks the lists, the clock, and the store: for every stream, and for other calls until it has said once that the
    /// certificate counts. What those calls ask for is judged by the store again.
    async fn judge(&self, svid: &VerifiedSvid, access: Access) -> Result<Judged, Status> {
        let Some(control) = &self.control else {
            return Ok(Judged::Nothing(Kind::NotVerified.doubt("nobody is trusted here")));
        };
        let time = self.clock.time();
        if time.is_over_for(svid.not_after(), STREAM_AFTER_END) {
            return Ok(Judged::Nothing(Kind::Expired.doubt(over(svid, time.now))));
        }
        if let Err(error) = svid.recheck_revocation(&control.load(), time.now) {
            let kind = match error {
                VerifyError::Revoked { .. } => Kind::Revoked,
                _ => Kind::NotVerified,
            };
            return Ok(Judged::Nothing(kind.doubt(error)));
        }
        let expired = svid.not_after() < time.now;
        if access == Access::Agent && !expired && self.agents.in_use(svid).is_some() {
            return Ok(Judged::All);
        }
        let presented = self.agents.present(svid, time.now, time.earliest).await;
        let presented = presented.map_err(|error| {
            tracing::error!(%error, "an agent's certificate could not be judged");
            Status::unavailable("the server cannot ask its store at the moment")
        })?;
        Ok(match presented.standing {
            Standing::Counts if expired => Judged::Stream(Kind::Expired.doubt(over(svid, time.now))),
            Standing::Counts => Judged::All,
            unknown @ Standing::Unknown => Judged::Stream(Kind::Unknown.doubt(unknown)),
            revoked @ Standing::Revoked => Judged::Nothing(Kind::Revoked.doubt(revoked)),
            lost @ Standing::Superseded => Judged::Nothing(Kind::Superseded.doubt(lost)),
            lost @ Standing::Denied(_) => Judged::Nothing(Kind::Denied.doubt(lost)),
        })
    }
}

/// What the holder of a certificate is told that has ended.
pub(super) fn over(svid: &VerifiedSvid, now: SystemTime) -> String {
    format!(
        "it {}; attest the node again",
        svid.over_at(now).by(WhoseClock::Server)
    )
}

/// The name of an RPC that the table has.
pub(super) fn method(path: &str) -> &'static str {
    let known = ACCESS.iter().find(|(known, ..)| *known == path);
    known
        .and_then(|(path, ..)| path.rsplit('/').next())
        .unwrap_or("unknown")
}

fn access_of(path: &str) -> Option<Access> {
    let line = ACCESS.iter().find(|(known, ..)| *known == path);
    line.map(|(_, access, _)| *access)
}

#[cfg(test)]
mod tests;
