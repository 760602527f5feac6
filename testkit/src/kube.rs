//! What a Kubernetes 1.36.2 was recorded to answer, in `fixtures/kube`: one request with its answer in each file. Only the
//! signatures of tokens were removed.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// The recording of this name: `request` with `method`, `path` and `body`; `status`; `response`.
pub fn recording(name: &str) -> Value {
    // Beside the folder of whichever crate this file is built into.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/fixtures/kube");
    let text = fs::read_to_string(folder.join(name).with_extension("json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The `status` of a recorded TokenReview: what the API server says of the token.
pub fn review_status(name: &str) -> Value {
    recording(name)["response"]["status"].clone()
}

/// What the token of a recorded TokenReview says: its payload, JSON.
pub fn reviewed_claims(name: &str) -> Vec<u8> {
    let recording = recording(name);
    let token = recording["request"]["body"]["spec"]["token"].as_str().unwrap();
    BASE64_URL_SAFE_NO_PAD
        .decode(token.split('.').nth(1).unwrap())
        .unwrap()
}
