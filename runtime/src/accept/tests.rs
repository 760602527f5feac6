use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;

/// `None` is a connection.
type Script = VecDeque<Option<io::ErrorKind>>;

/// Does what the script says, then nothing.
struct Scripted(Script);

impl Listener for Scripted {
    type Io = DuplexStream;
    type Addr = ();

    fn poll_accept(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<(DuplexStream, ())>> {
        match self.0.pop_front() {
            None => Poll::Pending,
            Some(None) => Poll::Ready(Ok((duplex(1).0, ()))),
            Some(Some(kind)) => Poll::Ready(Err(kind.into())),
        }
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Milliseconds at which connections were taken, up to `end`.
async fn taken(script: impl IntoIterator<Item = Option<io::ErrorKind>>, end: Duration) -> Vec<u128> {
    let begun = Instant::now();
    let taken = Mutex::new(Vec::new());
    let stop = tokio::time::sleep(end);
    each(
        Scripted(script.into_iter().collect()),
        "a test's",
        stop,
        |_, ()| {
            taken.lock().unwrap().push(begun.elapsed().as_millis());
        },
    )
    .await;
    assert_eq!(begun.elapsed(), end, "it ends at once when told to");
    taken.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn failures_are_followed_by_growing_pauses_and_a_success_ends_them() {
    let none_left = Some(io::ErrorKind::Other);
    let script = [none_left, none_left, none_left, None, None, none_left, None];
    assert_eq!(
        taken(script, Duration::from_secs(10)).await,
        [140, 140, 160],
        "20 + 40 + 80 ms, and 20 ms again"
    );
}

#[tokio::test(start_paused = true)]
async fn no_pause_is_longer_than_a_second() {
    let script = std::iter::repeat_n(Some(io::ErrorKind::Other), 10).chain([None]);
    let expected: u128 = [20, 40, 80, 160, 320, 640].iter().sum::<u128>() + 4 * 1000;
    assert_eq!(taken(script, Duration::from_secs(60)).await, [expected]);
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_hung_up_holds_nobody_up() {
    let script = [
        Some(io::ErrorKind::ConnectionAborted),
        None,
        Some(io::ErrorKind::ConnectionReset),
        None,
    ];
    assert_eq!(taken(script, Duration::from_secs(1)).await, [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn the_stop_is_heard_within_a_pause() {
    let script = std::iter::repeat_n(Some(io::ErrorKind::Other), 1000);
    assert!(taken(script, Duration::from_millis(2345)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn no_more_are_served_at_once_than_there_are_places_and_the_drain_waits_for_them() {
    let drain = Drain::new();
    let (begun, mut beginnings) = mpsc::unbounded_channel();
    let script: Script = std::iter::repeat_n(None, 5).collect();
    let serving = drain.clone();
    drain.spawn(async move {
        bounded(Scripted(script), "a test's", 2, &serving, |_stream, ()| {
            begun.send(Instant::now()).unwrap();
            tokio::time::sleep(Duration::from_secs(10))
        })
        .await;
    });
    let start = Instant::now();
    let mut seconds = Vec::new();
    for _ in 0..5 {
        seconds.push((beginnings.recv().await.unwrap() - start).as_secs());
    }
    assert_eq!(seconds, [0, 0, 10, 10, 20]);
    assert!(drain.finish(Duration::from_secs(11)).await);
    assert_eq!(
        start.elapsed().as_secs(),
        30,
        "the last one was served to its end"
    );
}

#[tokio::test]
async fn both_kinds_of_listeners_are_taken() {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let path = directory.path().join("s.sock");
    let unix = UnixListener::bind(&path).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let stop = CancellationToken::new();
    let loops = async {
        tokio::join!(
            each(unix, "unix", stop.cancelled(), |stream, _| drop(stream)),
            each(tcp, "tcp", stop.cancelled(), |stream, _| drop(stream)),
        );
    };
    let clients = async {
        let mut unix = UnixStream::connect(&path).await.unwrap();
        let mut tcp = TcpStream::connect(address).await.unwrap();
        let mut byte = [0];
        assert_eq!(unix.read(&mut byte).await.unwrap(), 0, "it was taken and dropped");
        assert_eq!(tcp.read(&mut byte).await.unwrap(), 0, "it was taken and dropped");
        stop.cancel();
    };
    tokio::join!(loops, clients);
    assert!(
        UnixStream::connect(&path).await.is_err(),
        "the listener is closed"
    );
}
