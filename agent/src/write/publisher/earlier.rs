//! The set of an earlier run. Where it is whole and its certificate has not ended, whoever waits for files has them: a program need not be
//! down for as long as the agent is away.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use signet_certs::time::rfc3339;
use signet_runtime::clock::{Clock, SystemClock};
use signet_runtime::spans::spawn_blocking;
use tokio::time::timeout;

use super::{InPlace, LOOK, Publisher};
use crate::papers::{Paper, read};
use crate::write::{Plan, Which};

impl Publisher {
    /// Counts the set of an earlier run as files, until one of this run is there. Its reader may not have been told of it, so the next one is
    /// written and told whatever it holds.
    pub(super) async fn take_earlier(&mut self) {
        let plan = self.plan.clone();
        let looking = spawn_blocking(move || earlier(&plan, SystemClock.now()));
        let Ok(Ok(Some(not_after))) = timeout(LOOK, looking).await else {
            return;
        };
        let ends = rfc3339(not_after);
        tracing::info!(
            directory = %self.plan.directory.display(),
            not_after = ends,
            "there are files of an earlier run, and they are used until a set is written"
        );
        self.observed.set_found(not_after);
        self.standing
            .earlier
            .set(Some(format!("their certificate ends at {ends}")));
        self.is_begun = true;
        self.in_place = Some(InPlace {
            digest: None,
            not_after,
            whole: false,
        });
    }
}

/// The end of its certificate. Blocks for as long as the disk takes.
pub(super) fn earlier(plan: &Plan, now: SystemTime) -> Option<SystemTime> {
    let directory = plan.directory.as_path();
    let names = plan.layout.names();
    if !names.iter().all(|name| is_shown(directory, name)) {
        return None;
    }
    // Files of another layout, for which nobody asks any more, do not count.
    let mut found = read(directory).ok()?;
    found.retain(|found| names.iter().any(|name| found.file.ends_with(name)));
    let (mut ends, mut holders, mut keys) = (None, Vec::new(), Vec::new());
    for found in &found {
        match &found.paper {
            Paper::Svid(leaf, _) => {
                let is_other = matches!(&plan.which, Which::Id(id) if *id != leaf.spiffe_id);
                if is_other || leaf.not_after < now {
                    return None;
                }
                ends = Some(leaf.not_after);
                holders.push(leaf.spki_sha256);
            }
            Paper::Key { spki_sha256, .. } => keys.push(*spki_sha256),
            Paper::Unusable { .. } => return None,
            Paper::Authority(_) | Paper::Crl(..) => {}
        }
    }
    keys.iter().all(|key| holders.contains(key)).then_some(ends)?
}

/// Whether readers come by this name to a file of the set.
fn is_shown(directory: &Path, name: &str) -> bool {
    let path = directory.join(name);
    let leads = fs::read_link(&path).is_ok_and(|target| target == Path::new("..data").join(name));
    leads && fs::metadata(&path).is_ok_and(|found| found.is_file())
}
