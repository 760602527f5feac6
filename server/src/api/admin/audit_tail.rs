//! The log as it is written, for admins who look on.

use std::{sync::Arc, time::Duration};

use signet_certs::serial::SerialNumber;
use signet_proto::admin as wire;
use tokio::{
    sync::{OwnedSemaphorePermit, SemaphorePermit, mpsc},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::AdminService;
use crate::{
    audit::{AuditTail, Batch, Filter, Kept, MOST_READERS, Reader},
    metrics::Metrics,
};

/// Lines before those that come, at most.
const MOST_LAST: u32 = 10_000;
/// So many are held for whoever asks.
const FEW: usize = 256;
/// How long it may take to tell them.
const LONGEST: Duration = Duration::from_secs(300);
/// Lines on their way to one reader.
const UNDER_WAY: usize = 16;

type Lines = mpsc::Sender<Result<wire::AuditLine, Status>>;

impl AdminService {
    pub(super) fn audit_tail(
        &self,
        asked: wire::TailAuditRequest,
    ) -> Result<ReceiverStream<Result<wire::AuditLine, Status>>, Status> {
        if asked.last > MOST_LAST {
            return Err(Status::invalid_argument(format!(
                "at most {MOST_LAST} lines are told at once; the files of the log have all of them"
            )));
        }
        let filter = self.filter(&asked)?;
        let Some(place) = self.audit_tail.place() else {
            return Err(Status::resource_exhausted(format!(
                "{MOST_READERS} read the log already, which is as many as may; end an `audit tail` that nobody needs, or read the files of the log"
            )));
        };
        let (sender, receiver) = mpsc::channel(UNDER_WAY);
        let looking_on = LookingOn {
            filter,
            last: asked.last as usize,
            follow: asked.follow,
            tail: self.audit_tail.clone(),
            metrics: self.metrics.clone(),
            lines: sender,
            _place: place,
        };
        // From here on nothing is missed, though the task begins later.
        signet_runtime::spans::spawn(looking_on.run(self.audit_tail.reader()));
        Ok(ReceiverStream::new(receiver))
    }

    fn filter(&self, asked: &wire::TailAuditRequest) -> Result<Filter, Status> {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let spiffe_id = given(&asked.spiffe_id).map(|id| self.id_or_path(&id));
        let serial = given(&asked.serial).map(|serial| serial.parse::<SerialNumber>());
        let serial = serial.transpose();
        let serial = serial.map_err(|e| Status::invalid_argument(format!("not a serial number: {e}")))?;
        Ok(Filter {
            spiffe_id: spiffe_id.transpose()?.map(|id| id.to_string()),
            pod: given(&asked.pod),
            serial: serial.map(|serial| serial.to_string()),
            author: given(&asked.author),
        })
    }
}

/// What a question is about, for the audit log. That somebody has read of a pod is nothing that happened to it: no filter finds that.
pub(super) fn words(asked: &wire::TailAuditRequest) -> String {
    let filters = [
        ("ID", &asked.spiffe_id),
        ("pod", &asked.pod),
        ("serial", &asked.serial),
        ("author", &asked.author),
    ];
    let given = filters.iter().filter(|(_, text)| !text.is_empty());
    let given: Vec<_> = given.map(|(what, text)| format!("{what} {text}")).collect();
    let of = if given.is_empty() {
        "all".to_owned()
    } else {
        given.join(" and ")
    };
    let how = if asked.follow { " from then on" } else { "" };
    format!("lines of {of}, the last {}{how}", asked.last)
}

/// An admin who looks on.
struct LookingOn {
    filter: Filter,
    last: usize,
    follow: bool,
    tail: AuditTail,
    metrics: Arc<Metrics>,
    lines: Lines,
    _place: OwnedSemaphorePermit,
}

/// He has gone, or is told no more.
struct Over;

impl LookingOn {
    async fn run(self, reader: Reader) {
        // Whoever has gone needs no answer.
        let _ = self.tell(reader).await;
    }

    async fn tell(&self, reader: Reader) -> Result<(), Over> {
        // Whoever waits for others is not late himself.
        let leave = self.leave().await?;
        let told = timeout(LONGEST, self.tell_last(reader)).await;
        drop(leave);
        let mut reader = match told {
            Ok(told) => told?,
            Err(_) => {
                let late =
                    Status::deadline_exceeded("the lines of before were not taken in time; ask for fewer");
                return self.lines.send(Err(late)).await.map_err(|_| Over);
            }
        };
        if !self.follow {
            return Ok(());
        }
        loop {
            let is_more = tokio::select! {
                is_more = reader.more() => is_more,
                () = self.lines.closed() => return Err(Over),
            };
            if !is_more {
                let ends = Status::unavailable("the server is stopping");
                return self.lines.send(Err(ends)).await.map_err(|_| Over);
            }
            let Batch { missed, lines } = reader.take();
            if missed > 0 {
                self.metrics.audit_missed(missed);
                self.send(wire::AuditLine {
                    lagged: missed,
                    ..wire::AuditLine::default()
                })
                .await?;
            }
            for line in lines.iter().filter(|line| self.filter.wants(line)) {
                self.send_line(line).await?;
            }
        }
    }

    /// Leave to have so many lines held; none where they are few.
    async fn leave(&self) -> Result<Option<SemaphorePermit<'_>>, Over> {
        if self.last <= FEW {
            return Ok(None);
        }
        if let Some(leave) = self.tail.many_now() {
            return Ok(Some(leave));
        }
        self.note(format!(
            "others are being told many lines, and yours come after theirs; {FEW} lines at most come at once"
        ))
        .await?;
        tokio::select! {
            leave = self.tail.many() => Ok(leave),
            () = self.lines.closed() => Err(Over),
        }
    }

    /// What was emitted before, in order: from the files of the log what is not kept.
    async fn tell_last(&self, reader: Reader) -> Result<Reader, Over> {
        if self.last == 0 {
            return Ok(reader);
        }
        let (filter, last) = (self.filter.clone(), self.last);
        let choose = move || (reader.kept(&filter, last), reader);
        let chosen = signet_runtime::spans::spawn_blocking(choose).await;
        let (Kept { lines, before }, reader) = chosen.map_err(|_| Over)?;
        let lacking = self.last.saturating_sub(lines.len());
        if lacking > 0 {
            let listener = self.lines.clone();
            let goes_on = move || !listener.is_closed();
            let history = self.tail.history(before, self.filter.clone(), lacking, goes_on);
            let told = history.await;
            for note in told.notes {
                self.note(note).await?;
            }
            for line in &told.lines {
                self.send_line(line).await?;
            }
        }
        for line in &lines {
            self.send_line(line).await?;
        }
        Ok(reader)
    }

    async fn send_line(&self, line: &str) -> Result<(), Over> {
        self.send(wire::AuditLine {
            line: line.to_owned(),
            ..wire::AuditLine::default()
        })
        .await
    }

    async fn note(&self, note: String) -> Result<(), Over> {
        self.send(wire::AuditLine {
            note,
            ..wire::AuditLine::default()
        })
        .await
    }

    async fn send(&self, line: wire::AuditLine) -> Result<(), Over> {
        self.lines.send(Ok(line)).await.map_err(|_| Over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// He takes a few, then none while the log goes on; then he takes again.
    #[tokio::test]
    async fn who_takes_nothing_for_a_while_is_told_how_many_lines_he_missed() {
        let tail = AuditTail::new("s", None);
        let telemetry = signet_runtime::telemetry::Metrics::new("signet_server");
        let (sender, mut receiver) = mpsc::channel(UNDER_WAY);
        let looking_on = LookingOn {
            filter: Filter::default(),
            last: 0,
            follow: true,
            tail: tail.clone(),
            metrics: Metrics::register(&telemetry),
            lines: sender,
            _place: tail.place().unwrap(),
        };
        let task = tokio::spawn(looking_on.run(tail.reader()));
        let (mut taken, mut missed) = (0, 0);
        let all = 25_000_u64;
        for sequence in 1..=all {
            tail.emitted([(sequence, format!("line {sequence}"))]);
            // The task goes as far as it may.
            if sequence.is_multiple_of(1_000) {
                tokio::task::yield_now().await;
            }
        }
        while taken + missed < all {
            let line = receiver.recv().await.unwrap().unwrap();
            missed += line.lagged;
            taken += u64::from(!line.line.is_empty());
        }
        assert!(missed > 10_000 && taken >= 10_000, "{missed} and {taken}");
        let counted = format!("signet_server_audit_lines_missed_total {missed}\n");
        assert!(telemetry.encode().contains(&counted));
        tail.close();
        let end = receiver.recv().await.unwrap().unwrap_err();
        assert!(end.message().contains("stopping"));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_others_is_told_so_and_so_many_read_at_a_time() {
        let tail = AuditTail::new("s", None);
        let telemetry = signet_runtime::telemetry::Metrics::new("signet_server");
        let metrics = Metrics::register(&telemetry);
        let ask = |last: usize| {
            let (sender, receiver) = mpsc::channel(UNDER_WAY);
            let looking_on = LookingOn {
                filter: Filter::default(),
                last,
                follow: false,
                tail: tail.clone(),
                metrics: metrics.clone(),
                lines: sender,
                _place: tail.place()?,
            };
            Some((tokio::spawn(looking_on.run(tail.reader())), receiver))
        };
        tail.emitted([(1, "line".to_owned())]);
        let others = [tail.many().await, tail.many().await];
        let (waits, mut told) = ask(FEW + 1).unwrap();
        assert!(told.recv().await.unwrap().unwrap().note.contains("after theirs"));
        let (few, mut told_few) = ask(FEW).unwrap();
        assert_eq!(told_few.recv().await.unwrap().unwrap().line, "line");
        few.await.unwrap();
        drop(others);
        assert_eq!(told.recv().await.unwrap().unwrap().line, "line");
        waits.await.unwrap();
        let places: Vec<_> = (0..MOST_READERS).map(|_| tail.place().unwrap()).collect();
        assert!(ask(1).is_none());
        drop(places);
        assert!(ask(1).is_some());
    }
}
