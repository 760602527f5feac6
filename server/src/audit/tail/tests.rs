use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;

use super::*;

fn line(sequence: u64) -> String {
    format!(
        r#"{{"server":"s","boot":1,"sequence":{sequence},"previous":"00","event":"issued","spiffe_id":"spiffe://x/{sequence}"}}"#
    )
}

fn head(sequence: u64) -> String {
    format!(r#"{{"server":"s","event":"head","sequence":{sequence}}}"#)
}

fn lines(sequences: impl IntoIterator<Item = u64>) -> Vec<String> {
    sequences.into_iter().map(line).collect()
}

fn emit(tail: &AuditTail, sequences: impl IntoIterator<Item = u64>) {
    tail.emitted(sequences.into_iter().map(|sequence| (sequence, line(sequence))));
}

#[tokio::test]
async fn whoever_looks_on_is_told_each_line_once_and_what_he_missed() {
    let tail = AuditTail::new("s", None);
    tail.resumed(3);
    emit(&tail, 1..=5);
    let mut reader = tail.reader();
    let kept = reader.kept(&Filter::default(), 10);
    assert_eq!(
        kept.before,
        Place::line(4),
        "what the process before emitted is known"
    );
    assert_eq!(kept.lines.len(), 2);
    assert!(reader.more().now_or_never().is_none());
    // The sink failed, and lines are emitted again.
    emit(&tail, 5..=6);
    tail.signed(6, head(6));
    assert!(reader.more().await);
    let Batch { missed, lines } = reader.take();
    assert_eq!((missed, lines.len()), (0, 2));
    assert_eq!((&*lines[0], &*lines[1]), (line(6).as_str(), head(6).as_str()));
    let most = MOST_LINES as u64;
    emit(&tail, 7..=6 + most + 50);
    let Batch { missed, lines } = reader.take();
    assert_eq!((missed, lines.len()), (50, BATCH));
    assert_eq!(&*lines[0], line(57));
    tail.close();
    assert!(!reader.more().await);
}

#[tokio::test]
async fn what_is_kept_is_bounded_in_bytes_as_well() {
    let tail = AuditTail::new("s", None);
    let long = "x".repeat(1 << 20);
    for sequence in 1..=20 {
        tail.emitted([(sequence, long.clone())]);
    }
    let kept = tail.reader().kept(&Filter::default(), 100);
    assert_eq!(kept.lines.len(), 8);
}

#[test]
fn a_filter_looks_at_the_members_that_name_what_it_wants() {
    let issued = r#"{"event":"issued","serial":"0a","spiffe_id":"spiffe://x/a","pod_namespace":"shop","pod_name":"a-0","pod_uid":"u"}"#;
    let revoked = r#"{"event":"revoked","target":"spiffe://x/a","author":"uid:0","serials":[{"authority":"k","serial":"0a"}]}"#;
    let by_serial = r#"{"event":"revoked","target":"serial 0b","author":"uid:1","serials":[]}"#;
    let asked = r#"{"event":"admin_call","target":"pod shop/a-0","author":"uid:1"}"#;
    let refused = r#"{"event":"refused","caller":"spiffe://x/agent","pod_uid":"u","spiffe_id":null}"#;
    let all = [issued, revoked, by_serial, asked, refused];
    let wanted = |filter: Filter| -> Vec<usize> {
        let places = all.iter().enumerate();
        places
            .filter(|(_, line)| filter.wants(line))
            .map(|(place, _)| place)
            .collect()
    };
    let by = |id: &str, pod: &str, serial: &str, author: &str| {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        wanted(Filter {
            spiffe_id: given(id),
            pod: given(pod),
            serial: given(serial),
            author: given(author),
        })
    };
    assert_eq!(by("", "", "", ""), [0, 1, 2, 3, 4]);
    assert_eq!(by("spiffe://x/a", "", "", ""), [0, 1]);
    assert_eq!(by("spiffe://x/agent", "", "", ""), [4]);
    assert_eq!(by("", "shop/a-0", "", ""), [0, 3]);
    assert_eq!(by("", "u", "", ""), [0, 4]);
    assert_eq!(by("", "", "0a", ""), [0, 1]);
    assert_eq!(by("", "", "0b", ""), [2]);
    assert_eq!(by("", "", "", "uid:1"), [2, 3]);
    assert_eq!(by("", "", "0a", "uid:0"), [1]);
    let of_author = Filter {
        author: Some("uid:0".to_owned()),
        ..Filter::default()
    };
    assert!(!of_author.wants("no json"));
}

/// Writes a file of lines that was changed so many seconds after another one.
fn write(path: &Path, text: &[String], seconds: u64) {
    fs::write(path, text.concat()).unwrap();
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds);
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(changed)
        .unwrap();
}

