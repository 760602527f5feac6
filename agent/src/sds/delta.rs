//! DeltaSecrets: requests say what comes and what goes of the names that are asked for, and each secret has a version of its own (xDS,
//! "Incremental"). Pure.
//!
//! A name of which the workload has nothing is answered as removed, so that the proxy stops waiting; it is sent when there is something.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use signet_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use tonic::Status;

use super::answer::{Answer, Heard};
use super::names::{EVERYTHING, MOST, all_of};
use super::observed::Trust;
use super::proxy::{Nonces, Proxy, checked_names};
use super::secret::{Absent, VERSION, View, text, version};
use super::stream::{Conversation, KEPT, Said};
use super::{Sds, TYPE_URL};
use crate::context::X509Context;
use crate::streams::{Message, Nothing, status};

/// What a proxy knows of a name.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Known {
    /// This version.
    Version(String),
    /// That there is nothing.
    Gone,
}

/// See the [module](self).
pub(super) struct Delta {
    sds: Sds,
    proxy: Proxy,
    nonces: Nonces,
    begun: bool,
    everything: bool,
    names: BTreeSet<String>,
    known: BTreeMap<String, Known>,
    last: Option<Answer>,
    draft: Option<(Answer, Vec<(String, Known)>)>,
    /// Nothing was looked at yet; and the trust that the proxy has from another stream.
    is_new: bool,
    brought: Option<Trust>,
    /// What was answered last, or needed no answer; nothing when something was asked for since.
    seen: Weak<X509Context>,
    later: Option<Nothing>,
}

/// What is to be told of secrets.
#[derive(Default)]
struct News {
    secrets: Vec<Message>,
    removed: Vec<Message>,
    told: Vec<(String, Known)>,
    is_trust: bool,
}

impl Delta {
    pub(super) fn new(sds: &Sds) -> Self {
        Self {
            sds: sds.clone(),
            proxy: Proxy::default(),
            nonces: Nonces::new(),
            begun: false,
            everything: false,
            names: BTreeSet::new(),
            known: BTreeMap::new(),
            last: None,
            draft: None,
            is_new: true,
            brought: None,
            seen: Weak::new(),
            later: None,
        }
    }

    fn subscribe(&mut self, names: Vec<String>, gone: Vec<String>, has: &mut BTreeMap<String, String>) {
        if !self.begun {
            self.everything = names.is_empty();
        }
        // What is not asked for any more needs no answer.
        if !self.begun || !names.is_empty() {
            self.seen = Weak::new();
        }
        if self.begun {
            has.clear();
        }
        for name in gone {
            if name == EVERYTHING {
                self.everything = false;
            }
            self.names.remove(&name);
            self.known.remove(&name);
        }
        for name in names {
            if name == EVERYTHING {
                self.everything = true;
                continue;
            }
            // Whoever asks again is answered again, unless he says what he has.
            match has.remove(&name) {
                Some(version) => drop(self.known.insert(name.clone(), Known::Version(version))),
                None => drop(self.known.remove(&name)),
            }
            self.names.insert(name);
        }
        if self.everything && !self.begun {
            for (name, version) in std::mem::take(has) {
                self.known.insert(name, Known::Version(version));
            }
        }
        self.begun = true;
    }

    /// The trust that the versions stand for which a proxy has brought.
    fn had(&self, view: &View<'_>) -> Option<Trust> {
        let own = |(name, _): &(&String, &Known)| view.is_own_trust(name);
        self.known.iter().filter(own).find_map(|(name, known)| {
            let Known::Version(has) = known else { return None };
            let is_newest = view
                .secret(name)
                .is_ok_and(|secret| version(&secret.digest()) == *has);
            Some(if is_newest {
                Trust::of(view.context)
            } else {
                Trust::of_version(has)
            })
        })
    }

    fn news(&mut self, view: &View<'_>) -> News {
        let mut names = self.names.clone();
        if self.everything {
            names.extend(all_of(view.context));
            names.extend(self.known.keys().cloned());
        }
        let mut news = News::default();
        self.later = None;
        for name in names {
            let knows = self.known.get(&name);
            match view.secret(&name) {
                Ok(secret) => {
                    let version = version(&secret.digest());
                    let now = Known::Version(version.clone());
                    if knows != Some(&now) {
                        news.is_trust |= view.is_own_trust(&name);
                        let resource = text(1, &version).then(secret.within(2)).then(text(3, &name));
                        news.secrets.push(resource.within(2));
                        news.told.push((name, now));
                    }
                }
                Err(Absent::NotNow(nothing)) => self.later = Some(nothing),
                Err(Absent::NotGranted) if knows == Some(&Known::Gone) => {}
                Err(Absent::NotGranted) => {
                    news.removed.push(text(6, &name));
                    news.told.push((name, Known::Gone));
                }
            }
        }
        news
    }
}

/// What a proxy has from another stream, as far as it can be of ours.
fn versions(of: HashMap<String, String>) -> Result<BTreeMap<String, String>, Status> {
    checked_names("", of.keys().cloned().collect())?;
    Ok(of
        .into_iter()
        .filter(|(_, version)| version.len() == VERSION)
        .collect())
}

