//! StreamSecrets and FetchSecrets: each request names all that is asked for, and says what became of the last answer (xDS, "State of the
//! World"). Pure.
//!
//! * Names that are new are answered whether anything has changed or not (SDS-10); what is asked for by nobody any more is not.
//! * A request of an answer that is not the last one is ignored: it crossed with a newer answer, of which the proxy speaks next (SDS-09).
//! * An answer that was refused is not given again before something of it has changed.
//! * No names in the first request, and `*` in any, ask for everything that the workload may have (SDS-07); no names in a later one ask for
//!   nothing once any were given, be it `*`.

use std::sync::{Arc, Weak};
use std::time::SystemTime;

use signet_proto::envoy::service::discovery::v3::DiscoveryRequest;
use tonic::Status;

use super::answer::{Answer, Heard};
use super::names::{EVERYTHING, all_of};
use super::observed::Trust;
use super::proxy::{Nonces, Proxy, checked_names, not_granted};
use super::secret::{Absent, VERSION, View, text, version};
use super::stream::{Conversation, KEPT, Said};
use super::{Sds, TYPE_URL};
use crate::context::X509Context;
use crate::streams::{Digest, Message, Nothing};

/// See the [module](self).
pub(super) struct Sotw {
    sds: Sds,
    proxy: Proxy,
    nonces: Nonces,
    begun: bool,
    /// Some request had names.
    named: bool,
    everything: bool,
    /// Sorted, each once.
    names: Vec<String>,
    /// They are to be answered whatever has changed.
    owed: bool,
    last: Option<(Answer, Digest)>,
    draft: Option<(Answer, Digest)>,
    /// The version that the proxy has from another stream, and the trust that this is.
    has: Option<String>,
    brought: Option<Trust>,
    /// What was answered last, or needed no answer, and whether time alone may add to it.
    seen: Weak<X509Context>,
    later: Option<Nothing>,
}

impl Sotw {
    pub(super) fn new(sds: &Sds) -> Self {
        Self {
            sds: sds.clone(),
            proxy: Proxy::default(),
            nonces: Nonces::new(),
            begun: false,
            named: false,
            everything: false,
            names: Vec::new(),
            owed: false,
            last: None,
            draft: None,
            has: None,
            brought: None,
            seen: Weak::new(),
            later: None,
        }
    }

    fn ask_for(&mut self, mut names: Vec<String>) {
        let asked_for = names.len();
        names.retain(|name| name != EVERYTHING);
        self.named |= asked_for > 0;
        let everything = !self.named || names.len() < asked_for;
        if !self.begun || names != self.names || everything != self.everything {
            self.owed = everything || !names.is_empty();
            self.everything = everything;
            self.names = names;
        }
        self.begun = true;
    }

    /// Each secret that can be shown, and whether one of them is trust. One that was named and is not this workload's ends the call (SDS-08).
    fn secrets(&mut self, view: &View<'_>) -> Result<(Vec<Message>, bool), Status> {
        let mut names = self.names.clone();
        if self.everything {
            names.extend(all_of(view.context));
            names.sort_unstable();
            names.dedup();
        }
        let (mut secrets, mut is_trust) = (Vec::new(), false);
        self.later = None;
        for name in &names {
            match view.secret(name) {
                Ok(secret) => {
                    is_trust |= view.is_own_trust(name);
                    secrets.push(secret);
                }
                Err(Absent::NotNow(nothing)) => self.later = Some(nothing),
                Err(Absent::NotGranted) => return Err(not_granted(name)),
            }
        }
        Ok((secrets, is_trust))
    }
}

impl Conversation for Sotw {
    type Request = DiscoveryRequest;

    fn hear(&mut self, request: DiscoveryRequest) -> Result<Heard, Status> {
        let names = checked_names(&request.type_url, request.resource_names)?;
        self.proxy.hear(request.node, self.sds.plain);
        let nonce = request.response_nonce;
        let is_first = !self.begun;
        let is_of_last = self.last.as_ref().is_some_and(|(last, _)| last.nonce() == nonce);
        if !is_first && !is_of_last && !nonce.is_empty() {
            return Ok(Heard::Nothing);
        }
        if is_first {
            self.has = Some(request.version_info).filter(|version| version.len() == VERSION);
        }
        self.ask_for(names);
        let last = self
            .last
            .as_mut()
            .map(|(last, _)| last.settle(&nonce, request.error_detail));
        Ok(last.unwrap_or(Heard::Nothing))
    }

