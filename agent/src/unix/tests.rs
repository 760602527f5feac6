//! The attestor over the real `/proc` and made-up ones.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::executable::sha256;
use super::*;

/// This test process, as the kernel shows it to the other end of a socket.
pub(crate) fn own_peer() -> PeerProcess {
    let (near, _far) = UnixStream::pair().unwrap();
    peer_of(&near)
}

fn peer_of(socket: &UnixStream) -> PeerProcess {
    PeerProcess::of(socket).unwrap()
}

/// A fake `/proc` with this process only, which runs a file in it.
fn fake_proc(peer: &mut PeerProcess, cgroup: &str) -> tempfile::TempDir {
    let pid = peer.pid;
    let directory = signet_testkit::folder();
    let process = directory.path().join(pid.to_string());
    fs::create_dir_all(process.join("ns")).unwrap();
    fs::write(process.join("cgroup"), cgroup).unwrap();
    fs::write(process.join("exe"), "program").unwrap();
    fs::write(process.join("status"), format!("NSpid:\t{pid}\n")).unwrap();
    peer.program = Program::at(&process.join("exe"));
    directory
}

/// Covers EP-08.
#[tokio::test]
async fn a_process_is_known_by_uid_path_and_hash_of_its_executable() {
    let peer = own_peer();
    let facts = UnixAttestor::default().attest(&peer).await.unwrap();
    assert_eq!(
        (facts.uid, facts.gid),
        (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())
    );
    let own = std::env::current_exe().unwrap();
    assert_eq!(facts.path.as_deref(), own.to_str());
    assert_eq!(facts.sha256, Some(sha256(File::open(own).unwrap()).unwrap()));
}

#[test]
fn a_process_in_a_pods_cgroup_is_refused() {
    let mut peer = own_peer();
    for line in [
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-1.scope\n",
        "0::/../../pod8d8f9c2e-0d0a-4c5c-9d0e-2f5d3c1b0a99/5c0ffee\n",
        "0::/../../podfc2e0d0a4c5c9d0e2f5d3c1b0a998d8f\n",
    ] {
        let proc = fake_proc(&mut peer, line);
        let outcome = UnixAttestor::over(proc.path()).attest_blocking(&peer);
        assert!(matches!(outcome, Err(UnixError::InPod)), "{line}: {outcome:?}");
    }
    assert!(!names_a_pod("0::/../system.slice/podman.service\n"));
}

#[tokio::test]
async fn a_user_whose_executable_is_being_read_waits_and_others_do_not() {
    let attestor = UnixAttestor::default();
    let peer = own_peer();
    let reading = attestor.turns.take(peer.uid).await.unwrap();
    let other = tokio::time::timeout(
        std::time::Duration::from_secs(5),
        attestor.turns.take(peer.uid + 1),
    );
    drop(other.await.expect("another user has a turn").unwrap());
    let mut waiting = Box::pin(attestor.attest(&peer));
    let early = futures_util::poll!(waiting.as_mut());
    assert!(early.is_pending(), "one turn for each user");
    drop(reading);
    waiting.await.unwrap();
}

#[test]
fn a_process_of_a_container_is_refused_and_one_with_its_own_mounts_is_not() {
    let mut peer = own_peer();
    let pid = peer.pid;
    let mut outcome = |status: Option<String>| {
        let proc = fake_proc(&mut peer, "0::/user.slice\n");
        let process = proc.path().join(pid.to_string());
        let _ = fs::remove_file(process.join("status"));
        if let Some(status) = status {
            fs::write(process.join("status"), status).unwrap();
        }
        for (pid, inode) in [("1", "4026531841"), (&*pid.to_string(), "4026532999")] {
            let ns = proc.path().join(pid).join("ns");
            fs::create_dir_all(&ns).unwrap();
            std::os::unix::fs::symlink(format!("mnt:[{inode}]"), ns.join("mnt")).unwrap();
        }
        UnixAttestor::over(proc.path()).attest_blocking(&peer)
    };
    // As systemd does with PrivateTmp or ProtectHome.
    outcome(Some(format!("Name:\tapp\nNSpid:\t{pid}\nNSpgid:\t1\n"))).unwrap();
    // In a PID namespace of its own, and where that cannot be told.
    for status in [
        Some(format!("Name:\tapp\nNSpid:\t{pid}\t1\n")),
        Some("Name:\tapp\n".to_owned()),
        None,
    ] {
        let outcome = outcome(status.clone());
        assert!(outcome.is_err(), "{status:?}: {outcome:?}");
    }
}

#[test]
fn what_cannot_be_seen_is_left_out() {
    let mut peer = own_peer();
    let proc = fake_proc(&mut peer, "0::/user.slice\n");
    let attestor = UnixAttestor::over(proc.path());
    fs::remove_file(proc.path().join(peer.pid.to_string()).join("exe")).unwrap();
    let outcome = attestor.attest_blocking(&peer);
    assert!(
        matches!(outcome, Err(UnixError::Changed(Changed::Program))),
        "{outcome:?}"
    );
    peer.program = None;
    let facts = attestor.attest_blocking(&peer).unwrap();
    assert_eq!((facts.path, facts.sha256), (None, None));
    let outside = PeerProcess { pid: 0, ..peer };
    let outcome = attestor.attest_blocking(&outside);
    assert!(matches!(outcome, Err(UnixError::OtherNamespace("pid"))));
}

