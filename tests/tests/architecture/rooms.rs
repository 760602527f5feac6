//! The arrows between modules stand in `rooms.txt`, and none of them closes a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
};

use signet_tests::repository::{root, rust_files};

use crate::modules::{Arrow, arrows};

const TABLE: &str = "tests/tests/architecture/rooms.txt";
const PRINT: &str =
    "SIGNET_PRINT_ARROWS=1 cargo test -p signet-tests --test architecture rooms -- --nocapture";

/// Room, from, to.
type Line = (String, String, String);

fn lines(arrows: &[Arrow]) -> BTreeSet<Line> {
    let line = |arrow: &Arrow| (arrow.room.clone(), arrow.from.clone(), arrow.to.clone());
    arrows.iter().map(line).collect()
}

fn read(table: &str) -> BTreeSet<Line> {
    let mut room = "";
    let mut found = BTreeSet::new();
    for line in table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        if let Some(name) = line.strip_prefix('[') {
            room = name.trim_end_matches(']');
        } else {
            let (from, to) = line
                .split_once(": ")
                .unwrap_or_else(|| panic!("{TABLE}: no arrow: {line}"));
            found.extend(
                to.split(' ')
                    .map(|to| (room.to_owned(), from.to_owned(), to.to_owned())),
            );
        }
    }
    found
}

fn written(lines: &BTreeSet<Line>) -> String {
    let mut text = String::new();
    let (mut last_room, mut last_from) = ("", "");
    for (room, from, to) in lines {
        if room != last_room {
            write!(text, "\n\n[{room}]").unwrap();
            last_from = "";
        }
        if from != last_from {
            write!(text, "\n{from}:").unwrap();
        }
        write!(text, " {to}").unwrap();
        (last_room, last_from) = (room, from);
    }
    text.trim_start().to_owned() + "\n"
}

#[test]
fn modules_use_each_other_only_along_the_table() {
    let found = arrows(&rust_files().unwrap());
    if std::env::var_os("SIGNET_PRINT_ARROWS").is_some() {
        println!("{}", written(&lines(&found)));
    }
    let table = read(&fs::read_to_string(root().join(TABLE)).unwrap());
    let faults = faults(&found, &table);
    assert!(
        faults.is_empty(),
        "{}\n\nAn arrow that is meant goes into {TABLE}, where a reviewer sees it; it may not close a circle. Else let the \
         caller hand in what is used, or move that to a module which both may use. `{PRINT}` prints the table as it would be.",
        faults.join("\n")
    );
}

fn faults(found: &[Arrow], table: &BTreeSet<Line>) -> Vec<String> {
    let mut faults = Vec::new();
    for Arrow {
        room,
        from,
        to,
        place,
    } in found
    {
        if !table.contains(&(room.clone(), from.clone(), to.clone())) {
            faults.push(format!("{place}: `{from}` of [{room}] may not use `{to}`"));
        }
    }
    for (room, from, to) in table.difference(&lines(found)) {
        faults.push(format!(
            "{TABLE}: [{room}] `{from}` does not use `{to}`: remove the word"
        ));
    }
    faults
}

#[test]
fn no_modules_go_round_in_a_circle() {
    let found = arrows(&rust_files().unwrap());
    let circles = circles(&found);
    assert!(
        circles.is_empty(),
        "{}\n\nMove what both ends use to a module of its own, or hand it in from above.",
        circles.join("\n")
    );
}

/// One circle of each room that has any, arrow by arrow.
fn circles(arrows: &[Arrow]) -> Vec<String> {
    let mut rooms: BTreeMap<&str, Vec<&Arrow>> = BTreeMap::new();
    for arrow in arrows {
        rooms.entry(&arrow.room).or_default().push(arrow);
    }
    let tell = |(room, arrows): (&str, Vec<&Arrow>)| {
        let circle = arrows
            .iter()
            .filter_map(|first| way_back(&arrows, first))
            .min_by_key(Vec::len)?;
        let arrow = |arrow: &&Arrow| format!("\n    {} → {}  {}", arrow.from, arrow.to, arrow.place);
        Some(format!(
            "[{room}] goes round:{}",
            circle.iter().map(arrow).collect::<String>()
        ))
    };
    rooms.into_iter().filter_map(tell).collect()
}

/// The shortest circle that begins with an arrow.
fn way_back<'a>(arrows: &[&'a Arrow], first: &'a Arrow) -> Option<Vec<&'a Arrow>> {
    let mut seen = BTreeSet::from([&first.to]);
    let mut ways = std::collections::VecDeque::from([vec![first]]);
    while let Some(way) = ways.pop_front() {
        let end = &way.last()?.to;
        if *end == first.from {
            return Some(way);
        }
        for next in arrows.iter().filter(|arrow| arrow.from == *end) {
            if seen.insert(&next.to) {
                ways.push_back([&way[..], &[next]].concat());
            }
        }
    }
    None
}

#[test]
fn a_new_arrow_a_gone_one_and_a_circle_are_told_with_their_lines() {
    let arrow = |room: &str, from: &str, to: &str, line: u32| Arrow {
        room: room.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        place: format!("{room}/src/{from}.rs:{line}"),
    };
    let found = [
        arrow("x", "a", "b", 1),
        arrow("x", "b", "c", 2),
        arrow("x", "c", "a", 3),
        arrow("y", "a", "b", 4),
    ];
    let text = "[x]\na: b\nb: c\nc: a\n\n[y]\na: b\n";
    assert_eq!(written(&lines(&found)), text);
    assert_eq!(faults(&found, &read(text)), [] as [&str; 0]);
    assert_eq!(
        faults(&found, &read("# Why.\n[x]\na: b d\nb: c\n\n[y]\na: b\n")),
        [
            "x/src/c.rs:3: `c` of [x] may not use `a`".to_owned(),
            format!("{TABLE}: [x] `a` does not use `d`: remove the word"),
        ]
    );
    assert_eq!(
        circles(&found),
        ["[x] goes round:\n    a → b  x/src/a.rs:1\n    b → c  x/src/b.rs:2\n    c → a  x/src/c.rs:3"]
    );
    assert_eq!(circles(&found[1..]), [] as [&str; 0]);
}
