//! Verdicts as they may come out, for whoever shows them.

use super::verdict::{FaultKind, Faults, Place, ServerLog, Verdict};

fn log() -> ServerLog {
    ServerLog {
        server: "0f6cbe589d2c4b0c8a517d53a5b0c1a9".to_owned(),
        lines: 12_345,
        repeated: 6,
        first: 1,
        last: 12_345,
        first_time: "2026-11-21T08:00:00Z".to_owned(),
        last_time: "2026-11-27T09:00:00Z".to_owned(),
        first_boot: 1,
        last_boot: 3,
        heads: 2_204,
        vouched_to: Some(12_345),
        keys: vec!["5d".repeat(32)],
    }
}

fn at(file: &str, line: u64) -> Place {
    let file = file.to_owned();
    Place { file, line }
}

/// Nothing is wrong; the server was killed once.
pub(crate) fn whole() -> Verdict {
    Verdict {
        servers: vec![log()],
        halves: vec![at("audit.log.1", 6_120)],
        faults: Faults::default(),
    }
}

/// Somebody was there.
pub(crate) fn edited() -> Verdict {
    let mut faults = Faults::default();
    let removed =
        "sequences 5001 to 6118 are missing between audit.log.2:5417 and this line: lines were removed";
    faults.add(FaultKind::Removed, at("audit.log.1", 1), removed.to_owned());
    let changed = "sequence 9001 does not continue line 3066: one of the two was changed";
    faults.add(FaultKind::Changed, at("audit.log.1", 3_067), changed.to_owned());
    let log = ServerLog {
        lines: 11_227,
        repeated: 0,
        vouched_to: Some(12_340),
        ..log()
    };
    Verdict {
        servers: vec![log],
        halves: Vec::new(),
        faults,
    }
}
