//! What keeps the server from being ready: the table of reasons, the judgement of each, and the tasks that keep them.
//!
//! A server that cannot issue still serves lists, bundle, trust streams, revocations and admins; so only what makes these
//! untrue takes away `/ready`, and everything else takes away `/ready/issue` alone.

mod judge;
mod watch;

pub(crate) use self::watch::{Watched, start};

signet_runtime::reasons! {
    STARTING = Serve "starting", "the parts are being started, the lists not yet signed or loaded";
    STOPPING = Serve "stopping", "the server was told to end, or a part of it has; the log says which";
    LISTS_OLD = Serve "lists_old",
        "an active authority has no list, or a list is past two thirds of its life: see `CRL not renewed` in the log";
    STORE_PUT_BACK = Serve "store_put_back",
        "an agent has proved that an authority of this store has signed more than the store knows, so an older one was put in its place: see [Restores](#restores)";
    CLOCK_UNTRUSTED = Issue "clock_untrusted",
        "the server does not know what time it is: `clock show` says what it lacks";
    STORE_FAILING = Issue "store_failing",
        "a write of the store has failed, or takes longer than 10 s: free the disk of `data_dir`, or mend it";
    LISTS_FAILING = Issue "lists_failing",
        "a list could not be signed or stored, so revocations wait; the one before it stays in force";
    NO_AUTHORITY = Issue "no_authority",
        "of a kind no authority signs, or the one that should is outside its life: see `ca show`, then `ca rotate`";
    OWN_CERTIFICATE = Issue "own_certificate",
        "the server has no valid certificate of its own, so no agent can connect; the log says why";
    CLUSTERS_AWAY = Issue "clusters_away",
        "of all configured clusters none can be reached: network, address, or RBAC of the server";
    AUDIT_STUCK = Issue "audit_stuck",
        "no audit line is taken for 60 s where it is written, or the log fails, or so many lines wait that issuing stops (`audit.max_backlog`): mend `audit.file` or what reads standard output";
}

#[cfg(test)]
mod tests;
