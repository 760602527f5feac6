//! Which module uses which, read from the paths in the sources.
//!
//! Modules are rooms in rooms. An arrow belongs to the smallest room that holds both of its ends: what
//! `server/src/store/sqlite/live.rs` takes from `server/src/audit/event.rs` is the arrow `store: audit` of the room `server`.
//! A module and what lies in it belong together; between them there is no arrow.

use std::collections::{BTreeMap, BTreeSet};

use signet_tests::repository::SourceFile;

use crate::{
    paths::{Named, named},
    tokens::shipped,
};

/// A module's path below its crate; the root's is empty.
type Module = Vec<String>;

/// One module that uses another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Arrow {
    /// The folder of the crate, and the modules that both ends lie in: `server`, `server/store`.
    pub(crate) room: String,
    pub(crate) from: String,
    pub(crate) to: String,
    /// The first line that makes it: `server/src/audit.rs:28`.
    pub(crate) place: String,
}

/// The arrows of every crate, sorted, each once. What only tests compile is left out.
pub(crate) fn arrows(files: &[SourceFile]) -> Vec<Arrow> {
    let mut crates: BTreeMap<&str, Crate<'_>> = BTreeMap::new();
    for file in files {
        if let Some((folder, module)) = place_of(&file.path) {
            crates
                .entry(folder)
                .or_default()
                .files
                .entry(module)
                .or_default()
                .push(file);
        }
    }
    let mut found: BTreeMap<(String, String, String), String> = BTreeMap::new();
    for (folder, mut own) in crates {
        own.leave_out_tests();
        own.read_names();
        for arrow in own.arrows(folder) {
            found
                .entry((arrow.room, arrow.from, arrow.to))
                .or_insert(arrow.place);
        }
    }
    let arrow = |((room, from, to), place)| Arrow {
        room,
        from,
        to,
        place,
    };
    found.into_iter().map(arrow).collect()
}

/// The crate's folder and the module of a file; none where no module lies.
fn place_of(path: &str) -> Option<(&str, Module)> {
    let (folder, below) = path.split_once("/src/")?;
    let below = below.strip_suffix(".rs")?;
    if folder == "proto" || folder.ends_with("fuzz") {
        return None;
    }
    if let Some(program) = below.strip_prefix("bin/") {
        let (name, below) = program.split_once('/')?;
        return Some((
            &path[..folder.len() + "/src/bin/".len() + name.len()],
            module(below),
        ));
    }
    Some((folder, module(below)))
}

fn module(below: &str) -> Module {
    let below = below.strip_suffix("/mod").unwrap_or(below);
    if ["lib", "main"].contains(&below) {
        Module::new()
    } else {
        below.split('/').map(str::to_owned).collect()
    }
}

#[derive(Default)]
struct Crate<'f> {
    /// The files of each module: one, and at the root `lib.rs` and `main.rs`.
    files: BTreeMap<Module, Vec<&'f SourceFile>>,
    /// What each module names, and the file that does.
    names: BTreeMap<Module, Vec<(&'f str, Named)>>,
}