fn ended(lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| line + "\n").collect()
}

#[tokio::test]
async fn older_lines_come_from_the_files_of_the_log_the_rotated_ones_too() {
    let folder = signet_testkit::folder();
    let file = folder.path().join("audit.log");
    // Put back from a backup: its date says nothing.
    write(&folder.path().join("audit.log.2"), &ended(lines(1..=3)), 9);
    // A crash: half a line, and what was emitted again.
    let torn = [
        ended(lines(4..=7)),
        vec!["{\"server\":\"s\",\"boo\n".to_owned()],
        ended(lines(6..=8)),
    ]
    .concat();
    write(&folder.path().join("audit.log.1"), &torn, 2);
    let newest = [
        ended(vec![head(8)]),
        ended(lines(9..=12)),
        vec!["{\"half".to_owned()],
    ]
    .concat();
    write(&file, &newest, 3);
    fs::write(folder.path().join("audit.log.3.gz"), "not read").unwrap();
    fs::write(folder.path().join("audit.lock"), "another's").unwrap();
    let tail = AuditTail::new("s", Some(&file));
    let ask =
        async |before: Place, filter: Filter, most: usize| tail.history(before, filter, most, || true).await;
    let told = ask(Place::line(11), Filter::default(), 4).await;
    let expected = [line(8), head(8), line(9), line(10)];
    assert_eq!(
        (told.lines.as_slice(), told.notes.len()),
        (expected.as_slice(), 0)
    );
    let all = ask(Place::line(13), Filter::default(), 100).await;
    assert_eq!(all.lines.len(), 13, "each once");
    assert_eq!(all.lines[..8], lines(1..=8));
    assert!(
        all.notes[0].contains("audit.log.3.gz") && all.notes.len() == 1,
        "{:?}",
        all.notes
    );
    let filter = Filter {
        spiffe_id: Some("spiffe://x/2".to_owned()),
        ..Filter::default()
    };
    assert_eq!(ask(Place::line(13), filter, 1).await.lines, [line(2)]);
    let gone = tail
        .history(Place::line(13), Filter::default(), 100, || false)
        .await;
    assert!(gone.lines.is_empty());
    let other = AuditTail::new("another", Some(&file));
    assert!(
        other
            .history(Place::line(13), Filter::default(), 9, || true)
            .await
            .lines
            .is_empty()
    );
}

#[tokio::test]
async fn long_lines_and_large_files_are_read_in_pieces() {
    let folder = signet_testkit::folder();
    let file = folder.path().join("audit.log");
    let long = |sequence: u64| line(sequence).replace("issued", &"x".repeat(200_000)) + "\n";
    let garbage = "y".repeat(9 << 20) + "\n";
    let text = [long(1), garbage, long(2), long(3)];
    write(&file, &text, 1);
    let tail = AuditTail::new("s", Some(&file));
    let told = tail.history(Place::line(9), Filter::default(), 9, || true).await;
    assert_eq!(told.lines.len(), 3);
    assert_eq!(told.lines[0].len() + 1, long(1).len());
}

#[tokio::test]
async fn without_a_file_it_is_said_where_older_lines_are() {
    let tail = AuditTail::new("s", None);
    let told = tail.history(Place::line(9), Filter::default(), 9, || true).await;
    assert!(told.notes[0].contains("standard output"), "{:?}", told.notes);
    let told = tail.history(Place::line(1), Filter::default(), 9, || true).await;
    assert_eq!(told, Told::default());
}
