use std::io;

use ring::rand::SystemRandom;
use signet_certs::signer::{LocalSigner, SignatureAlgorithm};
use signet_runtime::clock::FakeClock;
use signet_runtime::signal::Reread;
use signet_runtime::sync::Mutex;
use tokio::sync::watch;
use tokio::time::sleep;

use super::*;
use crate::audit::{AuditCursor, AuditKey, AuditTail, EmitterParts, LineSink};
use crate::audit_event::StoredLine;
use crate::fixtures::{START, trust_domain};
use crate::store::memory::MemoryStore;
use crate::store::{AuditOutbox, BoxFuture, StoreFuture};

/// A store that takes no more lines, and gives those that it has.
struct Hanging(Arc<MemoryStore>);

impl AuditOutbox for Hanging {
    fn append(&self, _: Vec<AuditEvent>) -> StoreFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    fn stored(&self) -> watch::Receiver<u64> {
        self.0.stored()
    }

    fn bound(&self, most: Option<u64>) {
        self.0.bound(most);
    }

    fn left_out(&self) -> u64 {
        self.0.left_out()
    }

    fn cursor(&self) -> StoreFuture<'_, AuditCursor> {
        self.0.cursor()
    }

    fn head(&self) -> StoreFuture<'_, Option<String>> {
        self.0.head()
    }

    fn lines_after(&self, sequence: u64, limit: usize) -> StoreFuture<'_, Vec<StoredLine>> {
        self.0.lines_after(sequence, limit)
    }

    fn advance(&self, cursor: AuditCursor, head: Option<String>) -> StoreFuture<'_, ()> {
        self.0.advance(cursor, head)
    }
}

/// A reader that takes a while for each piece.
#[derive(Clone, Default)]
struct SlowReader(Arc<Mutex<String>>);

impl LineSink for SlowReader {
    fn write(&mut self, lines: Vec<u8>) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move {
            sleep(Duration::from_secs(1)).await;
            self.0.lock().push_str(&String::from_utf8(lines).unwrap());
            Ok(())
        })
    }

    fn sync(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn reopen(&mut self) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

fn stopped(clock: &FakeClock) -> AuditEvent {
    let reason = "asked to".to_owned();
    AuditEvent::new(clock.now(), AuditAction::ServerStopped { reason })
}

/// What is stored already goes out in the time that is left, and its end is signed.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_leaves_time_to_those_who_read() {
    let clock = FakeClock::new(std::time::SystemTime::UNIX_EPOCH + START);
    let store = MemoryStore::new(trust_domain());
    store.append(vec![stopped(&clock)]).await.unwrap();
    let (signer, _) = LocalSigner::generate(SignatureAlgorithm::P256, &SystemRandom::new()).unwrap();
    let (reader, drain) = (SlowReader::default(), Drain::new());
    let emitter = AuditEmitter::spawn(
        EmitterParts {
            outbox: Arc::new(Hanging(store.clone())),
            server_id: "server".to_owned(),
            key: AuditKey::new(Arc::new(signer)),
            sink: Box::new(reader.clone()),
            clock: Arc::new(clock.clone()),
            tail: AuditTail::new("s", None),
            reread: Reread::never(),
        },
        drain.vital("audit log"),
    );
    let audit = AuditLog::start(Arc::new(Hanging(store)));
    audit.record(stopped(&clock));
    let deadline = Instant::now() + LAST_LINES;
    write_out(&audit, emitter, deadline).await;
    assert!(Instant::now() < deadline);
    let read = reader.0.lock().clone();
    assert!(
        read.contains("\"server_stopped\"") && read.contains("\"head\""),
        "{read}"
    );
}