    fn say(&mut self, context: &Arc<X509Context>, now: SystemTime) -> Result<Said, Status> {
        if !self.everything && self.names.is_empty() {
            return Ok(Said::Nothing(None));
        }
        let is_same = Weak::ptr_eq(&self.seen, &Arc::downgrade(context));
        if is_same && !self.owed && self.later.is_none() {
            return Ok(Said::Nothing(None));
        }
        let names = self.sds.names.clone();
        let view = View {
            context,
            now,
            names: &names,
            validator: self.proxy.validator(),
        };
        let (secrets, is_trust) = self.secrets(&view)?;
        if secrets.is_empty() {
            self.seen = Arc::downgrade(context);
            let nothing = || Nothing::because("there is nothing of what was asked for yet");
            return Ok(Said::NotYet(self.later.clone().unwrap_or_else(nothing)));
        }
        let secrets = secrets.into_iter().map(|secret| secret.within(2));
        let secrets = Message::default().then_all(secrets);
        let digest = secrets.digest();
        if let Some(has) = self.has.take().filter(|_| is_trust) {
            let is_newest = has == version(&digest);
            self.brought = Some(if is_newest {
                Trust::of(context)
            } else {
                Trust::of_version(&has)
            });
        }
        if !self.owed && self.last.as_ref().is_some_and(|(_, last)| *last == digest) {
            self.seen = Arc::downgrade(context);
            return Ok(Said::Nothing(self.later.clone()));
        }
        let answer = Answer::new(self.nonces.next(), context, is_trust);
        let tail = text(4, TYPE_URL).then(text(5, answer.nonce()));
        let message = text(1, &version(&digest)).then(secrets).then(tail);
        self.draft = Some((answer, digest));
        Ok(Said::Answer(message))
    }

    fn brought(&mut self) -> Option<Trust> {
        self.brought.take()
    }

    fn sent(&mut self) {
        if let Some((answer, digest)) = self.draft.take() {
            self.seen = answer.of().clone();
            self.last = Some((answer, digest));
            self.owed = false;
        }
    }

    fn wants_trust(&self) -> bool {
        self.everything || self.names.iter().any(|name| self.sds.names.is_trust(name))
    }

    fn kept(&self) -> usize {
        self.names.iter().map(|name| name.capacity() + KEPT).sum()
    }

    fn work(&self) -> u32 {
        let names = self.names.len() + usize::from(self.everything);
        if self.owed || self.later.is_some() {
            u32::try_from(names).unwrap_or(u32::MAX)
        } else {
            0
        }
    }

    fn has_begun(&self) -> bool {
        self.begun
    }

    fn proxy(&self) -> &str {
        self.proxy.id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Covers SDS-07.
    #[test]
    fn an_empty_list_asks_for_everything_until_names_were_given_and_then_for_nothing() {
        for (requests, wanted) in [
            (&[&[][..], &[]][..], (true, 0)),
            (&[&["*"], &[]], (false, 0)),
            (&[&["default"], &[]], (false, 0)),
            (&[&["*", "default"], &[]], (false, 0)),
            (&[&[], &["default"], &[]], (false, 0)),
            (&[&[], &["*"]], (true, 0)),
            (&[&["*"], &[], &["*", "default"]], (true, 1)),
            (&[&["*"], &[], &["default"]], (false, 1)),
        ] {
            let mut sotw = Sotw::new(&Sds::default());
            for names in requests {
                let request = DiscoveryRequest {
                    resource_names: names.iter().map(ToString::to_string).collect(),
                    ..DiscoveryRequest::default()
                };
                sotw.hear(request).unwrap();
            }
            assert_eq!((sotw.everything, sotw.names.len()), wanted, "{requests:?}");
        }
    }
}
