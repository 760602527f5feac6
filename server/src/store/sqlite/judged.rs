//! What is remembered of the last judgement over all that waits for room.

use crate::store::ListRoom;
use crate::store::room::Room;

/// How full the rooms were when all that waited was judged. While lists only grow nobody of those may enter, so what comes after that is judged
/// alone: a revocation costs the same however many wait.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) rooms: Vec<ListRoom>,
    pub(super) used: Vec<Room>,
}
