//! What the API server remembers of tokens that it found good.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use signet_runtime::sync::Mutex;

/// Who a valid token speaks for.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated {
    pub(crate) username: String,
    /// `status.user`.
    pub(crate) user: Value,
    /// Those of the asked audiences that the token has.
    pub(crate) audiences: Vec<String>,
}

/// A token and the audiences it was reviewed for.
pub(crate) type Asked = (String, Vec<String>);

/// The API server remembers good answers for a while, so a token outlives its pod by up to that long.
pub(crate) struct ReviewCache {
    life: Duration,
    good: Mutex<HashMap<Asked, (SystemTime, Authenticated)>>,
}

impl ReviewCache {
    pub(crate) fn new(life: Duration) -> Self {
        Self {
            life,
            good: Mutex::new(HashMap::new()),
        }
    }

    /// A good answer that is still remembered.
    pub(crate) fn get(&self, key: &Asked, now: SystemTime) -> Option<Authenticated> {
        let mut good = self.good.lock();
        good.retain(|_, (until, _)| *until > now);
        good.get(key).map(|(_, answer)| answer.clone())
    }

    pub(crate) fn put(&self, key: Asked, now: SystemTime, answer: Authenticated) {
        self.good.lock().insert(key, (now + self.life, answer));
    }

    /// Forgets everything, as if the ten seconds were over.
    pub(crate) fn clear(&self) {
        self.good.lock().clear();
    }
}
