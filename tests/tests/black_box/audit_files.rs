//! `signet-server audit verify` on the files of a server that was rotated, killed and restarted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use signet_tests::{domain::Domain, process::Finished, wait::eventually};

use super::support::{audited, identity_of};

/// A folder with the log in three files, the newest last, the key, and the newest head.
struct Log {
    domain: Domain,
    files: Vec<PathBuf>,
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Log {
    fn path(&self, name: &str) -> PathBuf {
        self.domain.server.folder().join(name)
    }

    /// Runs the command on these files.
    async fn verify(&self, files: &[&Path], more: &[&str]) -> Finished {
        let files = files.iter().map(|path| text(path));
        let args: Vec<&str> = ["audit", "verify"]
            .into_iter()
            .chain(files)
            .chain(more.iter().copied())
            .collect();
        self.domain.server.command(&args).await.unwrap()
    }

    /// The same with the key of the server; what it says to programs, and its status.
    async fn judged(&self, files: &[&Path]) -> (Option<i32>, Value) {
        let key = self.path("key.pem");
        let said = self.verify(files, &["--key", text(&key), "-o", "json"]).await;
        (said.status.code(), serde_json::from_str(&said.stdout).unwrap())
    }

    async fn of_a_life() -> Self {
        let mut domain = Domain::start().await.unwrap();
        let log = domain.server.folder().join("audit.log");
        let (first, second) = (log.with_extension("log.2"), log.with_extension("log.1"));
        let agent = domain.agent("node-a").await.unwrap();
        identity_of(&domain, &agent, "front").await;
        audited(&domain, &["\"issued\"", "/ns/shop/sa/front"]).await;
        // Renamed, and nothing said: the next line begins another.
        fs::rename(&log, &first).unwrap();
        domain.server.admin(&["denials"]).await.unwrap();
        audited(&domain, &["ListDenials"]).await;
        // Renamed, and said.
        fs::rename(&log, &second).unwrap();
        domain.server.process().unwrap().signal(Signal::SIGHUP);
        eventually("the log to be opened again", async || log.exists().then_some(())).await;
        domain.server.admin(&["crl", "show"]).await.unwrap();
        audited(&domain, &["ShowCrls"]).await;
        domain.server.kill().await;
        // What such an end may leave.
        let mut torn = fs::read_to_string(&log).unwrap();
        torn.push_str("{\"server\":\"");
        fs::write(&log, torn).unwrap();
        domain.server.start().await.unwrap();
        let head = head_of_the_second_boot(&domain).await;
        let log = Self {
            domain,
            files: vec![first, second, log],
        };
        fs::write(log.path("head"), head).unwrap();
        let key = log.domain.server.command(&["audit", "key"]).await.unwrap();
        assert!(key.status.success(), "{}", key.stderr);
        fs::write(log.path("key.pem"), key.stdout).unwrap();
        log
    }
}

/// Waits until the server has signed for what it wrote in its second boot, and knows that the disk has it.
async fn head_of_the_second_boot(domain: &Domain) -> String {
    let log = domain.server.folder().join("audit.log");
    eventually("a head of the second boot", async || {
        let head = domain.server.command(&["audit", "head"]).await.unwrap();
        let text = fs::read_to_string(&log).ok()?;
        let (_, after) = text.split_once("\"boot\":2")?;
        (head.status.success() && after.contains(head.stdout.trim())).then_some(head.stdout)
    })
    .await
}

#[tokio::test]
async fn files_of_a_server_that_was_rotated_killed_and_restarted_are_whole_and_every_edit_shows() {
    let mut log = Log::of_a_life().await;
    let files = log.files.clone();
    let [first, second, newest] = [&*files[0], &*files[1], &*files[2]];
    // The running server vouches for all that it has written by now.
    let said = log
        .verify(&[second, newest, first], &["--server", "-o", "json"])
        .await;
    let verdict: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(said.status.success(), "{verdict:#}");
    log.domain.server.stop().await.unwrap();

    let (status, verdict) = log.judged(&[newest, first, second]).await;
    assert_eq!(
        (status, &verdict["whole"]),
        (Some(0), &true.into()),
        "{verdict:#}"
    );
    let server = &verdict["servers"][0];
    assert_eq!(
        (&server["first"], &server["first_boot"], &server["last_boot"]),
        (&1.into(), &1.into(), &2.into())
    );
    assert_eq!(server["vouched_to"], server["last"]);
    assert_eq!(verdict["half_lines"].as_array().unwrap().len(), 1, "{verdict:#}");
    let said = log.verify(&[first, second, newest], &[]).await;
    assert!(
        said.stdout.ends_with("whole\n") && said.stdout.contains("--key"),
        "{}",
        said.stdout
    );

    // A file is missing.
    let (status, verdict) = log.judged(&[first, newest]).await;
    let fault = &verdict["faults"][0];
    assert_eq!(
        (status, &fault["kind"], &fault["line"]),
        (Some(1), &"removed".into(), &1.into()),
        "{verdict:#}"
    );
    assert_eq!(fault["file"], text(newest));

    an_edit_of_a_line_shows(&log).await;

    // The end is cut off, with all heads in it; one was kept.
    let whole = fs::read_to_string(newest).unwrap();
    let (kept, _) = whole.split_once("\"boot\":2").unwrap();
    fs::write(newest, kept).unwrap();
    let (status, verdict) = log.judged(&[first, second, newest, &log.path("head")]).await;
    assert_eq!(
        (status, &verdict["faults"][0]["kind"]),
        (Some(1), &"cut_off".into()),
        "{verdict:#}"
    );
}

/// A line is missing, then it is another; the file is whole again afterwards.
async fn an_edit_of_a_line_shows(log: &Log) {
    let [first, second, newest] = [&*log.files[0], &*log.files[1], &*log.files[2]];
    let original = fs::read_to_string(first).unwrap();
    let lines: Vec<&str> = original.lines().collect();
    let at = lines.iter().position(|line| line.contains("\"issued\"")).unwrap();
    let without = [&lines[..at], &lines[at + 1..]].concat().join("\n") + "\n";
    for (edited, kind) in [
        (without, "removed"),
        (
            original.replace("/ns/shop/sa/front", "/ns/shop/sa/other"),
            "changed",
        ),
    ] {
        fs::write(first, edited).unwrap();
        let said = log.verify(&[first, second, newest], &[]).await;
        assert_eq!(said.status.code(), Some(1), "{kind}: {}", said.stdout);
        assert!(
            said.stdout.contains(&format!("{}:", text(first))) && said.stdout.ends_with("not whole\n"),
            "{}",
            said.stdout
        );
        let (_, verdict) = log.judged(&[first, second, newest]).await;
        assert_eq!(verdict["faults"][0]["kind"], kind, "{verdict:#}");
    }
    fs::write(first, original).unwrap();
}

#[tokio::test]
async fn another_key_is_a_fault_and_what_cannot_be_read_has_a_status_of_its_own() {
    let log = Log::of_a_life().await;
    let files = log.files.clone();
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let stranger = "0".repeat(64);
    let said = log.verify(&files, &["--key-id", &stranger]).await;
    assert_eq!(said.status.code(), Some(1), "{}", said.stdout);
    assert!(
        said.stdout.contains("which is not one that is trusted"),
        "{}",
        said.stdout
    );
    let head = log.path("head");
    for (files, more) in [
        (vec![], vec![]),
        (vec![Path::new("/nowhere/audit.log")], vec![]),
        (vec![log.domain.server.folder()], vec![]),
        (files.clone(), vec!["--key", "/nowhere/key.pem"]),
        (files.clone(), vec!["--key", text(&head)]),
        (files.clone(), vec!["--key-id", "00"]),
        (files.clone(), vec!["--server", "--admin-socket", "/nowhere.sock"]),
    ] {
        let said = log.verify(&files, &more).await;
        assert_eq!(said.status.code(), Some(2), "{files:?} {more:?}: {}", said.stderr);
        assert!(said.stdout.is_empty() && !said.stderr.is_empty(), "{more:?}");
    }
}
