//! `write`: files that are kept, and whoever reads them is told; with whatever can go wrong about it.

mod needs_namespaces;

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use serde_json::json;
use signet_certs::bundle::parse_pem_certificates;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    http,
    process::{Finished, Process, binary, free_port, run},
    wait::{PATIENCE, eventually, within},
};
use tokio::time::Instant;

use super::notify::heard;
use super::support::pod_with_volume;

/// A domain with a pod, and where its files go.
struct Kept {
    domain: Domain,
    agent: Agent,
    socket: String,
}

impl Kept {
    async fn start(plan: Plan) -> Self {
        let domain = plan.start().await.unwrap();
        let agent = domain.agent("node-a").await.unwrap();
        let volume = pod_with_volume(&domain, &agent, "front").await;
        agent.workload(&volume).identity().await;
        let socket = format!("unix://{}", agent.socket(&volume).display());
        Self {
            domain,
            agent,
            socket,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.domain.path().join(name)
    }

    /// The command line, with these words of its own.
    fn words<'a>(&'a self, dir: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
        let dir = dir.to_str().unwrap();
        let usual = ["write", "--socket", &self.socket, "--dir", dir];
        usual.into_iter().chain(more.iter().copied()).collect()
    }

    async fn once(&self, dir: &Path, more: &[&str]) -> Finished {
        let more = [&["--once", "--timeout", "2s"], more].concat();
        run(&binary("signet-agent"), self.words(dir, &more), &[])
            .await
            .unwrap()
    }

    fn daemon(&self, dir: &Path, more: &[&str]) -> (Process, String) {
        self.daemon_in(&[], dir, more)
    }

    fn daemon_in(&self, env: &[(&str, &str)], dir: &Path, more: &[&str]) -> (Process, String) {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let more = [&["--telemetry", &address], more].concat();
        let daemon = Process::start("write", &binary("signet-agent"), self.words(dir, &more), env).unwrap();
        (daemon, format!("http://{address}"))
    }
}

/// A number of a daemon; none while it does not answer.
async fn number(url: &str, name: &str) -> Option<f64> {
    let text = http::metrics(url).await.ok()?;
    let of = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    text.lines().find_map(of)
}

async fn reaches(url: &str, name: &str, least: f64) {
    let name = format!("signet_agent_write_{name}");
    let reached = async || number(url, &name).await.filter(|found| *found >= least);
    eventually(&format!("{name} to reach {least}"), reached).await;
}

/// Waits until this, or nothing, stands in the way of readiness.
async fn stands(url: &str, reason: Option<&str>) {
    let url = format!("{url}/ready");
    eventually(&format!("{reason:?} at {url}"), async || {
        let answer = http::get(&url).await.ok()?;
        let said = String::from_utf8_lossy(&answer.body).into_owned();
        let is_it = match reason {
            Some(reason) => answer.status == 503 && said.contains(&format!("\"reason\":\"{reason}\"")),
            None => answer.status == 200,
        };
        is_it.then_some(())
    })
    .await;
}

fn serial(dir: &Path) -> String {
    let chain = parse_pem_certificates(&fs::read_to_string(dir.join("svid.pem")).unwrap()).unwrap();
    signet_certs::verify::inspect_leaf(&chain[0])
        .unwrap()
        .serial
        .to_string()
}

