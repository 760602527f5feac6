//! Which certificate of an agent is the newest in use.

use std::collections::HashMap;

use signet_certs::{id::SpiffeId, serial::SerialNumber};
use signet_runtime::sync::Mutex;

/// The newest certificate that each agent has used. A lock of its own: every call asks it.
#[derive(Debug, Default)]
pub(super) struct Newest(Mutex<HashMap<SpiffeId, SerialNumber>>);

impl Newest {
    /// See [`Agents::is_newest`](super::Agents::is_newest).
    pub(super) fn uses(&self, agent: &SpiffeId, serial: SerialNumber) -> bool {
        let mut used = self.0.lock();
        match used.get_mut(agent) {
            Some(newest) if serial < *newest => false,
            Some(newest) => {
                *newest = serial;
                true
            }
            None => {
                used.insert(agent.clone(), serial);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_certificate_is_worthless_from_the_first_use_of_its_successor_on() {
        let newest = Newest::default();
        let [one, two] = ["a", "b"]
            .map(|name| SpiffeId::parse(&format!("spiffe://example.org/signet/agent/dev/{name}")).unwrap());
        let made = |second| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            SerialNumber::generate(at, &[7; 13])
        };
        assert!(newest.uses(&one, made(1)) && newest.uses(&one, made(1)));
        assert!(newest.uses(&one, made(2)));
        assert!(!newest.uses(&one, made(1)));
        assert!(newest.uses(&one, made(2)), "a refusal changes nothing");
        assert!(newest.uses(&two, made(1)), "each agent has its own");
    }
}