#[test]
fn a_user_that_the_agents_namespace_has_no_number_for_is_refused() {
    let mut peer = own_peer();
    let proc = fake_proc(&mut peer, "0::/user.slice\n");
    let own = proc.path().join("self");
    fs::create_dir(&own).unwrap();
    let attestor = UnixAttestor::over(proc.path());
    for (map, uid, is_served) in [
        ("         0          0 4294967295\n", NOBODY, true),
        ("         0     100000      65536\n", NOBODY, false),
        ("         0     100000      65536\n", 1000, true),
    ] {
        fs::write(own.join("uid_map"), map).unwrap();
        let outcome = attestor.attest_blocking(&PeerProcess { uid, ..peer.clone() });
        assert_eq!(outcome.is_ok(), is_served, "{map} {uid}: {outcome:?}");
    }
}

#[test]
fn refusals_are_counted_by_reason() {
    let metrics = Metrics::new("signet_agent");
    let attestor = UnixAttestor::new(&metrics);
    let peer = PeerProcess {
        program: None,
        ..own_peer()
    };
    attestor.attest_blocking(&peer).unwrap_err();
    let text = metrics.encode();
    for line in [r#"{reason="other_program"} 1"#, r#"{reason="pod"} 0"#] {
        let line = format!("{}{line}\n", METRIC);
        assert!(text.contains(&line), "{line} is not in {text}");
    }
}

/// Covers EP-26, BG-16.
#[test]
fn an_ended_process_is_gone_even_if_its_pid_lives_on() {
    let directory = signet_testkit::folder();
    let (mut child, near) = connecting(directory.path(), None);
    let ended = peer_of(&near);
    child.0.wait().unwrap();
    // A living pid beside the ended process's pidfd: what a recycled pid looks like.
    let peer = PeerProcess {
        pid: own_peer().pid,
        ..ended
    };
    let outcome = UnixAttestor::default().attest_blocking(&peer);
    assert!(
        matches!(outcome, Err(UnixError::Changed(Changed::Gone))),
        "{outcome:?}"
    );
}

const CONNECT_TO: &str = "SIGNET_TEST_CONNECT_TO";
const THEN_RUN: &str = "SIGNET_TEST_THEN_RUN";

/// The other process of the tests above. Told what to run then, it becomes that program once it is answered, and the
/// connection stays open as its standard input.
#[test]
#[ignore = "run by the tests above, in a process of its own"]
fn connects_when_another_test_asks_for_it() {
    let path = std::env::var_os(CONNECT_TO).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    if let Some(program) = std::env::var_os(THEN_RUN) {
        stream.read_exact(&mut [0]).unwrap();
        let kept = std::os::fd::OwnedFd::from(stream);
        panic!("{}", Command::new(program).arg("600").stdin(kept).exec());
    }
}

/// Another process that connects to `listener`, and that this end is told of.
fn connecting(directory: &Path, then_run: Option<&Path>) -> (Connecting, UnixStream) {
    let path = directory.join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "unix::tests::connects_when_another_test_asks_for_it",
            "--ignored",
        ])
        .env(CONNECT_TO, &path)
        .stdout(Stdio::null());
    if let Some(program) = then_run {
        command.env(THEN_RUN, program);
    }
    let child = command.spawn().unwrap();
    (Connecting(child), listener.accept().unwrap().0)
}

/// Ends with the test, however that ends.
struct Connecting(std::process::Child);

impl Drop for Connecting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Who connects, hands the connection on and becomes the program that a rule names gets nothing by that.
///
/// Covers EP-26.
#[test]
fn a_process_that_became_another_program_since_it_connected_is_refused() {
    let directory = signet_testkit::folder();
    let sleep = fs::canonicalize("/bin/sleep").unwrap();
    let (child, mut near) = connecting(directory.path(), Some(&sleep));
    let peer = peer_of(&near);
    let attestor = UnixAttestor::default();
    let facts = attestor.attest_blocking(&peer).unwrap();
    assert_eq!(facts.path.as_deref(), std::env::current_exe().unwrap().to_str());
    near.write_all(&[0]).unwrap();
    let executable = format!("/proc/{}/exe", peer.pid);
    // While it becomes another one it has none.
    while fs::read_link(&executable).ok().as_ref() != Some(&sleep) {
        std::thread::yield_now();
    }
    let outcome = attestor.attest_blocking(&peer);
    drop(child);
    let refused = outcome
        .as_ref()
        .is_err_and(|error| error.to_string().contains("another program"));
    assert!(refused, "{outcome:?}");
}
