//! Field and label selectors, as far as clients of this fake use them.

use serde_json::Value;

use super::objects::text;

/// The fields the API server can select pods by, and where they are in the object.
const FIELDS: [(&str, &str); 6] = [
    ("metadata.name", "/metadata/name"),
    ("metadata.namespace", "/metadata/namespace"),
    ("spec.nodeName", "/spec/nodeName"),
    ("spec.serviceAccountName", "/spec/serviceAccountName"),
    ("status.phase", "/status/phase"),
    ("status.podIP", "/status/podIP"),
];

/// Which objects a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    namespace: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    pointer: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// `namespace` empty means all. Only `=`, `==` and `!=` are understood.
    ///
    /// # Errors
    /// The text of the `Status` the API server would answer.
    pub(crate) fn parse(namespace: &str, fields: Option<&str>, labels: Option<&str>) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in split(fields) {
            let (name, value, equal) = operator(term)?;
            let (_, pointer) = FIELDS
                .iter()
                .find(|(field, _)| *field == name)
                .ok_or_else(|| format!("field label not supported: {name}"))?;
            terms.push(Term {
                pointer: (*pointer).to_owned(),
                value,
                equal,
            });
        }
        for term in split(labels) {
            let (name, value, equal) = operator(term)?;
            let escaped = name.replace('~', "~0").replace('/', "~1");
            terms.push(Term {
                pointer: format!("/metadata/labels/{escaped}"),
                value,
                equal,
            });
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            terms,
        })
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        (self.namespace.is_empty() || text(object, "/metadata/namespace") == self.namespace)
            && self
                .terms
                .iter()
                .all(|term| (text(object, &term.pointer) == term.value) == term.equal)
    }
}

fn split(terms: Option<&str>) -> impl Iterator<Item = &str> {
    terms
        .unwrap_or_default()
        .split(',')
        .filter(|term| !term.is_empty())
}

fn operator(term: &str) -> Result<(String, String, bool), String> {
    let (name, value, equal) = if let Some((name, value)) = term.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = term.split_once("==") {
        (name, value, true)
    } else if let Some((name, value)) = term.split_once('=') {
        (name, value, true)
    } else {
        return Err(format!("unable to parse requirement: {term}"));
    };
    Ok((name.to_owned(), value.to_owned(), equal))
}
