//! Revocations and denials.

use std::fmt;
use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::crl::RevocationReason;
use signet_certs::id::SpiffeId;
use signet_certs::serial::SerialNumber;

use super::denied::{DenialTarget, Named};
use super::room::{Class, weight};
use super::{ListRoom, RevokeError, StoreError, StoreFuture, WorkloadRef};
use crate::audit_event::{AuditAction, AuditEvent, RevokedSerial};

/// Longest comment and author of a revocation, in bytes.
pub(crate) const MAX_COMMENT_BYTES: usize = 1024;
/// Serials in one audit line; more go on in further lines.
const SERIALS_PER_LINE: usize = 100;

/// What a store keeps of what must no longer be believed or issued. Each change is one transaction, and excludes
/// [`Ledger::issue`](super::Ledger::issue) for the same identity.
pub(crate) trait Revocations: Send + Sync {
    /// Marks what the target names as revoked and denies it further certificates, whether or not the lists have room to
    /// name all of it. When this has returned, [`Ledger::issue`](super::Ledger::issue) records nothing for a denied target.
    /// Asking again for what is already revoked succeeds and returns it again, with its first date and reason kept; one that
    /// waits for a list enters by the better of its classes.
    fn revoke(&self, request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError>;

    /// What [`revoke`](Self::revoke) would do at this moment. Nothing is changed; the denial is that in force, if one is.
    fn would_revoke(&self, request: RevokeRequest) -> StoreFuture<'_, Revoked, RevokeError>;

    /// Lifts a denial. Never un-revokes a serial. [`StoreError::NotFound`] for an id that does not exist; a denial
    /// that was already lifted is returned as it is.
    fn allow(&self, denial_id: &str, by: &str, now: SystemTime) -> StoreFuture<'_, Denial>;

    /// Denials, oldest first: those in force at `earliest`, the earliest time it may be, or with `include_lifted` all that are
    /// still stored.
    fn denials(&self, include_lifted: bool, earliest: SystemTime) -> StoreFuture<'_, Vec<Denial>>;
}

/// What an admin wants revoked.
#[derive(Clone, Debug)]
pub(crate) struct RevokeRequest {
    /// What.
    pub target: RevokeTarget,
    /// Why, for the CRL.
    pub reason: RevocationReason,
    /// Why, for people. At most [`MAX_COMMENT_BYTES`].
    pub comment: String,
    /// Who says so. At most [`MAX_COMMENT_BYTES`].
    pub author: String,
    /// Whether anybody does.
    pub origin: Origin,
    /// Since when whoever holds the certificates is not to be believed, for the lists; not after `now`. What is revoked already keeps
    /// what was said first.
    pub invalid_since: Option<SystemTime>,
    /// Revoke what exists, deny nothing.
    pub keep_issuing: bool,
    /// When the denial ends by itself.
    pub denial_expires: Option<SystemTime>,
    /// What the lists have room for. What does not fit is revoked all the same and waits; see
    /// [`Lists::admit`](super::Lists::admit).
    pub rooms: Vec<ListRoom>,
    /// Time of the revocation.
    pub now: SystemTime,
    /// The earliest time it may be. What had ended by then is left out, and nothing else: what a clock that is ahead takes
    /// for ended is good again once it is right.
    pub earliest: SystemTime,
}

impl RevokeRequest {
    /// Whether its texts keep their bounds.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let message = if self.comment.len().max(self.author.len()) > MAX_COMMENT_BYTES {
            format!("comment or author of more than {MAX_COMMENT_BYTES} bytes")
        } else if self.invalid_since.is_some_and(|since| since > self.now) {
            "invalid since a time to come".to_owned()
        } else {
            return Ok(());
        };
        Err(StoreError::Invalid { message })
    }

    /// By which class its certificates enter the lists.
    pub(super) fn class(&self) -> Class {
        match (&self.target, self.reason) {
            _ if self.origin == Origin::Automatic => Class::Automatic,
            (RevokeTarget::Serial { .. }, _) | (_, RevocationReason::KeyCompromise) => Class::ByHand,
            (RevokeTarget::Pod(_) | RevokeTarget::PodsNamed(_) | RevokeTarget::Node(_), _) => Class::Workload,
            (RevokeTarget::SpiffeId(_) | RevokeTarget::Prefix(_) | RevokeTarget::IssuedBy(_), _) => {
                Class::Identity
            }
        }
    }

    /// The room that each of its certificates takes on a list.
    pub(super) fn weight(&self) -> usize {
        weight(self.invalid_since.is_some())
    }

    /// Who is denied from now on, if anybody is.
    pub(crate) fn denies(&self) -> Option<DenialTarget> {
        self.target.as_denial().filter(|_| !self.keep_issuing)
    }

    /// What the audit log says of it, once `serials` are newly revoked and `denial` is made.
    pub(super) fn audit_events(&self, serials: &[RevokedSerial], denial: Option<&Denial>) -> Vec<AuditEvent> {
        let event = |serials: &[RevokedSerial]| {
            let action = AuditAction::Revoked {
                target: self.target.to_string(),
                author: self.author.clone(),
                reason: self.reason,
                comment: self.comment.clone(),
                invalid_since: self.invalid_since,
                denial: denial.map(|denial| denial.id.clone()),
                denial_expires: denial.and_then(|denial| denial.expires),
                serials: serials.to_vec(),
            };
            AuditEvent::new(self.now, action)
        };
        if serials.is_empty() {
            return vec![event(&[])];
        }
        serials.chunks(SERIALS_PER_LINE).map(event).collect()
    }
}

/// Who orders a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An admin.
    Admin,
    /// The server itself: what it revokes never takes the room that is kept for admins.
    Automatic,
}

