//! Where in a YAML text each key stands, so that what is wrong with a value can be shown with its line.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{Location, Options, Spanned};

/// Lines and columns, from 1, by path: `listen.agents`, `rules[2].name`.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(HashMap<String, (u64, u64)>);

impl Places {
    /// The places in `text`; none where it is no YAML.
    pub(super) fn of(text: &str, mut options: Options) -> Self {
        // Someone else refuses a key given twice; here the later one may count.
        options.duplicate_keys = DuplicateKeyPolicy::LastWins;
        let mut places = Self::default();
        if let Ok(root) = serde_saphyr::from_str_with_options(text, options) {
            places.walk(String::new(), &root);
        }
        places
    }

    /// Where `path` stands, or the nearest thing around it where the file does not have it; nothing if that is the file.
    pub(super) fn nearest(&self, path: &str) -> Option<(u64, u64)> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(*place);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    fn walk(&mut self, path: String, node: &Node) {
        match node {
            Node::Leaf => {}
            Node::Map(entries) => {
                for (key, value) in entries {
                    self.add(join(&path, &key.value), &key.defined, value);
                }
            }
            Node::List(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.add(element_of(&path, index), &element.defined, &element.value);
                }
            }
        }
    }

    fn add(&mut self, path: String, place: &Location, value: &Node) {
        self.0.insert(path.clone(), (place.line(), place.column()));
        self.walk(path, value);
    }
}

/// The path of a key in the mapping at `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The path of an element of the list at `path`.
pub(super) fn element_of(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Any YAML, of which only the shape is kept.
enum Node {
    Leaf,
    Map(Vec<(Spanned<String>, Self)>),
    List(Vec<Spanned<Self>>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

/// Scalars of every kind are leaves.
macro_rules! leaves {
    ($($visit:ident($type:ty))*) => {
        $(fn $visit<E>(self, _: $type) -> Result<Node, E> {
            Ok(Node::Leaf)
        })*
    };
}

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    leaves!(visit_bool(bool) visit_i64(i64) visit_u64(u64) visit_i128(i128) visit_u128(u128) visit_f64(f64)
        visit_str(&str));

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YAML")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = list.next_element()? {
            elements.push(element);
        }
        Ok(Node::List(elements))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_elements_have_places() {
        let text = "a: 1\nb:\n  c: x\n  d: [1, {e: null}]\nf:\n  - g: 2.5\n    g: true\n  - h\n";
        let places = Places::of(text, super::super::options());
        for (path, place) in [
            ("a", (1, 1)),
            ("b", (2, 1)),
            ("b.c", (3, 3)),
            ("b.d[0]", (4, 7)),
            ("b.d[1].e", (4, 11)),
            ("f[0]", (6, 5)),
            ("f[1]", (8, 5)),
            // Absent: what is around it.
            ("b.x.y", (2, 1)),
            ("f[1].x", (8, 5)),
            ("f[7]", (5, 1)),
        ] {
            assert_eq!(places.nearest(path), Some(place), "{path}");
        }
        assert_eq!(places.nearest("x"), None);
        assert_eq!(places.nearest(""), None);
        assert_eq!(Places::of("a: [", super::super::options()).nearest("a"), None);
    }
}
