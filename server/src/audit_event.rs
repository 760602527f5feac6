//! What can be said in the audit log, as stores keep it. Stores and the log itself stand on it, and it on neither.

mod cursor;
mod event;
mod parts;
mod written;

use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use signet_certs::authority::{AuthorityId, AuthorityKind};
use signet_certs::crl::RevocationReason;
use signet_certs::id::SpiffeId;
use signet_certs::signer::SignatureAlgorithm;

pub(crate) use self::cursor::AuditCursor;
pub(crate) use self::event::AuditEvent;
pub(crate) use self::parts::{RevokedSerial, StoredLine};
use self::written::{optional_text, optional_time, text, time};

/// What was decided. `issued` lines have no variant: the store renders them from the ledger.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case", rename_all_fields = "snake_case")]
pub(crate) enum AuditAction {
    /// So many lines are missing here: nobody took them, and `audit.when_full` is `drop_counted`.
    AuditLinesDropped {
        /// How many.
        lines: u64,
    },
    /// The server is up.
    ServerStarted {
        /// Its release.
        version: String,
        /// Its trust domain.
        trust_domain: String,
        /// Its store's epoch.
        epoch: u64,
    },
    /// The server goes down in order.
    ServerStopped {
        /// What made it stop.
        reason: String,
    },
    /// A node proved itself.
    NodeAttested {
        /// The agent's identity.
        #[serde(serialize_with = "text")]
        agent_id: SpiffeId,
        /// Name of its cluster.
        cluster: String,
        /// The node's name.
        node_name: String,
        /// The node's UID.
        node_uid: String,
        /// The agent's pod, `namespace/name`.
        pod: String,
        /// `jti` of the token.
        token_jti: Option<String>,
    },
    /// An agent used one new certificate after the other: it restarts in a loop, or two processes are this agent.
    AgentSupersededOften {
        /// The agent's identity.
        #[serde(serialize_with = "text")]
        agent_id: SpiffeId,
        /// How many of its certificates were superseded within ten minutes.
        times: u64,
    },
    /// Somebody got a no.
    Refused {
        /// Who asked: an agent's SPIFFE ID, an address. Refusals are sampled by it.
        caller: String,
        /// What was asked for, such as `attest_node` or `issue`.
        operation: String,
        /// The kind of no, in one word: the first of each caller, kind and minute is always written.
        kind: &'static str,
        /// Exactly why not.
        reason: String,
        /// About which identity, where that is known.
        #[serde(serialize_with = "optional_text")]
        spiffe_id: Option<SpiffeId>,
        /// About which pod, where that is known.
        pod_uid: Option<String>,
    },
    /// Refusals of one caller that were counted and not written.
    RefusalsSuppressed {
        /// Whose.
        caller: String,
        /// How many.
        count: u64,
    },
    /// An admin asked for something or ordered it.
    AdminCall {
        /// By whom: the user at the other end of the socket.
        author: String,
        /// The RPC.
        method: String,
        /// What it was about, in the caller's words.
        target: Option<String>,
        /// `ok`, or the error as it was answered.
        outcome: String,
    },
    /// Certificates were revoked, a target denied, or both. A long one goes on in further lines.
    Revoked {
        /// What was named.
        target: String,
        /// By whom.
        author: String,
        /// Why, for the CRL.
        #[serde(serialize_with = "text")]
        reason: RevocationReason,
        /// Why, for people.
        comment: String,
        /// Since when the certificates are not to be believed, where the admin has said it.
        #[serde(serialize_with = "optional_time", skip_serializing_if = "Option::is_none")]
        invalid_since: Option<SystemTime>,
        /// The denial, where one was made.
        denial: Option<String>,
        /// When that denial ends by itself.
        #[serde(serialize_with = "optional_time")]
        denial_expires: Option<SystemTime>,
        /// Newly revoked: authority and serial.
        serials: Vec<RevokedSerial>,
    },
    /// A denial was lifted.
    Allowed {
        /// Which.
        denial: String,
        /// What it had denied.
        target: String,
        /// By whom.
        author: String,
    },
    /// An authority was made; it signs only its CRL.
    AuthorityPrepared {
        /// Its kind.
        #[serde(serialize_with = "text")]
        kind: AuthorityKind,
        /// Which.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
        /// What its key signs with.
        algorithm: SignatureAlgorithm,
        /// When it ends.
        #[serde(serialize_with = "self::time")]
        not_after: SystemTime,
        /// Who wanted it: `timer` or an admin.
        author: String,
        /// The authority that certified its key, for agents that know only that one.
        #[serde(serialize_with = "optional_text", skip_serializing_if = "Option::is_none")]
        linked_by: Option<AuthorityId>,
    },
    /// An authority began to sign.
    AuthorityActivated {
        /// Its kind.
        #[serde(serialize_with = "text")]
        kind: AuthorityKind,
        /// Which.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
        /// The one that signed until now. In a line `previous` is the hash of the line before.
        #[serde(serialize_with = "optional_text", rename = "previous_authority_id")]
        previous: Option<AuthorityId>,
        /// Whether it did not wait for its bundle to spread.
        forced: bool,
        /// Who wanted it: `timer` or an admin.
        author: String,
    },
    /// An authority is not to be trusted any more: what it has signed is replaced everywhere.
    AuthorityTainted {
        /// Its kind.
        #[serde(serialize_with = "text")]
        kind: AuthorityKind,
        /// Which.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
        /// Who wanted it.
        author: String,
    },
    /// In an emergency: the key of an authority is taken to be stolen. What it has signed is replaced everywhere, and it leaves every bundle
    /// whoever has reported.
    AuthorityDistrusted {
        /// Its kind.
        #[serde(serialize_with = "text")]
        kind: AuthorityKind,
        /// Which.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
        /// When it leaves.
        #[serde(serialize_with = "time")]
        leaves_at: SystemTime,
        /// Who wanted it.
        author: String,
    },
    /// An authority was taken out of every bundle and does not come back; its key is destroyed as soon as the time is settled.
    AuthorityRevoked {
        /// Its kind.
        #[serde(serialize_with = "text")]
        kind: AuthorityKind,
        /// Which.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
        /// Though certificates of it were in use, or nobody could say.
        forced: bool,
        /// Who wanted it.
        author: String,
    },
    /// An authority left the bundle; its key is destroyed.
    AuthorityExpired {
        /// Its kind.
        #[serde(serialize_with = "text")]
        kind: AuthorityKind,
        /// Which.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
    },
    /// An agent has handed over a list that one of our authorities has signed and that this store lacks.
    StorePutBack {
        /// The agent's identity.
        #[serde(serialize_with = "text")]
        agent_id: SpiffeId,
        /// Who signed the list.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
        /// Its number.
        number: u64,
        /// The number of the newest list of this store.
        own_number: u64,
        /// SHA-256 of the list.
        sha256: String,
    },
    /// An agent reported a list that this store lacks, and has not proved it: it lies, or what it holds is damaged.
    ListUnproven {
        /// The agent's identity.
        #[serde(serialize_with = "text")]
        agent_id: SpiffeId,
        /// Whose list it says it is.
        #[serde(serialize_with = "text")]
        authority_id: AuthorityId,
        /// The number it says.
        number: u64,
        /// The number of the newest list of this store.
        own_number: u64,
        /// Why it proves nothing.
        reason: String,
    },
    /// Other rules are in force.
    RulesChanged {
        /// Who wanted it: `start`, `source` for a change of the configuration file that needed no confirmation, or the admin who
        /// confirmed it, or who set or deleted a rule.
        author: String,
        /// Revision of the rules before; none for the first of a store.
        #[serde(rename = "previous_revision")]
        previous: Option<String>,
        /// Their revision.
        revision: String,
        /// How many there are, with the built-in one.
        rules: u64,
        /// Identities under which a live certificate was held, and which they do not give.
        withdrawn: u64,
    },
    /// An admin set a rule, in force or waiting.
    RuleSet {
        /// Who.
        author: String,
        /// Its name.
        name: String,
        /// As it is written; of one that is too long for a line its `bytes` and `sha256`.
        rule: Value,
        /// What it took the place of; none for a new one.
        replaced: Option<Value>,
        /// The rule before which it was put by name.
        #[serde(rename = "put_before", skip_serializing_if = "Option::is_none")]
        before: Option<String>,
        /// Not in force before it is confirmed.
        waits: bool,
    },
    /// An admin took away a rule that one had set.
    RuleDeleted {
        /// Who.
        author: String,
        /// Its name.
        name: String,
        /// As it was written.
        rule: Value,
        /// Who had set it so.
        set_by: String,
        /// In force until that is confirmed.
        waits: bool,
    },
    /// The machine's clock parted from the time the server goes by.
    ClockJumped {
        /// What it says.
        wall: String,
        /// What the server goes by.
        steady: String,
    },
    /// The machine's clock agrees again.
    ClockHealed {},
    /// Machine and API servers agreed on another time for a minute: it is used, unconfirmed.
    ClockAdopted {
        /// The new time.
        wall: String,
        /// The time before.
        steady: String,
    },
    /// An admin said that the machine's clock is right.
    ClockConfirmed {
        /// Who.
        author: String,
        /// The time in use from then on.
        wall: String,
        /// The time before.
        steady: String,
        /// The API servers against whose time it was forced.
        #[serde(skip_serializing_if = "String::is_empty")]
        against: String,
    },
    /// Events that were lost because the queue was full.
    EventsLost {
        /// How many.
        count: u64,
    },
}
