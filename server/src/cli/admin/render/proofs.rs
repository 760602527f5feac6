//! Lists that prove something against the store, as `status` shows them.

use serde_json::{Value, json};
use signet_proto::admin as wire;
use signet_runtime::cli::{when, when_text};

/// So many serials are shown to people; `--output json` has all.
const SHOWN: usize = 10;

/// What is to be entered, with the command.
pub(super) fn proof_text(proof: &wire::ListProof) -> String {
    let missing = &proof.missing_serials;
    let mut text = format!(
        "list {} of authority {}, our newest is {}; {} of its {} certificates are on that list alone; found {} by {}",
        proof.number,
        proof.authority_id,
        proof.own_number,
        missing.len(),
        proof.entries,
        when_text(proof.found_unix_ms),
        proof.agent_id
    );
    for serial in missing.iter().take(SHOWN) {
        text.push_str(&format!(
            "\n               revoke --authority {} --serial {serial}",
            proof.authority_id
        ));
    }
    if missing.len() > SHOWN {
        text.push_str("\n               and more: status --output json");
    }
    text
}

pub(super) fn proof_json(proof: &wire::ListProof) -> Value {
    json!({
        "authority_id": proof.authority_id,
        "number": proof.number,
        "own_number": proof.own_number,
        "entries": proof.entries,
        "missing_serials": proof.missing_serials,
        "agent_id": proof.agent_id,
        "found": when(proof.found_unix_ms),
        "der": hex::encode(&proof.der),
    })
}
