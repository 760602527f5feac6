//! What each caller may use of the agent, as docs/limits.md prints it. The rows stand beside the constants that they tell.

use signet_runtime::limits::Limit;

use crate::{manager, unix};

/// Every row, in the order of the page.
pub(crate) fn table() -> Vec<Limit> {
    let mut rows = unix::limits();
    rows.push(manager::limit());
    rows
}
