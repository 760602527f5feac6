//! The configuration file as a source of rules.

use std::path::Path;

use signet_runtime::config::{Report, check, differing_keys};

use crate::{
    config::Config,
    live_rules::{Checked, Source},
};

/// Keys whose change needs no restart.
const LIVE: &[&str] = &["rules", "builtin_rule", "same_identity"];
/// So many faults of a file are told at once.
const MOST_TOLD: usize = 3;

/// The file in `path`, from which this configuration was read.
pub(super) fn source(path: &Path, config: &Config) -> Source {
    let (at_start, file) = (config.text.clone(), path.to_owned());
    Source::new(path, move |text| {
        let (config, report) = check::<Config>(&file, text).map_err(|report| told(&report))?;
        let changed = differing_keys(&at_start, text).into_iter();
        let is_live = |key: &str| LIVE.contains(&key);
        Ok(Checked {
            rules: config.rules.written(),
            restart_for: changed.filter(|key| !is_live(key)).collect(),
            warnings: report.warnings().iter().map(ToString::to_string).collect(),
        })
    })
}

fn told(report: &Report) -> String {
    let errors = report.errors();
    let mut told: Vec<_> = errors.iter().take(MOST_TOLD).map(ToString::to_string).collect();
    let more = errors.len().saturating_sub(MOST_TOLD);
    if more > 0 {
        told.push(format!("and {more} more: `signet-server validate` names them"));
    }
    told.join("; ")
}