fn says(finished: &Finished, code: i32, what: &str) {
    assert_eq!(finished.status.code(), Some(code), "{}", finished.stderr);
    let last = finished.stderr.trim_end().lines().last().unwrap_or_default();
    assert!(last.contains(what), "{what}: {}", finished.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_once_says_in_its_status_whether_it_was_done() {
    let kept = Kept::start(Plan::default()).await;
    let (dir, proof) = (kept.path("files"), kept.path("proof"));
    let done = kept
        .once(&dir, &["--run", "touch", proof.to_str().unwrap()])
        .await;
    assert!(done.status.success() && proof.exists(), "{}", done.stderr);
    let number = serial(&dir);
    says(&kept.once(&dir, &["--run", "false"]).await, 1, "hook_failing");
    let hangs = ["--hook-timeout", "500ms", "--run", "sleep", "600"];
    says(&kept.once(&dir, &hangs).await, 1, "did not end within 0.5 s");
    let pid_file = kept.path("pid");
    let signal = ["--signal", "HUP", "--pid-file", pid_file.to_str().unwrap()];
    says(&kept.once(&dir, &signal).await, 1, "No such file");
    fs::write(&pid_file, std::process::id().to_string()).unwrap();
    let other = [&signal[..], &["--program", "nginx"]].concat();
    says(&kept.once(&dir, &other).await, 1, "not `nginx`");
    let id = ["--spiffe-id", "spiffe://example.org/ns/shop/sa/back"];
    says(&kept.once(&dir, &id).await, 1, "/sa/back");
    says(&kept.once(&proof.join("below"), &[]).await, 1, "not_written");
    assert_eq!(serial(&dir), number, "the set before stays");

    let denied = ["revoke", "--spiffe-id", "/ns/shop/sa/front"];
    kept.domain.server.admin(&denied).await.unwrap();
    eventually("a verdict", async || {
        let begun = Instant::now();
        let refused = kept.once(&dir, &[]).await;
        (refused.status.code() == Some(1) && begun.elapsed() < Duration::from_secs(2)).then_some(())
    })
    .await;
    assert!(dir.join("svid.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_set_is_told_until_its_reader_has_it_and_lists_alone_are_another_set() {
    let kept = Kept::start(Plan::default()).await;
    let dir = kept.path("files");
    let (gate, told) = (kept.path("gate"), kept.path("told"));
    // Fails until the gate is there.
    let script = format!("test -e {} && echo x >>{}", gate.display(), told.display());
    let (mut daemon, url) = kept.daemon(&dir, &["--run", "sh", "-c", &script]);
    reaches(&url, "hook_failures_total", 2.0).await;
    stands(&url, Some("hook_failing")).await;
    fs::write(&gate, "").unwrap();
    stands(&url, None).await;
    assert_eq!(fs::read_to_string(&told).unwrap(), "x\n");

    let volume = pod_with_volume(&kept.domain, &kept.agent, "back").await;
    kept.agent.workload(&volume).identity().await;
    let (number, list) = (serial(&dir), fs::read(dir.join("crl.pem")).unwrap());
    let old = fs::File::open(dir.join("crl.pem")).unwrap();
    let revoked = ["revoke", "--spiffe-id", "/ns/shop/sa/back"];
    kept.domain.server.admin(&revoked).await.unwrap();
    eventually("the reader to be told", async || {
        let told = fs::read_to_string(&told).unwrap();
        (told.len() > 2).then_some(())
    })
    .await;
    assert_eq!(serial(&dir), number);
    assert_ne!(fs::read(dir.join("crl.pem")).unwrap(), list);
    let held = std::io::read_to_string(old).unwrap();
    assert_eq!(
        held.into_bytes(),
        list,
        "whoever holds the old set open reads that"
    );

    // A folder in whose place there is something else, then not any more.
    fs::rename(&dir, kept.path("away")).unwrap();
    fs::write(&dir, "").unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    reaches(&url, "publish_failures_total", 1.0).await;
    stands(&url, Some("not_written")).await;
    fs::remove_file(&dir).unwrap();
    stands(&url, None).await;
    assert_eq!(serial(&dir), number);

    let denied = ["revoke", "--spiffe-id", "/ns/shop/sa/front"];
    kept.domain.server.admin(&denied).await.unwrap();
    stands(&url, Some("no_identity")).await;
    assert_eq!(serial(&dir), number, "the files stay");
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_hangs_holds_up_neither_files_nor_the_end() {
    let kept = Kept::start(Plan::default()).await;
    let (dir, pid) = (kept.path("files"), kept.path("pid"));
    let script = format!(
        "trap '' TERM; sleep 600 & echo $! >{0}.new; mv {0}.new {0}; wait",
        pid.display()
    );
    let (mut daemon, url) = kept.daemon(&dir, &["--run", "sh", "-c", &script]);
    let hangs: u32 = eventually("the hook", async || {
        fs::read_to_string(&pid).ok()?.trim().parse().ok()
    })
    .await;
    let number = serial(&dir);
    kept.domain
        .server
        .admin(&["revoke", "--serial", &number])
        .await
        .unwrap();
    eventually("the next set", async || (serial(&dir) != number).then_some(())).await;
    reaches(&url, "sets_written_total", 2.0).await;
    let begun = Instant::now();
    daemon.terminate();
    let status = daemon.wait(PATIENCE).await.unwrap();
    assert!(
        status.success() && begun.elapsed() < Duration::from_secs(3),
        "{status} after {:?}",
        begun.elapsed()
    );
    let stat = format!("/proc/{hangs}/stat");
    eventually("the end of the hook's group", async || {
        let gone = fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
        gone.then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ends_without_another_is_said_and_the_files_stay() {
    let mut kept = Kept::start(Plan::default().server("/svid/ttl", json!("10s"))).await;
    let dir = kept.path("files");
    let (mut daemon, url) = kept.daemon(&dir, &[]);
    stands(&url, None).await;
    kept.agent.kill().await;
    stands(&url, Some("certificate_expired")).await;
    let chain = parse_pem_certificates(&fs::read_to_string(dir.join("svid.pem")).unwrap()).unwrap();
    let end = signet_certs::verify::inspect_leaf(&chain[0]).unwrap().not_after;
    let shown = number(&url, "signet_agent_write_certificate_not_after_timestamp_seconds")
        .await
        .unwrap();
    assert_eq!(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(shown), end);
    assert!(
        daemon.stderr().contains("has expired and no other has come"),
        "{}",
        daemon.stderr()
    );
    kept.agent.start().await.unwrap();
    stands(&url, None).await;
    daemon.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_that_there_are_files_not_before_there_are_and_that_it_ends() {
    let kept = Kept::start(Plan::default()).await;
    let (dir, path) = (kept.path("files"), kept.path("notify"));
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_nonblocking(true).unwrap();
    fs::write(&dir, "no folder").unwrap();
    let (mut daemon, url) = kept.daemon_in(&[("NOTIFY_SOCKET", path.to_str().unwrap())], &dir, &[]);
    reaches(&url, "publish_failures_total", 1.0).await;
    // What it waits for, and nothing of files.
    let (waits, mut early) = ("STATUS=starts, and waits: not_written: ", String::new());
    let mut buffer = [0; 4096];
    eventually(waits, async || {
        while let Ok(length) = systemd.recv(&mut buffer) {
            early += &String::from_utf8_lossy(&buffer[..length]);
        }
        early.contains(waits).then_some(())
    })
    .await;
    assert!(!early.contains("READY=1"), "{early}");
    fs::remove_file(&dir).unwrap();
    heard(&systemd, "READY=1\nSTATUS=ready").await;
    assert!(dir.join("svid.pem").exists());
    daemon.terminate();
    let status = daemon.wait(PATIENCE).await.unwrap();
    // It has been said by now, and is the last that is: how it was until then may have been said more than once.
    let mut last = String::new();
    let mut said = [0; 4096];
    while let Ok(length) = systemd.recv(&mut said) {
        last = String::from_utf8_lossy(&said[..length]).into_owned();
    }
    assert!(
        status.success() && last.starts_with("STOPPING=1"),
        "{status}: {last}"
    );
}

/// As with `watch | less` while nobody turns the page.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_reader_rests_ends_when_it_is_told_to() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = |set| nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(set)).unwrap();
    flags(nix::fcntl::OFlag::O_NONBLOCK);
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    flags(nix::fcntl::OFlag::empty());
    writer.flush().unwrap();
    let mut watch = Command::new(binary("signet-agent"))
        .args(["watch", "--socket", "unix:///nobody/is/here"])
        .stdout(Stdio::from(writer))
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(watch.id().cast_signed());
    let status = format!("/proc/{pid}/status");
    // A handler of SIGINT is there: the second signal is the second bit.
    let listens = || {
        let status = fs::read_to_string(&status).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
        let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
        (caught & 2 != 0).then_some(())
    };
    let listening = within(PATIENCE, async || listens()).await;
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let ended = within(PATIENCE, async || watch.try_wait().ok().flatten()).await;
    if ended.is_none() {
        watch.kill().unwrap();
        watch.wait().unwrap();
    }
    drop(reader);
    assert!(listening.is_some() && ended.unwrap().success());
}
