use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use ring::rand::SystemRandom;
use signet_certs::signer::{LocalSigner, SignatureAlgorithm};
use signet_certs::time::rfc3339;
use tempfile::TempDir;

use super::super::AuditKey;
use super::*;
use crate::audit_event::StoredLine;

/// One server that writes: its lines, as they leave it.
struct Server {
    name: String,
    key: AuditKey,
    end: AuditCursor,
    boot: u64,
    /// How far its clock is off.
    ahead: i64,
    lines: Vec<String>,
}

impl Server {
    fn new(name: &str) -> Self {
        let (signer, _) = LocalSigner::generate(SignatureAlgorithm::P256, &SystemRandom::new()).unwrap();
        Self {
            name: name.to_owned(),
            key: AuditKey::new(Arc::new(signer)),
            end: AuditCursor::default(),
            boot: 1,
            ahead: 0,
            lines: Vec::new(),
        }
    }

    /// A minute of it has so many lines.
    fn time(&self) -> String {
        let seconds = (1_800_000_000 + self.end.sequence).saturating_add_signed(self.ahead);
        rfc3339(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    fn says(&mut self, what: &str) {
        let line = StoredLine {
            sequence: self.end.sequence + 1,
            boot: self.boot,
            body: format!("{{\"time\":\"{}\",\"event\":\"{what}\"}}", self.time()),
        };
        let (text, end) = self.end.extend(&self.name, &line);
        self.end = end;
        self.lines.push(text);
    }

    fn head(&self) -> String {
        self.key.head(&self.name, &self.end, &self.time()).unwrap()
    }

    fn signs(&mut self) {
        self.lines.push(self.head());
    }

    /// A log of so many lines, with a head at the end and some on the way.
    fn wrote(name: &str, lines: u64, draw: &mut fastrand::Rng) -> Self {
        let mut server = Self::new(name);
        for number in 0..lines {
            server.says(&format!("thing_{number}"));
            server.boot += u64::from(draw.u8(..10) == 0);
            if draw.u8(..6) == 0 {
                server.signs();
            }
        }
        server.signs();
        server
    }

    fn written(&self) -> Written {
        Written {
            server: self.name.clone(),
            end: self.end,
        }
    }

    fn trusted(&self) -> Trusted {
        Trusted {
            keys: vec![self.key.public()],
            ids: vec![],
        }
    }
}

/// Files that are being read.
struct Files(TempDir, Vec<PathBuf>);

impl Files {
    fn of<T: AsRef<[u8]>>(texts: &[T]) -> Self {
        let dir = signet_testkit::folder();
        let mut paths = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            paths.push(dir.path().join(format!("audit.log.{index}")));
            fs::write(&paths[index], text).unwrap();
        }
        Self(dir, paths)
    }

    fn verdict(&self, trusted: &Trusted) -> Verdict {
        verify(&self.1, trusted, None).unwrap()
    }

    /// Faults without the folder's name.
    fn said(&self, verdict: &Verdict) -> Vec<String> {
        let folder = format!("{}/", self.0.path().display());
        let faults = verdict.faults.told().iter();
        faults
            .map(|fault| fault.to_string().replace(&folder, ""))
            .collect()
    }
}

fn whole(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn said_of(texts: &[String], server: &Server) -> Vec<String> {
    let files = Files::of(texts);
    let verdict = files.verdict(&server.trusted());
    files.said(&verdict)
}

fn ten() -> Server {
    let mut server = Server::new("s");
    (0..10).for_each(|number| server.says(&format!("thing_{number}")));
    server.signs();
    server
}

#[test]
fn a_gap_between_files_is_named_in_whatever_order_they_come() {
    let server = ten();
    let (old, new) = (whole(&server.lines[..3]), whole(&server.lines[6..]));
    let gap = |new: &str, old: &str| {
        format!("{new}: sequences 4 to 6 are missing between {old} and this line: lines were removed")
    };
    assert_eq!(
        said_of(&[old.clone(), new.clone()], &server),
        [gap("audit.log.1:1", "audit.log.0:3")]
    );
    assert_eq!(
        said_of(&[new, old], &server),
        [gap("audit.log.0:1", "audit.log.1:3")]
    );
}

#[test]
fn a_tail_that_was_cut_off_shows_by_a_head_kept_elsewhere_and_by_what_the_server_says() {
    let server = ten();
    let (cut, head) = (whole(&server.lines[..8]), format!("{}\n", server.head()));
    let ends =
        "audit.log.1:1: is a head for sequence 10, and the log of s ends at 8: its last lines were cut off";
    assert_eq!(said_of(&[cut.clone(), head], &server)[0], ends);
    let files = Files::of(&[cut]);
    let verdict = verify(&files.1, &Trusted::default(), Some(&server.written())).unwrap();
    assert_eq!(
        files.said(&verdict)[0],
        "audit.log.0:8: is the last line of s, which has written up to sequence 10: the last lines were cut off, or are in a file \
         that is not given"
    );
    let all = Files::of(&[whole(&server.lines[..10])]);
    let verdict = verify(&all.1, &Trusted::default(), Some(&server.written())).unwrap();
    assert_eq!(all.said(&verdict), [""; 0]);
    assert_eq!(verdict.servers[0].vouched_to, Some(10), "the server itself does");
}

#[test]
fn a_part_of_a_log_is_whole_and_says_where_it_begins() {
    let server = ten();
    let mut part = server.lines[4..].to_vec();
    part.insert(0, "{\"server\":\"s\",\"boo".to_owned());
    let files = Files::of(&[whole(&part)]);
    let verdict = files.verdict(&server.trusted());
    assert_eq!(files.said(&verdict), [""; 0]);
    assert_eq!((verdict.servers[0].first, verdict.servers[0].lines), (5, 6));
    assert_eq!(verdict.halves.len(), 1);
}

/// Nobody can tell half of a line from one that was made half of one. At the beginning it is as good as removed, and the log begins behind it;
/// anywhere else it is missed.
#[test]
fn a_line_that_was_made_half_of_one_is_missed() {
    let server = ten();
    let half = |line: usize| {
        let mut lines = server.lines.clone();
        let last = lines[line].len() - 1;
        lines[line].replace_range(last.., " ");
        lines
    };
    let files = Files::of(&[whole(&half(0))]);
    let verdict = files.verdict(&server.trusted());
    assert_eq!((files.said(&verdict), verdict.halves.len()), (vec![], 1));
    assert_eq!((verdict.servers[0].first, verdict.servers[0].lines), (2, 9));
    for line in 1..10 {
        assert!(!said_of(&[whole(&half(line))], &server).is_empty(), "{line}");
    }
}

#[test]
fn a_head_at_the_beginning_of_a_file_is_held_against_the_line_after_it() {
    let mut server = Server::new("s");
    server.says("one");
    server.signs();
    server.says("two");
    server.signs();
    let rest = whole(&server.lines[1..]);
    assert_eq!(said_of(&[rest], &server), [""; 0]);
    let mut other = ten();
    other.key = server.key.clone();
    let mut lines = server.lines[1..].to_vec();
    other.end.sequence = 1;
    lines[0] = other.head();
    let said = said_of(&[whole(&lines)], &server);
    assert_eq!(
        said,
        ["audit.log.0:1: is a head for another line of sequence 1, which was changed"]
    );
}

/// Who can write to the file can write all of it anew; only a key that he does not have tells.
#[test]
fn a_log_written_anew_shows_by_its_key_or_its_lack_of_heads() {
    let (server, forger) = (ten(), ten());
    assert_eq!(said_of(&[whole(&forger.lines)], &forger), [""; 0]);
    let forged = Files::of(&[whole(&forger.lines)]);
    let verdict = forged.verdict(&server.trusted());
    let kinds: Vec<_> = verdict.faults.told().iter().map(|fault| fault.kind).collect();
    assert_eq!(kinds, [FaultKind::Forged, FaultKind::Unsigned]);
    let by_id = |key: &AuditKey| Trusted {
        keys: vec![],
        ids: vec![key.public().id().to_uppercase()],
    };
    assert_eq!(forged.verdict(&by_id(&forger.key)).faults.count(), 0);
    assert_eq!(forged.verdict(&by_id(&server.key)).faults.count(), 2);
    // Half of it, and behind that somebody else's.
    let both = [&server.lines[..], &forger.lines[..]].concat();
    assert!(
        Files::of(&[whole(&both)])
            .verdict(&Trusted::default())
            .faults
            .count()
            > 0
    );
    // The heads of the last minutes left out.
    let mut server = ten();
    (0..70).for_each(|_| server.says("anew"));
    let said = said_of(&[whole(&server.lines)], &server);
    assert_eq!(said.len(), 1);
    assert!(
        said[0].starts_with(
            "audit.log.0:81: is the last of lines that are dated more than 60 s from the newest head"
        ),
        "{said:?}"
    );
}

/// Whoever has no key can only add behind the last head, and chooses the dates.
#[test]
fn lines_added_behind_an_old_head_show_by_any_of_their_dates() {
    for (ahead, kinds) in [
        (vec![0, 0], 0),
        (vec![40, 0], 0),
        (vec![3_600, 0], 1),
        (vec![-3_600, 0], 1),
        (vec![0, 3_600, 0, -10], 1),
    ] {
        let mut server = ten();
        for ahead in &ahead {
            server.ahead = *ahead;
            server.says("added");
        }
        let said = said_of(&[whole(&server.lines)], &server);
        assert_eq!(said.len(), kinds, "{ahead:?}: {said:?}");
        // In a file of their own.
        let (old, added) = server.lines.split_at(11);
        let said = said_of(&[whole(old), whole(added)], &server);
        assert_eq!(said.len(), kinds, "{ahead:?}: {said:?}");
        // A head behind them vouches for whatever they say.
        server.ahead = 0;
        server.signs();
        assert_eq!(said_of(&[whole(&server.lines)], &server), [""; 0]);
    }
}

#[test]
fn copies_of_the_same_lines_are_counted_and_must_be_the_same() {
    let server = ten();
    let (all, middle) = (whole(&server.lines), whole(&server.lines[3..7]));
    let files = Files::of(&[middle.clone(), all.clone(), all.clone()]);
    let verdict = files.verdict(&server.trusted());
    assert_eq!(files.said(&verdict), [""; 0]);
    assert_eq!((verdict.servers[0].lines, verdict.servers[0].repeated), (10, 14));
    let changed = middle.replace("thing_6", "thing_x");
    let said = said_of(&[all, changed], &server);
    assert_eq!(
        said,
        [
            "audit.log.1:4: has sequence 7, and so has another line, audit.log.0:7: one was changed, or an older copy of the store was \
          put back"
        ]
    );
}

#[test]
fn lines_of_made_up_servers_are_read_up_to_a_bound_and_said_to_be_that() {
    let lines = (0..1_100).flat_map(|number| {
        let mut server = Server::new(&format!("s{number}"));
        server.says("anything");
        server.lines
    });
    let text = whole(&lines.collect::<Vec<_>>());
    let files = Files::of(&[text]);
    let verdict = files.verdict(&Trusted::default());
    assert!(verdict.servers.len() <= 1_001, "{}", verdict.servers.len());
    let said = files.said(&verdict);
    assert!(
        said.iter()
            .any(|line| line.contains("of more servers than any trust domain has: the rest was not read")),
        "{said:?}"
    );
}

#[test]
fn what_is_no_log_is_none() {
    let server = ten();
    assert_eq!(
        said_of(&[String::new()], &server),
        ["there is no line of an audit log"]
    );
    assert_eq!(
        said_of(&["nonsense\n".to_owned()], &server),
        ["audit.log.0:1: is no line of an audit log"]
    );
    let unreadable = |path: &str| {
        signet_runtime::error::chain(&verify(&[path.into()], &Trusted::default(), None).unwrap_err())
    };
    assert!(unreadable("/nowhere/audit.log").starts_with("/nowhere/audit.log: cannot read it: "));
    assert!(unreadable("/dev/null").ends_with("it is no regular file"));
}

#[test]
fn an_order_that_is_broken_everywhere_is_given_up_in_bounded_memory() {
    let mut server = Server::new("s");
    (0..10).for_each(|_| server.says("x"));
    // Each line of its own sequence, none behind the other.
    let line = |sequence: u64| {
        server.lines[0].replace("\"sequence\":1,", &format!("\"sequence\":{},", sequence * 2))
    };
    let text: String = (0..210_000).map(|sequence| line(sequence) + "\n").collect();
    let verdict = Files::of(&[text]).verdict(&Trusted::default());
    assert!(verdict.faults.count() > 100_000);
    assert!(verdict.faults.told().len() <= 1_000);
}

/// A log of one or two servers that were restarted and killed, in one to three files: the texts of the files, and how many
/// lines are different and how many are repeated, by server.
fn living(draw: &mut fastrand::Rng) -> (Vec<Vec<String>>, Vec<(u64, u64)>) {
    let mut streams = Vec::new();
    let mut counts = Vec::new();
    for name in ["a", "b"].iter().take(draw.usize(1..=2)) {
        let server = Server::wrote(name, draw.u64(3..40), draw);
        let (mut lines, mut repeated) = (server.lines.clone(), 0);
        if draw.bool() {
            // Killed within a line: what was not saved is written again, from some line on.
            let killed = draw.usize(1..lines.len());
            let from = draw.usize(..killed);
            let half = &lines[killed][..draw.usize(1..lines[killed].len())];
            let again = lines[from..].to_vec();
            let events = |line: &&String| line.starts_with("{\"server\"");
            repeated = again[..killed - from].iter().filter(events).count() as u64;
            lines = [&lines[..killed], &[half.to_owned()], &again].concat();
        }
        counts.push((server.end.sequence, repeated));
        streams.push(lines);
    }
    let mut merged = Vec::new();
    while streams.iter().any(|stream| !stream.is_empty()) {
        let stream = draw.usize(..streams.len());
        if !streams[stream].is_empty() {
            merged.push(streams[stream].remove(0));
        }
    }
    let mut files = Vec::new();
    for _ in 0..draw.usize(0..3) {
        files.push(merged.split_off(draw.usize(..=merged.len())));
    }
    files.push(merged);
    draw.shuffle(&mut files);
    (files, counts)
}

/// One edit of a log, which it draws.
fn edit_is_found(seed: u64) -> Result<(), TestCaseError> {
    let mut draw = fastrand::Rng::with_seed(seed);
    let server = Server::wrote("s", draw.u64(3..40), &mut draw);
    // In two files, and the newest head apart.
    let mut first = server.lines.clone();
    let at = draw.usize(2..first.len());
    let mut files = vec![first.split_off(at)];
    files.insert(0, first);
    files.push(vec![server.head()]);
    let file = draw.usize(..2);
    let events: Vec<usize> = (0..files[file].len())
        .filter(|line| files[file][*line].starts_with("{\"server\""))
        .collect();
    prop_assume!(!events.is_empty());
    let one = events[draw.usize(..events.len())];
    let edit = draw.usize(..4);
    let mut texts: Vec<Vec<u8>> = Vec::new();
    match edit {
        0 => drop(files[file].remove(one)),
        1 => {}
        2 => {
            let other = events[draw.usize(..events.len())];
            prop_assume!(one != other);
            files[file].swap(one, other);
        }
        _ => {
            let from = draw.usize(..files[1].len());
            let cut = files[1].split_off(from);
            prop_assume!(cut.iter().any(|line| line.starts_with("{\"server\"")));
        }
    }
    // Without the beginning of the store a log is still whole, and says so.
    prop_assume!(edit != 0 || file != 0 || one != 0);
    texts.extend(files.iter().map(|lines| whole(lines).into_bytes()));
    if edit == 1 {
        let before: usize = files[file][..one].iter().map(|line| line.len() + 1).sum();
        let at = before + draw.usize(..files[file][one].len());
        texts[file][at] ^= draw.u8(1..=255);
    }
    let verdict = Files::of(&texts).verdict(&server.trusted());
    // A byte may make the first line of the store half of one. That is as good as gone: the verdict says that the log begins at 2.
    if edit == 1 && (file, one) == (0, 0) && !verdict.halves.is_empty() {
        prop_assert_eq!(verdict.servers[0].first, 2);
        return Ok(());
    }
    prop_assert!(
        verdict.faults.count() > 0,
        "edit {} of line {} of file {} is not found",
        edit,
        one,
        file
    );
    Ok(())
}

/// Here a byte makes half a line of the first one.
#[test]
fn a_first_line_that_is_no_longer_one_is_where_the_log_begins() {
    edit_is_found(10_690_861_870_079_018_403).unwrap();
}

proptest! {
    #[test]
    fn a_log_that_nobody_touched_is_whole(seed in any::<u64>()) {
        let (lines, counts) = living(&mut fastrand::Rng::with_seed(seed));
        let texts: Vec<String> = lines.iter().map(|lines| whole(lines)).collect();
        let files = Files::of(&texts);
        let verdict = files.verdict(&Trusted::default());
        prop_assert_eq!(files.said(&verdict), [""; 0]);
        let found: Vec<_> = verdict.servers.iter().map(|log| (log.lines, log.repeated)).collect();
        prop_assert_eq!(found, counts);
        prop_assert!(verdict.servers.iter().all(|log| log.vouched_to == Some(log.last)));
    }

    #[test]
    fn every_removal_change_move_and_cut_is_found(seed in any::<u64>()) {
        edit_is_found(seed)?;
    }

    #[test]
    fn no_byte_of_a_head_can_be_changed_without_a_word(seed in any::<u64>()) {
        let mut draw = fastrand::Rng::with_seed(seed);
        let server = ten();
        let mut text = whole(&server.lines).into_bytes();
        let head = server.head().len();
        let at = text.len() - 1 - draw.usize(1..=head);
        text[at] ^= draw.u8(1..=255);
        let verdict = Files::of(&[text]).verdict(&server.trusted());
        prop_assert!(verdict.faults.count() > 0 || !verdict.halves.is_empty());
    }
}
