//! Connections to the shared socket that one process makes and another uses: whoever connects is who is served, for as long as he is what
//! connected, and nobody is served for what he was handed by somebody who is gone.

use std::{
    env,
    io::{IoSlice, IoSliceMut, Read as _},
    mem::MaybeUninit,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde_json::json;
use signet_tests::{
    domain::{Agent, Domain, Plan},
    workload::WorkloadClient,
};
use tempfile::TempDir;
use tonic::Code;

/// Set for the other process: where it connects, and where it hands that connection over.
const CONNECT_TO: &str = "SIGNET_TEST_HANDS_OVER";
const HAND_TO: &str = "SIGNET_TEST_HANDS_OVER_TO";

/// Connects, hands the connection over, and lives for as long as its taker says nothing.
#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn hands_a_connection_over() {
    let connection = UnixStream::connect(env::var_os(CONNECT_TO).unwrap()).unwrap();
    let mut taker = UnixStream::connect(env::var_os(HAND_TO).unwrap()).unwrap();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let handed = [connection.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&handed)));
    sendmsg(&taker, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
    drop(connection);
    let _ = taker.read(&mut [0]);
}

/// What the next message brings.
fn taken(from: &UnixStream) -> UnixStream {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    recvmsg(from, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let mut files = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => files.collect::<Vec<OwnedFd>>(),
        _ => Vec::new(),
    });
    files.next().unwrap().into()
}

/// A domain that knows two programs: this one, and a copy of it that connects for others.
struct Programs {
    agent: Agent,
    folder: TempDir,
    domain: Domain,
}

impl Programs {
    async fn start() -> Self {
        let folder = signet_testkit::folder();
        let (own, copy) = (env::current_exe().unwrap(), folder.path().join("connects"));
        // By another process: nothing that is open for writing can be executed, and children of other tests would inherit that.
        let copied = Command::new("cp").arg(&own).arg(&copy).status();
        assert!(copied.unwrap().success());
        let uid = nix::unistd::getuid().as_raw();
        let rule = |name: &str, path: &Path| {
            json!({
                "name": name,
                "match": { "evidence": ["unix"], "unix": { "uids": [uid], "paths": [path] } },
                "spiffe_id": format!("/{name}"),
            })
        };
        let rules = json!([rule("taker", &own), rule("connector", &copy)]);
        let domain = Plan::default().server("/rules", rules).start().await.unwrap();
        let agent = domain.agent("node-a").await.unwrap();
        Self {
            agent,
            folder,
            domain,
        }
    }

    /// A connection that the other program has made, and what ends that program.
    fn handed(&self) -> (tokio::net::UnixStream, Connector) {
        let meeting = self.folder.path().join("meeting");
        let listener = UnixListener::bind(&meeting).unwrap();
        let process = Command::new(self.folder.path().join("connects"))
            .args(["--exact", "handed::hands_a_connection_over", "--ignored"])
            .env(CONNECT_TO, self.agent.shell_socket())
            .env(HAND_TO, &meeting)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (met, _) = listener.accept().unwrap();
        std::fs::remove_file(&meeting).unwrap();
        let connection = taken(&met);
        connection.set_nonblocking(true).unwrap();
        let connection = tokio::net::UnixStream::from_std(connection).unwrap();
        (connection, Connector { process, _met: met })
    }
}

/// The other process. It ends with the test, however that ends.
struct Connector {
    process: Child,
    _met: UnixStream,
}

impl Drop for Connector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn id(name: &str) -> String {
    format!("spiffe://example.org/{name}")
}

/// It is the connector's, not that of whoever uses it, and ends with him: neither is anything sent any more to who watches, nor is another
/// call answered.
///
/// Covers BG-16.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_handed_over_is_its_makers_and_ends_with_him() {
    let programs = Programs::start().await;
    assert_eq!(
        programs.agent.shell().identity().await.ids[0].to_string(),
        id("taker")
    );
    let (connection, connector) = programs.handed();
    let client = WorkloadClient::over(connection);
    let mut updates = client.watch().await.unwrap();
    let served = updates.until("what the maker has", |_| true).await;
    let ids: Vec<String> = served.ids.iter().map(ToString::to_string).collect();
    assert_eq!(ids, [id("connector")]);
    drop(connector);
    let refused = client
        .fetch()
        .await
        .err()
        .expect("an ended process has no identity");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert!(refused.message().contains("connect again"), "{refused:?}");
    // The one that is open gets nothing new: here the list in which another one is revoked.
    let serial = served.svid.serial().to_string();
    programs
        .domain
        .server
        .admin(&["revoke", "--serial", &serial])
        .await
        .unwrap();
    let ended = updates.next().await.err().expect("nothing more is sent");
    assert!(ended.message().contains("connect again"), "{ended:?}");
    assert_eq!(
        programs.agent.shell().identity().await.ids[0].to_string(),
        id("taker")
    );
}

/// Covers BG-16.
#[tokio::test(flavor = "multi_thread")]
async fn who_connects_hands_over_and_ends_before_the_first_request_leaves_nothing() {
    let programs = Programs::start().await;
    let (connection, connector) = programs.handed();
    drop(connector);
    let refused = WorkloadClient::over(connection).fetch().await;
    let refused = refused.err().expect("nobody is at the other end");
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    programs.agent.shell().identity().await;
}
