//! The paths that a source file names.

use crate::tokens::Token;

/// A path as it is written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Named {
    /// Its parts; a glob ends before the `*`.
    pub(crate) parts: Vec<String>,
    /// What a `use` calls it, `*` for a glob; none outside of one.
    pub(crate) alias: Option<String>,
    /// The modules around it in this file.
    pub(crate) inside: Vec<String>,
    /// From 1 on.
    pub(crate) line: usize,
}

/// Every path of a `use`, and every other of two or more parts.
pub(crate) fn named(tokens: &[Token<'_>]) -> Vec<Named> {
    let mut reader = Reader {
        tokens,
        at: 0,
        inside: Vec::new(),
        depth: 0,
        found: Vec::new(),
    };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.found
}

struct Reader<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    /// The inline modules around this place, each with the depth of its braces.
    inside: Vec<(String, usize)>,
    depth: usize,
    found: Vec<Named>,
}

impl Reader<'_, '_> {
    fn word(&self, ahead: usize) -> &str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn step(&mut self) {
        let before = if self.at == 0 {
            ""
        } else {
            self.tokens[self.at - 1].text
        };
        match self.word(0) {
            "use" => {
                self.at += 1;
                self.tree(&[]);
            }
            "mod" if self.word(2) == "{" => {
                self.inside.push((self.word(1).to_owned(), self.depth));
                self.at += 2;
            }
            // `pub(in crate::x)` says who may see, not what is used.
            word if is_name(word) && self.word(1) == "::" && before != "in" && before != "::" => self.path(),
            brace => {
                match brace {
                    "{" => self.depth += 1,
                    "}" => {
                        self.depth = self.depth.saturating_sub(1);
                        self.inside.retain(|(_, depth)| *depth < self.depth);
                    }
                    _ => {}
                }
                self.at += 1;
            }
        }
    }

    /// One path outside of a `use`.
    fn path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut parts = vec![self.word(0).to_owned()];
        self.at += 1;
        while self.word(0) == "::" && is_name(self.word(1)) {
            parts.push(self.word(1).to_owned());
            self.at += 2;
        }
        if parts.len() > 1 {
            self.find(parts, None, line);
        }
    }

    /// What follows `use`, or stands between the braces of one; `stem` is what stands before them.
    fn tree(&mut self, stem: &[String]) {
        let mut parts = stem.to_vec();
        while self.at < self.tokens.len() {
            let line = self.tokens[self.at].line;
            match self.word(0) {
                "::" => {
                    self.at += 1;
                    continue;
                }
                "*" => {
                    self.at += 1;
                    self.find(parts, Some("*".to_owned()), line);
                    return;
                }
                "{" => {
                    self.at += 1;
                    while !["}", ""].contains(&self.word(0)) {
                        self.tree(&parts);
                        self.at += usize::from(self.word(0) == ",");
                    }
                    self.at += 1;
                    return;
                }
                "self" if !parts.is_empty() => self.at += 1,
                word if is_name(word) => {
                    parts.push(word.to_owned());
                    self.at += 1;
                }
                _ => return,
            }
            if self.word(0) == "as" {
                let alias = self.word(1).to_owned();
                self.at += 2;
                self.find(parts, Some(alias), line);
                return;
            }
            if self.word(0) != "::" {
                let alias = parts.last().cloned();
                self.find(parts, alias, line);
                return;
            }
        }
    }

    fn find(&mut self, parts: Vec<String>, alias: Option<String>, line: usize) {
        let inside = self.inside.iter().map(|(name, _)| name.clone()).collect();
        self.found.push(Named {
            parts,
            alias,
            inside,
            line,
        });
    }
}

fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

#[test]
fn paths_are_read_in_every_form() {
    use crate::tokens::tokens;
    let text = "
        use crate::a::{self, b::C, d::{E as F, *}};
        pub(in crate::g) use super::super::h;
        use std::io;
        mod i { use super::j; }
        fn k(l: &crate::m::N) -> self::o::P { super::q::<crate::r>(); t::u(v, Vec::<W>::new()) }
    ";
    let found: Vec<String> = named(&tokens(text))
        .iter()
        .map(|named| {
            let alias = named.alias.as_deref().unwrap_or("-");
            format!(
                "{}{} {} {}",
                named.line,
                named.inside.concat(),
                named.parts.join("/"),
                alias
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "2 crate/a a",
            "2 crate/a/b/C C",
            "2 crate/a/d/E F",
            "2 crate/a/d *",
            "3 super/super/h h",
            "4 std/io io",
            "5i super/j j",
            "6 crate/m/N -",
            "6 self/o/P -",
            "6 super/q -",
            "6 crate/r -",
            "6 t/u -",
        ]
    );
}
