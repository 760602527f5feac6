//! How much the lists may take of what a workload receives, and how full they are.
//!
//! All lists of one kind reach a reader in one message together with the certificates of their authorities, so one room
//! holds them all.

use std::iter::repeat;

use signet_certs::authority::{AuthorityId, AuthorityKind};
use tokio::sync::watch;

use super::plan;
use crate::authority::{AuthorityView, ViewedAuthority};
use crate::store::ListRoom;

/// Kinds of authority; each has a room of its own.
const KINDS: [AuthorityKind; 2] = AuthorityKind::ALL;

/// How full the lists of one kind are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoomUse {
    /// Whose lists.
    pub kind: AuthorityKind,
    /// Entries of the published lists.
    pub entries: usize,
    /// Entries that fit.
    pub capacity: usize,
    /// Revoked, unexpired certificates that are on no list for want of room.
    pub waiting: usize,
}

impl RoomUse {
    /// Whether an admin should know: from a half on. Identities and what is revoked by the server itself do not get all
    /// of the room, and they are to be told of before their part of it is full.
    pub(crate) const fn is_alarming(&self) -> bool {
        self.waiting > 0 || self.entries.saturating_mul(2) >= self.capacity
    }
}

/// The room of each of [`KINDS`], in their order; `bytes` bounds certificates and lists of one kind.
pub(super) fn rooms(view: &AuthorityView, bytes: usize) -> Vec<ListRoom> {
    let room = |kind| {
        let authorities = &view.kind(kind).authorities;
        let certificates = authorities.iter().map(|viewed| viewed.certificate().der().len());
        ListRoom {
            authorities: authorities.iter().map(ViewedAuthority::id).collect(),
            capacity: plan::capacity(authorities.len(), certificates.sum(), bytes),
        }
    };
    KINDS.map(room).to_vec()
}

/// Shows how full the lists are.
pub(super) struct Rooms {
    shown: watch::Sender<Vec<RoomUse>>,
    /// How many wait, by kind, as last heard from the store.
    waiting: Vec<usize>,
}

impl Rooms {
    pub(super) const fn new(shown: watch::Sender<Vec<RoomUse>>) -> Self {
        Self {
            shown,
            waiting: Vec::new(),
        }
    }

    pub(super) fn set_waiting(&mut self, waiting: Vec<usize>) {
        self.waiting = waiting;
    }

    /// `entries` counts the published list of an authority. A room that fills up is said once, and once that it has emptied.
    pub(super) fn show(&self, rooms: &[ListRoom], entries: impl Fn(&AuthorityId) -> usize) {
        let waiting = self.waiting.iter().copied().chain(repeat(0));
        let uses = KINDS.into_iter().zip(rooms).zip(waiting);
        let uses: Vec<RoomUse> = uses
            .map(|((kind, room), waiting)| RoomUse {
                kind,
                entries: room.authorities.iter().map(&entries).sum(),
                capacity: room.capacity,
                waiting,
            })
            .collect();
        let before = self.shown.send_replace(uses.clone());
        let before = before.iter().map(RoomUse::is_alarming).chain(repeat(false));
        uses.iter()
            .zip(before)
            .for_each(|(usage, before)| tell(usage, before));
    }
}

fn tell(usage: &RoomUse, was_alarming: bool) {
    let RoomUse {
        kind,
        entries,
        capacity,
        waiting,
    } = usage;
    match (was_alarming, usage.is_alarming()) {
        (false, true) => tracing::warn!(
            %kind, entries, capacity, waiting,
            "the revocation lists are filling up; what does not fit waits until others have ended"
        ),
        (true, false) => tracing::info!(%kind, entries, capacity, "the revocation lists have room again"),
        _ => {}
    }
}
