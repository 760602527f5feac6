//! Where is looked for what an order hits: in the writer's transaction, or beside it.

use rusqlite::Connection;

use super::state::{Authorities, State};

/// Where it is looked.
pub(super) struct Look<'a> {
    pub(super) conn: &'a Connection,
    pub(super) authorities: &'a Authorities,
    /// The writer's memory, where it is at hand.
    pub(super) live: Option<&'a State>,
}