impl Crate<'_> {
    /// Keeps what the root declares, directly or not, for more than tests.
    fn leave_out_tests(&mut self) {
        let mut kept = BTreeSet::from([Module::new()]);
        let mut open = vec![Module::new()];
        while let Some(module) = open.pop() {
            for file in self.files.get(&module).into_iter().flatten() {
                let tokens = shipped(&file.text);
                for words in tokens
                    .windows(3)
                    .filter(|words| words[0].text == "mod" && words[2].text == ";")
                {
                    let child = [&module[..], &[words[1].text.to_owned()]].concat();
                    kept.insert(child.clone());
                    open.push(child);
                }
            }
        }
        self.files.retain(|module, _| kept.contains(module));
    }

    fn read_names(&mut self) {
        for (module, files) in &self.files {
            let mut names = Vec::new();
            for SourceFile { path, text } in files.iter().copied() {
                names.extend(
                    named(&shipped(text))
                        .into_iter()
                        .map(|name| (path.as_str(), name)),
                );
            }
            self.names.insert(module.clone(), names);
        }
    }

    fn arrows(&self, folder: &str) -> Vec<Arrow> {
        let mut found = Vec::new();
        for (from, names) in &self.names {
            for (path, name) in names {
                let Some(to) = self.absolute(from, name).map(|parts| self.owner(parts)) else {
                    continue;
                };
                let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
                if shared < from.len() && shared < to.len() {
                    found.push(Arrow {
                        room: [&[folder.to_owned()], &from[..shared]].concat().join("/"),
                        from: from[shared].clone(),
                        to: to[shared].clone(),
                        place: format!("{path}:{}", name.line),
                    });
                }
            }
        }
        found
    }

    /// A path of this crate from its root on; none of another crate's.
    fn absolute(&self, module: &Module, named: &Named) -> Option<Vec<String>> {
        let mut base = [&module[..], &named.inside].concat();
        let mut parts = &named.parts[..];
        match parts.first()?.as_str() {
            "crate" => base.clear(),
            "self" | "super" => {}
            child => {
                let child = [&base[..], &[child.to_owned()]].concat();
                return self
                    .files
                    .contains_key(&child)
                    .then(|| [&base[..], parts].concat());
            }
        }
        while let Some((first, rest)) = parts.split_first()
            && ["crate", "self", "super"].contains(&first.as_str())
        {
            if first == "super" {
                base.pop();
            }
            parts = rest;
        }
        Some([&base[..], parts].concat())
    }

    /// The module in which a thing is written, whoever hands it on.
    fn owner(&self, mut path: Vec<String>) -> Module {
        // Who hands on what was handed on comes to an end; the bound is for what does not compile.
        for _ in 0..16 {
            let inner = (0..=path.len())
                .rev()
                .find(|end| self.files.contains_key(&path[..*end]));
            let depth = inner.unwrap_or(0);
            match path
                .get(depth)
                .and_then(|name| self.handed_on(&path[..depth], name))
            {
                Some(origin) => path = [&origin[..], &path[depth + 1..]].concat(),
                None => {
                    path.truncate(depth);
                    break;
                }
            }
        }
        path
    }

    /// Where a module took `name` from.
    fn handed_on(&self, module: &[String], name: &str) -> Option<Vec<String>> {
        let names = self.names.get(module)?;
        let (_, import) = names
            .iter()
            .find(|(_, named)| named.alias.as_deref() == Some(name))?;
        self.absolute(&module.to_vec(), import)
    }
}

#[test]
fn arrows_are_found_wherever_a_path_stands() {
    let file = |path: &str, text: &str| SourceFile {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let files = [
        file(
            "x/src/lib.rs",
            "mod a; pub mod b; #[cfg(test)] mod tests; pub use b::inner::Thing;",
        ),
        file(
            "x/src/a.rs",
            "mod one; mod two;\npub(crate) use one::One; struct A;",
        ),
        file("x/src/a/one.rs", "\nfn f() -> crate::b::B { g() }"),
        file(
            "x/src/a/two.rs",
            "use super::{A, One};\nuse crate::Thing; use std::io;",
        ),
        file(
            "x/src/b.rs",
            "pub mod inner; use self::inner::Thing; #[cfg(test)] use crate::a;",
        ),
        file(
            "x/src/b/inner.rs",
            "mod deep { use super::super::B; use crate::a::One; }",
        ),
        file("x/src/tests.rs", "use crate::{a, b};"),
        file("x/src/bin/tool/main.rs", "mod c; mod d;"),
        file("x/src/bin/tool/c.rs", "use crate::d; use x::b;"),
        file("x/src/bin/tool/d.rs", ""),
        file("x/fuzz/src/lib.rs", "mod e; mod f;"),
    ];
    let found: Vec<String> = arrows(&files)
        .iter()
        .map(|arrow| format!("{} {} {} {}", arrow.room, arrow.from, arrow.to, arrow.place))
        .collect();
    assert_eq!(
        found,
        [
            "x a b x/src/a/one.rs:2",
            "x b a x/src/b/inner.rs:1",
            "x/a two one x/src/a/two.rs:1",
            "x/src/bin/tool c d x/src/bin/tool/c.rs:1",
        ]
    );
}
