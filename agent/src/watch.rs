//! What changes from one state of the Workload API to the next, told in lines. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Value, json};
use signet_certs::time::rfc3339;
use signet_runtime::error::chain;
use signet_runtime::table::age;
use signet_workload::{AuthorityId, CrlNumber, SourceState};

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Change {
    json: Value,
    text: String,
}

impl Change {
    /// For programs, with the moment when it was seen.
    pub(crate) fn to_json(&self, now: SystemTime) -> String {
        let mut line = json!({ "time": rfc3339(now) });
        if let (Value::Object(line), Value::Object(fields)) = (&mut line, &self.json) {
            line.extend(fields.clone());
        }
        format!("{line}\n")
    }

    /// For people.
    pub(crate) fn to_text(&self, now: SystemTime) -> String {
        format!("{} {}\n", rfc3339(now), self.text)
    }
}

/// What was told already.
#[derive(Default)]
pub(crate) struct Told {
    /// By SPIFFE ID and hint: the serial.
    svids: BTreeMap<(String, String), String>,
    /// By trust domain and authority: its list's number, and how many it lists.
    authorities: BTreeMap<(String, AuthorityId), Option<(CrlNumber, usize)>>,
    problem: Option<String>,
}

impl Told {
    /// What has changed since.
    pub(crate) fn update(&mut self, state: &SourceState, now: SystemTime) -> Vec<Change> {
        let mut changes = Vec::new();
        self.svids(state, now, &mut changes);
        self.roots(state, now, &mut changes);
        let problem = state.problem.as_ref().map(|problem| chain(&**problem));
        if problem != self.problem {
            changes.push(match &problem {
                Some(why) => Change {
                    json: json!({ "change": "agent", "problem": why }),
                    text: format!("agent: {why}"),
                },
                None => Change {
                    json: json!({ "change": "agent", "problem": null }),
                    text: "agent: answers again".to_owned(),
                },
            });
            self.problem = problem;
        }
        changes
    }

    fn svids(&mut self, state: &SourceState, now: SystemTime, changes: &mut Vec<Change>) {
        let Some(context) = &state.context else { return };
        let mut there = BTreeMap::new();
        for granted in context.svids.iter() {
            let (svid, hint) = (&granted.svid, granted.hint.clone());
            let (id, serial) = (svid.spiffe_id().to_string(), svid.serial().to_string());
            let key = (id.clone(), hint.clone());
            if self.svids.get(&key) != Some(&serial) {
                changes.push(Change {
                    json: json!({
                        "change": "svid", "spiffe_id": id, "hint": hint, "serial": serial,
                        "authority": svid.authority_id().to_string(), "not_after": rfc3339(svid.not_after()),
                    }),
                    text: format!(
                        "svid: {id} has serial {serial}, ends {}",
                        age(now, svid.not_after())
                    ),
                });
            }
            there.insert(key, serial);
        }
        for (id, hint) in self.svids.keys().filter(|key| !there.contains_key(*key)) {
            changes.push(Change {
                json: json!({ "change": "svid", "spiffe_id": id, "hint": hint, "serial": null }),
                text: format!("svid: {id} is granted no more"),
            });
        }
        self.svids = there;
    }

    fn roots(&mut self, state: &SourceState, now: SystemTime, changes: &mut Vec<Change>) {
        let Some(roots) = &state.roots else { return };
        let mut there = BTreeMap::new();
        for domain in roots.trust_domains() {
            for authority in roots.authorities(domain) {
                let key = (domain.to_string(), authority.certificate.id());
                let list = authority
                    .crl
                    .as_ref()
                    .map(|crl| (crl.number(), crl.entry_count()));
                let told = self.authorities.get(&key);
                if told.is_none() {
                    changes.push(of_bundle(&key, "added"));
                }
                if let (Some(crl), Some((number, revoked))) = (&authority.crl, list)
                    && told.copied().flatten() != list
                {
                    let (domain, id) = (&key.0, key.1.to_string());
                    changes.push(Change {
                        json: json!({
                            "change": "crl", "trust_domain": domain, "authority": id, "number": number.0,
                            "revoked": revoked, "next_update": rfc3339(crl.next_update()),
                        }),
                        text: format!(
                            "crl: number {number} of authority {id}, {revoked} revoked, ends {}",
                            age(now, crl.next_update())
                        ),
                    });
                }
                there.insert(key, list);
            }
        }
        let gone = self.authorities.keys().filter(|key| !there.contains_key(*key));
        changes.extend(gone.map(|key| of_bundle(key, "removed")));
        self.authorities = there;
    }
}

fn of_bundle((domain, authority): &(String, AuthorityId), what: &str) -> Change {
    Change {
        json: json!({ "change": "bundle", "trust_domain": domain, what: authority.to_string() }),
        text: format!("bundle: authority {authority} of {domain} {what}"),
    }
}
