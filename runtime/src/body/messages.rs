//! A request that is a stream of gRPC messages (gRPC over HTTP/2, Length-Prefixed-Message), and so goes on for as long as both like: each
//! message counts from its first byte until the next is asked for, and has its time from that byte on.

use std::error::Error;
use std::hash::Hash;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{GRACE, Meter, Refused, later};
use crate::prefix::{LENGTH, Prefix};

/// The body of a request that is a stream of messages; each counts until the next is asked for.
pub struct Messages<B, K: Clone + Eq + Hash> {
    body: B,
    meter: Meter<K>,
    refuse: fn(Refused) -> Box<dyn Error + Send + Sync>,
    /// When the rest of the message that has begun has to be there.
    due: Option<Pin<Box<Sleep>>>,
    head: [u8; LENGTH],
    /// Bytes of the message that has begun, its head included; zero between two.
    arrived: usize,
    /// Those that it lacks, once its head is there.
    lacks: usize,
    counted: usize,
}

impl<B, K: Clone + Eq + Hash> Messages<B, K> {
    /// None has begun.
    pub const fn new(body: B, meter: Meter<K>, refuse: fn(Refused) -> Box<dyn Error + Send + Sync>) -> Self {
        Self {
            body,
            meter,
            refuse,
            due: None,
            head: [0; LENGTH],
            arrived: 0,
            lacks: 0,
            counted: 0,
        }
    }

    /// What was read has been made use of, but for the message that is not complete.
    fn settle(&mut self) {
        let used = self.counted.saturating_sub(self.arrived);
        if used > 0 {
            self.meter.give_back(used);
            self.counted -= used;
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        if !self.meter.draw(bytes.len()) {
            return Err(Refused::TooMany);
        }
        self.counted += bytes.len();
        self.walk(bytes);
        if self.arrived == 0 {
            self.due = None;
            return Ok(());
        }
        let due = match &self.due {
            Some(due) => due.deadline(),
            None => Instant::now() + GRACE,
        };
        let due = later(due, bytes.len());
        match &mut self.due {
            Some(sleep) => sleep.as_mut().reset(due),
            None => self.due = Some(Box::pin(sleep_until(due))),
        }
        Ok(())
    }

    fn walk(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.arrived < LENGTH {
                self.head[self.arrived] = *first;
                self.arrived += 1;
                bytes = rest;
                if self.arrived == LENGTH {
                    self.lacks = Prefix::read(self.head).length;
                }
            } else {
                let part = self.lacks.min(bytes.len());
                self.arrived += part;
                self.lacks -= part;
                bytes = bytes.get(part..).unwrap_or_default();
            }
            if self.arrived >= LENGTH && self.lacks == 0 {
                // Complete, and with it its time is over: the next has its own.
                self.arrived = 0;
                self.due = None;
            }
        }
    }
}

impl<B, K> Body for Messages<B, K>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    K: Clone + Eq + Hash,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.settle();
        let refuse = self.refuse;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let taken = frame.data_ref().map_or(Ok(()), |bytes| self.take(bytes));
                Poll::Ready(Some(taken.map(|()| frame).map_err(refuse)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                let Some(due) = &mut self.due else {
                    return Poll::Pending;
                };
                ready!(due.as_mut().poll(cx));
                Poll::Ready(Some(Err(refuse(self.meter.too_slow()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use http_body_util::BodyExt;
    use http_body_util::channel::{Channel, Sender};

    use super::*;
    use crate::quota::{Division, Quota};

    type Sent = Sender<Bytes, Infallible>;
    type Arriving = Messages<Channel<Bytes, Infallible>, u8>;

    fn messages() -> (Sent, Arriving, Arc<Quota<u8>>) {
        let quota = Quota::new(Division {
            share: 0,
            cap: 1000,
            pool: 1000,
        });
        let (sender, body) = Channel::new(1);
        let meter = Meter::new(quota.take(&1, 0).unwrap());
        (
            sender,
            Messages::new(body, meter, |refused| refused.into()),
            quota,
        )
    }

    fn message(bytes: u8) -> Vec<u8> {
        [&[0, 0, 0, 0, bytes], vec![7; bytes.into()].as_slice()].concat()
    }

    async fn refused(body: &mut Messages<Channel<Bytes, Infallible>, u8>) -> Refused {
        let error = body.frame().await.unwrap().unwrap_err();
        *error.downcast_ref().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_counts_until_the_next_is_asked_for() {
        let (mut sender, mut body, quota) = messages();
        let all = [message(200), message(0), message(100)].concat();
        for split in [all.len(), 207, 5, 3] {
            for part in all.chunks(split) {
                sender.send_data(Bytes::copy_from_slice(part)).await.unwrap();
                body.frame().await.unwrap().unwrap();
            }
            let waits = tokio::time::timeout(Duration::from_secs(3600), body.frame()).await;
            assert!(waits.is_err(), "between two messages there is time");
            assert_eq!(quota.used(), 0, "split at {split}");
        }
        for _ in 0..3 {
            let half = [[0, 0, 0, 255, 255].as_slice(), &[0; 400]].concat();
            let _ = sender.send_data(Bytes::from(half)).await;
            if quota.used() > 500 {
                assert_eq!(refused(&mut body).await, Refused::TooMany);
                break;
            }
            body.frame().await.unwrap().unwrap();
        }
        assert_eq!(quota.used(), 810);
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_message_ends_and_a_full_one_does_not() {
        let (mut sender, mut body, _quota) = messages();
        sender.send_data(Bytes::from(message(10))).await.unwrap();
        body.frame().await.unwrap().unwrap();
        tokio::time::advance(Duration::from_secs(3600)).await;
        sender
            .send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]))
            .await
            .unwrap();
        body.frame().await.unwrap().unwrap();
        let begun = Instant::now();
        assert_eq!(refused(&mut body).await, Refused::TooSlow);
        assert_eq!(begun.elapsed().as_secs(), GRACE.as_secs());
    }
}
