//! Why rules stay as they are.

use std::time::Duration;

use super::Revision;
use crate::store::StoreError;

/// Why a server does not start with the rules that it finds. Without those that admins have set it would give what they deny.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    /// The store could not be asked, or did not take the first rules.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It does not know what the store has of admins.
    #[error(
        "the rules that admins have set (`rule set`) cannot be read, so the server does not start without them: {0}; they were kept by another release: \
         start that one again, delete with `signet-server rule delete` what this one does not know, and then start this one"
    )]
    Unreadable(String),
    /// They make no set, and what was accepted last means nothing either.
    #[error(
        "the rules that admins have set (`rule set`) cannot be used with those of the configuration file, and those accepted last mean nothing to this \
         server, so it does not start without them: {0}; change the file so that they can, or start the release from before and delete them with \
         `signet-server rule delete`"
    )]
    Unfit(String),
}

/// Why rules were not confirmed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotConfirmed {
    /// Nothing waits.
    #[error("no rules wait for a confirmation; `rule list` shows what is in force")]
    NothingWaits,
    /// Others wait: the source has changed since.
    #[error(
        "the rules that wait are others, of revision {waiting}: look at them with `rule list`, then confirm that one"
    )]
    Others {
        /// Revision of those that wait.
        waiting: Revision,
    },
    /// The store did not take them.
    #[error("the store does not take the rules: {0}")]
    Store(#[from] StoreError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// Why a rule was neither set nor deleted. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotEdited {
    /// The file has the name.
    #[error(
        "rule `{0}`: the configuration file has a rule of this name; change it there, or choose another name"
    )]
    SetInFile(String),
    /// The file has it.
    #[error("rule `{0}` is one of the configuration file; remove it there")]
    DeletedInFile(String),
    /// It is built in.
    #[error(
        "the built-in rule is not an admin's; `builtin_rule: false` in the configuration file removes it"
    )]
    Builtin,
    /// Nobody has set it.
    #[error("no admin has set a rule `{0}`; `signet-server rule list` shows those that there are")]
    NotSet(String),
    /// It is to come before itself.
    #[error(
        "rule `{0}` cannot come before itself: name another one, or leave `--before` out and it keeps its place"
    )]
    BeforeItself(String),
    /// The rules would make no set.
    #[error("{0}")]
    Unfit(String),
    /// Edits come too fast.
    #[error(
        "rules were set and deleted as often as agents can be told: twenty at once, and one each second; try again in {} s, or set many by the configuration file",
        .later.as_secs() + 1
    )]
    TooOften {
        /// How long until the next one may be.
        later: Duration,
    },
    /// They are more than is kept.
    #[error(
        "the rules that admins set have 1 MiB at most, all together; merge some, or move them into the configuration file"
    )]
    TooMuch,
    /// The rules of a start are not weighed, or its pods are not known.
    #[error(
        "the server has just started and does not know the pods of its clusters yet, so nobody knows what it would withdraw or give; try again in a moment, half a minute at most"
    )]
    NotYet,
    /// It cannot be told what it would withdraw.
    #[error("it is not known what it would withdraw: {0}")]
    NotWeighed(String),
    /// Rules that wait are those of the file as well, and these cannot be used.
    #[error(
        "it would withdraw {withdrawn} live identities, more than the {at_most} of `rules_confirm_above`, and cannot wait for a confirmation while the rules of the file cannot be used; mend the file first: {problem}"
    )]
    FileFirst {
        /// How many.
        withdrawn: u64,
        /// The bound.
        at_most: u64,
        /// What is wrong with the file.
        problem: String,
    },
    /// The store did not take it.
    #[error("the store does not take the rules: {0}")]
    Store(#[from] StoreError),
    /// The server is stopping.
    #[error("the server is stopping")]
    Stopping,
}
