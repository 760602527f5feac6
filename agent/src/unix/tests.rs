//! The attestor over the real `/proc` and made-up ones.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

use nix::sys::socket::{getsockopt, sockopt};

use super::executable::sha256;
use super::*;

/// This test process, as the kernel shows it to the other end of a socket.
pub(crate) fn own_peer() -> PeerProcess {
    let (near, _far) = UnixStream::pair().unwrap();
    peer_of(&near)
}

fn peer_of(socket: &UnixStream) -> PeerProcess {
    let credentials = getsockopt(socket, sockopt::PeerCredentials).unwrap();
    PeerProcess {
        uid: credentials.uid(),
        gid: credentials.gid(),
        pid: credentials.pid(),
        pidfd: Arc::new(getsockopt(socket, sockopt::PeerPidfd).unwrap()),
    }
}

/// A fake `/proc` with one process of this pid.
fn fake_proc(pid: i32, cgroup: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let process = directory.path().join(pid.to_string());
    fs::create_dir_all(process.join("ns")).unwrap();
    fs::write(process.join("cgroup"), cgroup).unwrap();
    fs::write(process.join("exe"), "program").unwrap();
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
    let peer = own_peer();
    for line in [
        "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-1.scope\n",
        "0::/../../pod8d8f9c2e-0d0a-4c5c-9d0e-2f5d3c1b0a99/5c0ffee\n",
        "0::/../../podfc2e0d0a4c5c9d0e2f5d3c1b0a998d8f\n",
    ] {
        let proc = fake_proc(peer.pid, line);
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
fn a_process_outside_the_hosts_namespaces_is_refused() {
    let peer = own_peer();
    let proc = fake_proc(peer.pid, "0::/user.slice\n");
    let link = |pid: &str, inode: &str| {
        let ns = proc.path().join(pid).join("ns");
        fs::create_dir_all(&ns).unwrap();
        std::os::unix::fs::symlink(format!("mnt:[{inode}]"), ns.join("mnt")).unwrap();
    };
    link("1", "4026531841");
    link(&peer.pid.to_string(), "4026532999");
    let outcome = UnixAttestor::over(proc.path()).attest_blocking(&peer);
    assert!(
        matches!(outcome, Err(UnixError::OtherNamespace("mnt"))),
        "{outcome:?}"
    );
}

#[test]
fn what_cannot_be_seen_is_left_out() {
    let peer = own_peer();
    let proc = fake_proc(peer.pid, "0::/user.slice\n");
    fs::remove_file(proc.path().join(peer.pid.to_string()).join("exe")).unwrap();
    let facts = UnixAttestor::over(proc.path()).attest_blocking(&peer).unwrap();
    assert_eq!((facts.path, facts.sha256), (None, None));
    let outside = PeerProcess { pid: 0, ..peer };
    let outcome = UnixAttestor::over(proc.path()).attest_blocking(&outside);
    assert!(matches!(outcome, Err(UnixError::OtherNamespace("pid"))));
}

/// Covers EP-26, BG-16.
#[test]
fn an_ended_process_is_gone_even_if_its_pid_lives_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "unix::tests::connects_when_another_test_asks_for_it"])
        .env(CONNECT_TO, &path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let (near, _) = listener.accept().unwrap();
    let ended = peer_of(&near);
    child.wait().unwrap();
    // A living pid beside the ended process's pidfd: what a recycled pid looks like.
    let peer = PeerProcess {
        pid: own_peer().pid,
        ..ended
    };
    let outcome = UnixAttestor::default().attest_blocking(&peer);
    assert!(matches!(outcome, Err(UnixError::Gone)), "{outcome:?}");
}

const CONNECT_TO: &str = "SIGNET_TEST_CONNECT_TO";

/// The other process of the test above; nothing to do otherwise.
#[test]
fn connects_when_another_test_asks_for_it() {
    if let Some(path) = std::env::var_os(CONNECT_TO) {
        UnixStream::connect(path).unwrap();
    }
}
