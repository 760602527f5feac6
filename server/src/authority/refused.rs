//! Why the machine refuses what it is told or asked for.

use std::time::SystemTime;

use signet_certs::authority::AuthorityId;
use signet_certs::signer::SignatureAlgorithm;
use signet_certs::time::rfc3339;

/// Why an event is refused. The state stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// There is already one.
    #[error("an authority is already prepared: {0}")]
    AlreadyPrepared(AuthorityId),
    /// The successor that is under way signs with something else than what is asked for.
    #[error(
        "the successor that is under way, {prepared}, signs with {algorithm}: ask again once that is over (`ca show`)"
    )]
    OtherAlgorithm {
        /// Which.
        prepared: AuthorityId,
        /// What it signs with.
        algorithm: SignatureAlgorithm,
    },
    /// The event names an authority that is not Old, or none of this set.
    #[error("authority {0} is not an old one of this set")]
    NotOld(AuthorityId),
    /// There is no successor that could take over.
    #[error("no authority is prepared: `ca prepare` makes one, `ca rotate` makes one and has it take over")]
    NothingPrepared,
    /// Readers would not know who signs.
    #[error(
        "{authority} has not spread: reported by {confirmed} of {live} agents, and it waits until {} for readers that never report; \
         `ca rotate` waits for it, --force does not",
        not_before.map_or_else(|| "it is published".to_owned(), rfc3339)
    )]
    NotSpread {
        /// The successor.
        authority: AuthorityId,
        /// Live agents that reported it.
        confirmed: usize,
        /// Live agents.
        live: usize,
        /// Nothing while it is not published.
        not_before: Option<SystemTime>,
    },
    /// There is nothing before the first authority.
    #[error("no authority signs yet: there is nothing to retire")]
    NothingToRetire,
    /// The same.
    #[error("no authority of this kind signs yet: there is nothing to replace")]
    NothingToReplace,
    /// What it has signed could not be replaced by anything else.
    #[error("{0} is the one that signs: `ca rotate` first, or `ca rotate --retire`, which does both")]
    Signs(AuthorityId),
    /// Certificates of it would be replaced by nobody.
    #[error(
        "{authority} is {state}: `ca taint` it first, so that everyone replaces what it has signed; --force revokes it all the same"
    )]
    NotTainted {
        /// Which.
        authority: AuthorityId,
        /// Where it stands.
        state: &'static str,
    },
    /// Peers would refuse what is in use.
    #[error(
        "{authority} is still used: {}; ask again later: `ca rotate --retire` is what waits by itself; --force revokes it all the same, and \
         peers refuse these certificates until they are replaced",
        users(*agents, *certificates, *unknown)
    )]
    StillUsed {
        /// Which.
        authority: AuthorityId,
        /// Agents that report certificates of it.
        agents: usize,
        /// How many.
        certificates: u64,
        /// Live agents of which that is not known.
        unknown: usize,
    },
    /// There is none of this name.
    #[error("there is no authority {0}: see `ca show`")]
    Unknown(AuthorityId),
    /// It has left.
    #[error("{authority} has left every bundle: {left} at {}", rfc3339(*at))]
    HasLeft {
        /// Which.
        authority: AuthorityId,
        /// How.
        left: &'static str,
        /// When.
        at: SystemTime,
    },
    /// Each of them waits for agents.
    #[error("too many operations are under way: wait for one of them (`ca show`)")]
    TooMany,
}

/// Who uses an authority; somebody does.
fn users(agents: usize, certificates: u64, unknown: usize) -> String {
    let of = |count: u64, one: &str, more: &str| format!("{count} {}", if count == 1 { one } else { more });
    let uses = format!(
        "{} {} of it",
        of(agents as u64, "agent reports", "agents report"),
        of(certificates, "current certificate", "current certificates")
    );
    let silent = format!(
        "{} not said since it was tainted (not connected, or just restarted)",
        of(unknown as u64, "agent has", "agents have")
    );
    match (agents, unknown) {
        (_, 0) => uses,
        (0, _) => silent,
        _ => format!("{uses}, and {silent}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_an_authority_is_said_of_as_many_as_there_are() {
        assert_eq!(users(1, 1, 0), "1 agent reports 1 current certificate of it");
        assert_eq!(
            users(0, 0, 2),
            "2 agents have not said since it was tainted (not connected, or just restarted)"
        );
        let both = "2 agents report 3 current certificates of it, and 1 agent has not said since";
        assert!(users(2, 3, 1).starts_with(both));
    }
}