impl Conversation for Delta {
    type Request = DeltaDiscoveryRequest;

    fn hear(&mut self, request: DeltaDiscoveryRequest) -> Result<Heard, Status> {
        let names = checked_names(&request.type_url, request.resource_names_subscribe)?;
        let gone = checked_names("", request.resource_names_unsubscribe)?;
        let mut has = versions(request.initial_resource_versions)?;
        let stay = self.names.iter().filter(|name| gone.binary_search(name).is_err());
        let comes = names.iter().filter(|name| !self.names.contains(*name));
        if stay.count() + comes.count() > MOST {
            return Err(status::invalid(&format!("more than {MOST} names in one stream")));
        }
        self.proxy.hear(request.node, self.sds.plain);
        self.subscribe(names, gone, &mut has);
        let (nonce, why) = (request.response_nonce, request.error_detail);
        let last = self.last.as_mut().map(|last| last.settle(&nonce, why));
        Ok(last.unwrap_or(Heard::Nothing))
    }

    fn say(&mut self, context: &Arc<X509Context>, now: SystemTime) -> Result<Said, Status> {
        let is_same = Weak::ptr_eq(&self.seen, &Arc::downgrade(context));
        if !self.begun || (is_same && self.later.is_none()) {
            return Ok(Said::Nothing(None));
        }
        let names = self.sds.names.clone();
        let view = View {
            context,
            now,
            names: &names,
            validator: self.proxy.validator(),
        };
        if std::mem::replace(&mut self.is_new, false) {
            self.brought = self.had(&view);
        }
        let news = self.news(&view);
        if news.told.is_empty() {
            self.seen = Arc::downgrade(context);
            let has_some = self
                .known
                .values()
                .any(|known| matches!(known, Known::Version(_)));
            return Ok(match self.later.clone() {
                Some(nothing) if !has_some => Said::NotYet(nothing),
                later => Said::Nothing(later),
            });
        }
        let answer = Answer::new(self.nonces.next(), context, news.is_trust);
        let secrets = Message::default().then_all(news.secrets);
        let tail = text(4, TYPE_URL).then(text(5, answer.nonce()));
        let head = text(1, &version(&secrets.digest()));
        self.draft = Some((answer, news.told));
        Ok(Said::Answer(head.then(secrets).then(tail).then_all(news.removed)))
    }

    fn brought(&mut self) -> Option<Trust> {
        self.brought.take()
    }

    fn sent(&mut self) {
        if let Some((answer, told)) = self.draft.take() {
            self.seen = answer.of().clone();
            self.last = Some(answer);
            self.known.extend(told);
            // That nothing is there any more is remembered of what is asked for by name.
            let names = &self.names;
            self.known
                .retain(|name, known| *known != Known::Gone || names.contains(name));
        }
    }

    fn wants_trust(&self) -> bool {
        self.everything || self.names.iter().any(|name| self.sds.names.is_trust(name))
    }

    fn kept(&self) -> usize {
        let names = self.names.iter().chain(self.known.keys());
        names.map(|name| name.capacity() + KEPT).sum()
    }

    fn work(&self) -> u32 {
        let names = self.names.len() + usize::from(self.everything);
        let looks = self.seen.strong_count() == 0 || self.later.is_some();
        if looks {
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

    fn request(names: &[&str], versions: std::ops::Range<u32>) -> DeltaDiscoveryRequest {
        let version = |number| (format!("spiffe://example.org/{number}"), "0".repeat(VERSION));
        DeltaDiscoveryRequest {
            resource_names_subscribe: names.iter().map(ToString::to_string).collect(),
            initial_resource_versions: versions.map(version).collect(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    #[test]
    fn what_a_proxy_says_it_has_is_bounded_and_counts_in_its_first_request() {
        let mut delta = Delta::new(&Sds::default());
        delta.hear(request(&["*"], 0..50)).unwrap();
        let kept = delta.kept();
        for number in 1..100 {
            delta
                .hear(request(&["*"], 100 * number..100 * number + 90))
                .unwrap();
        }
        assert_eq!(delta.kept(), kept);
        assert!(delta.hear(request(&[], 0..101)).is_err());
        let long = HashMap::from([("n".to_owned(), "v".repeat(100_000))]);
        assert!(versions(long).unwrap().is_empty());
    }

    #[test]
    fn names_that_come_take_the_places_of_those_that_go() {
        let names = |from: usize| -> Vec<String> {
            (from..from + MOST)
                .map(|number| format!("name-{number:03}"))
                .collect()
        };
        let mut delta = Delta::new(&Sds::default());
        let mut asked = DeltaDiscoveryRequest {
            resource_names_subscribe: names(0),
            ..DeltaDiscoveryRequest::default()
        };
        delta.hear(asked.clone()).unwrap();
        asked.resource_names_subscribe = names(MOST);
        assert!(delta.hear(asked.clone()).is_err());
        asked.resource_names_unsubscribe = names(0);
        delta.hear(asked).unwrap();
        assert_eq!(delta.names.len(), MOST);
    }
}
