//! The projected token of the agent's pod.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

/// Kubernetes' tokens have a few kilobytes; more is not read.
const MAX_TOKEN: u64 = 16 * 1024;

/// The token as it is now; why not, in words.
pub(super) fn read_token(path: &Path) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN as usize + 1));
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_TOKEN + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_TOKEN {
        return Err(format!("the file is larger than {MAX_TOKEN} bytes"));
    }
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