/// What a revocation is aimed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RevokeTarget {
    /// One certificate: its key leaked. Denies nothing, its holder gets another at once.
    Serial {
        /// The certificate's serial.
        serial: SerialNumber,
        /// Its authority. Needed for a serial that the ledger lacks; where the ledger has the serial under another
        /// authority, the named one counts.
        authority: Option<AuthorityId>,
        /// Until when the list must name a certificate that the ledger lacks: the end of its authority. Without it,
        /// as long as the authority signs lists.
        expires_by: Option<SystemTime>,
    },
    /// All certificates of an identity that may be unexpired, and it is denied from now on.
    SpiffeId(SpiffeId),
    /// The same of an identity and all below it, by whole path segments.
    Prefix(SpiffeId),
    /// The same of one pod, whatever its identities.
    Pod(Named),
    /// The same of one pod, and the certificates of those that had its name before: there may be as many as it was made anew.
    PodsNamed(Named),
    /// The same of a node: its agent, and all that runs on it.
    Node(Named),
    /// All that an authority has signed and that may be unexpired. Denies nothing: holders get others by another authority.
    IssuedBy(AuthorityId),
}

impl RevokeTarget {
    /// Whether it is aimed at the certificates of this one; never where it is aimed at a serial or an authority.
    pub(crate) fn hits(&self, workload: &WorkloadRef) -> bool {
        let named = |pod: &Named| {
            let name = format!("{}/{}", workload.pod_namespace, workload.pod_name);
            !workload.pod_uid.is_empty() && pod.cluster_uid == workload.cluster_uid && pod.name == name
        };
        let denied = self.as_denial();
        denied.is_some_and(|target| target.hits(&workload.into()))
            || matches!(self, Self::PodsNamed(pod) if named(pod))
    }

    /// Whom a denial that goes with it hits; `None` where none does.
    pub(crate) fn as_denial(&self) -> Option<DenialTarget> {
        match self {
            Self::Serial { .. } | Self::IssuedBy(_) => None,
            Self::SpiffeId(id) => Some(DenialTarget::Id(id.clone())),
            Self::Prefix(id) => Some(DenialTarget::Prefix(id.clone())),
            Self::Pod(pod) | Self::PodsNamed(pod) => Some(DenialTarget::Pod(pod.clone())),
            Self::Node(node) => Some(DenialTarget::Node(node.clone())),
        }
    }
}

impl fmt::Display for RevokeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial { serial, .. } => write!(f, "serial {serial}"),
            Self::SpiffeId(id) => id.fmt(f),
            Self::Prefix(id) => write!(f, "prefix {id}"),
            Self::Pod(pod) | Self::PodsNamed(pod) => write!(f, "pod {pod}"),
            Self::Node(node) => write!(f, "node {node}"),
            Self::IssuedBy(authority) => write!(f, "all issued by {authority}"),
        }
    }
}

/// What a revocation did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    /// What is revoked now, by serial: newly, or already before.
    pub svids: Vec<RevokedSvid>,
    /// How many of them were not before.
    pub fresh: usize,
    /// The denial, where one is in force.
    pub denial: Option<Denial>,
    /// A [`RevokedSet`](super::RevokedSet) and a CRL of this revision or later contain all of it that does not wait.
    pub revision: u64,
}

/// One revoked certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RevokedSvid {
    /// Its serial.
    pub serial: SerialNumber,
    /// Whose list names it.
    pub authority: AuthorityId,
    /// Its identity; `None` when the ledger lacks the certificate.
    pub spiffe_id: Option<SpiffeId>,
    /// When it ends; `None` when nobody knows, and its authority ends it.
    pub not_after: Option<SystemTime>,
    /// No list has room for it: readers believe it until it ends, or until others have.
    pub waits: bool,
}

/// A standing order not to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Short, unique for ever.
    pub id: String,
    /// What is denied.
    pub target: DenialTarget,
    /// Who ordered it.
    pub author: String,
    /// Why, for people.
    pub comment: String,
    /// Since when.
    pub created: SystemTime,
    /// When it ends by itself.
    pub expires: Option<SystemTime>,
    /// Whether somebody has lifted it.
    pub lifted: Option<Lifted>,
}

impl Denial {
    /// The denial that follows from a request. `number` is never used again in this store; the epoch keeps ids
    /// apart across a restore.
    pub(super) fn ordered(request: &RevokeRequest, target: DenialTarget, epoch: u64, number: i64) -> Self {
        Self {
            id: format!("d{epoch}-{number}"),
            target,
            author: request.author.clone(),
            comment: request.comment.clone(),
            created: request.now,
            expires: request.denial_expires,
            lifted: None,
        }
    }

    /// Whether it is in force, where it is not earlier than this.
    pub(crate) fn is_active(&self, earliest: SystemTime) -> bool {
        self.lifted.is_none() && self.expires.is_none_or(|end| earliest < end)
    }

    /// Whether it is in force and lasts as long as the request wants: then no other is needed.
    pub(super) fn satisfies(&self, request: &RevokeRequest) -> bool {
        let lasts = match (self.expires, request.denial_expires) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(has), Some(wants)) => has >= wants,
        };
        self.is_active(request.earliest) && lasts
    }

    /// Ends it by hand; what the audit log says of that.
    pub(super) fn lift(&mut self, by: &str, now: SystemTime) -> AuditEvent {
        self.lifted = Some(Lifted {
            at: now,
            by: by.to_owned(),
        });
        let action = AuditAction::Allowed {
            denial: self.id.clone(),
            target: self.target.to_string(),
            author: by.to_owned(),
        };
        AuditEvent::new(now, action)
    }
}

/// The end of a denial by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lifted {
    /// When.
    pub at: SystemTime,
    /// By whom.
    pub by: String,
}
