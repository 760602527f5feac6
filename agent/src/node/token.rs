//! The projected token of the agent's pod.

use std::path::Path;

use signet_runtime::files;
use zeroize::Zeroizing;

/// Kubernetes' tokens have a few kilobytes; more is not read.
const MAX_TOKEN: u64 = 16 * 1024;

/// The token as it is now; why not, in words.
pub(super) fn read_token(path: &Path) -> Result<Zeroizing<String>, String> {
    let bytes = files::read(path, MAX_TOKEN).map_err(|error| error.to_string())?;
    let text = String::from_utf8(bytes).map_err(|error| error.utf8_error().to_string())?;
    let mut text = Zeroizing::new(text);
    // In place, so that there is one copy.
    let end = text.trim_end().len();
    text.truncate(end);
    let leading = text.len() - text.trim_start().len();
    text.drain(..leading);
    if text.is_empty() {
        return Err("the file is empty".to_owned());
    }
    Ok(text)
}
