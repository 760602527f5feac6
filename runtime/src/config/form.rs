//! Reads a whole document although parts of it do not fit its type: each part that does not is noted and left out, and
//! the rest is read again.
//!
//! serde stops at the first fault, so one pass finds one. A part is a key with its value or an element of a list, named
//! by its path.

mod reader;

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Options};

use super::places::join;

/// Faults of one document that are looked for; each costs a pass.
const MAX_FAULTS: usize = 50;

/// A part that could not be read.
pub(super) struct Fault {
    /// The path of the part; empty for the document as a whole.
    pub(super) path: String,
    /// Why.
    pub(super) error: Error,
}

/// Reads `text`. There is a value unless the document as a whole cannot be read; where a part is faulty it holds the
/// default.
pub(super) fn read<T: DeserializeOwned>(
    text: &str,
    options: impl Fn() -> Options,
) -> (Option<T>, Vec<Fault>) {
    let pass = RefCell::new(Pass::default());
    let mut faults = Vec::new();
    loop {
        let read = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |document| {
            T::deserialize(Spot::root(&pass).of(document))
        });
        let error = match read {
            Ok(value) => return (Some(value), faults),
            Err(error) => error,
        };
        let mut pass = pass.borrow_mut();
        let path = pass.failed.take().unwrap_or_default();
        if pass.left_out.contains(&path) {
            // It cannot even be skipped: from there on the text is no YAML.
            return (None, faults);
        }
        if !pass.is_consequence(&path, &error) {
            let path = path.clone();
            faults.push(Fault { path, error });
        }
        if path.is_empty() || faults.len() == MAX_FAULTS {
            return (None, faults);
        }
        pass.left_out.insert(path);
    }
}

/// What a pass learns from those before it and tells the next.
#[derive(Default)]
struct Pass {
    /// Paths of the parts that are skipped.
    left_out: BTreeSet<String>,
    /// Path of the part that ended this pass.
    failed: Option<String>,
}

impl Pass {
    /// A required key that is missing only because it is left out needs no second report.
    fn is_consequence(&self, path: &str, error: &Error) -> bool {
        match error.without_snippet() {
            Error::SerdeMissingField { field, .. } => self.left_out.contains(&join(path, field)),
            _ => false,
        }
    }
}

/// A place in the document during a pass.
struct Spot<'p> {
    path: String,
    pass: &'p RefCell<Pass>,
}

/// Something of serde's at its place: a deserializer, a visitor or a seed.
struct At<'p, T> {
    spot: Spot<'p>,
    inner: T,
}

impl<'p> Spot<'p> {
    fn root(pass: &'p RefCell<Pass>) -> Self {
        let path = String::new();
        Self { path, pass }
    }

    fn below(&self, path: String) -> Self {
        let pass = self.pass;
        Self { path, pass }
    }

    fn of<T>(self, inner: T) -> At<'p, T> {
        At { spot: self, inner }
    }

    fn is_left_out(&self) -> bool {
        self.pass.borrow().left_out.contains(&self.path)
    }

    /// Notes that this part could not be read, unless something further inside is to blame.
    fn failed(&self) {
        let mut pass = self.pass.borrow_mut();
        pass.failed.get_or_insert_with(|| self.path.clone());
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        number: u32,
        inner: Option<Inner>,
        rules: Vec<Rule>,
        labels: BTreeMap<String, String>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        flag: bool,
        words: Vec<String>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Rule {
        name: String,
        #[serde(default)]
        limit: u8,
    }

    fn paths(text: &str) -> (Option<Sample>, Vec<String>) {
        let (value, faults) = read(text, super::super::options);
        (value, faults.into_iter().map(|fault| fault.path).collect())
    }

    #[test]
    fn every_faulty_part_is_found_and_the_rest_is_read() {
        let text = "number: x\ninner: {flag: 3, words: [a, [b], c], fleg: true}\nrules:\n- {name: a, limit: 300}\n- {limit: 2}\n- {name: [x]}\n- {name: d}\nlabels: {a.b: c}\nnmuber: 1\n";
        let (value, paths) = paths(text);
        assert_eq!(
            paths,
            [
                "number",
                "inner.flag",
                "inner.words[1]",
                "inner.fleg",
                "rules[0].limit",
                "rules[1]",
                "rules[2].name",
                "nmuber"
            ]
        );
        let value = value.unwrap();
        assert_eq!(value.inner.unwrap().words, ["a", "c"]);
        let rule = |name: &str| Rule {
            name: name.into(),
            limit: 0,
        };
        assert_eq!(value.rules, [rule("a"), rule("d")]);
        assert_eq!(value.labels["a.b"], "c");
    }

    #[test]
    fn what_is_no_yaml_is_one_fault_and_no_value() {
        for text in [
            "number: [",
            "inner: {words: [a, b\n",
            "number: 1\nnumber: 2\n",
            "- 1\n",
            "x",
        ] {
            let (value, paths) = paths(text);
            assert!(
                value.is_none() && paths.len() == 1,
                "{text:?}: {value:?} {paths:?}"
            );
        }
        let (_, paths) = paths("nmuber: 1\ninner: {words: [a, b\n");
        assert_eq!(paths, ["nmuber", "inner.words[1]"]);
    }

    #[test]
    fn hostile_texts_cost_a_bounded_number_of_passes() {
        let text: String = (0..1_000).map(|n| format!("key{n}: 1\n")).collect();
        assert_eq!(paths(&text).1.len(), MAX_FAULTS);
    }
}
