//! Request bodies that are paid for as they arrive: their bytes count against their caller until the request is answered, and one that
//! comes too slowly ends, so that nobody holds memory or a place by half of a message.

mod messages;

use std::error::Error;
use std::hash::Hash;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

pub use self::messages::Messages;
use crate::quota::Held;
use crate::sync::Mutex;

/// What a body may take its time for, before its bytes give it more.
const GRACE: Duration = Duration::from_secs(5);
/// The least that it brings in a second, beyond that.
const BYTES_PER_SECOND: u32 = 4096;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refused {
    /// The caller has as many bytes under way as it may have.
    #[error("too many bytes of requests under way from this caller; retry later")]
    TooMany,
    /// It comes too slowly.
    #[error("the request did not arrive in time")]
    TooSlow,
}

/// The bytes of one request, held until this and the body are dropped. The service that reads the body drops it once its message is
/// decoded, so whoever answers keeps a clone.
#[derive(Debug)]
pub struct Meter<K: Clone + Eq + Hash>(Arc<Mutex<Counted<K>>>);

#[derive(Debug)]
struct Counted<K: Clone + Eq + Hash> {
    held: Held<K>,
    refused: Option<Refused>,
}

impl<K: Clone + Eq + Hash> Clone for Meter<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Clone + Eq + Hash> Meter<K> {
    /// Counts on top of what is held already.
    #[must_use]
    pub fn new(held: Held<K>) -> Self {
        Self(Arc::new(Mutex::new(Counted { held, refused: None })))
    }

    /// So many bytes more, for what is answered too; `false` where there are not.
    #[must_use]
    pub fn draw(&self, bytes: usize) -> bool {
        let mut counted = self.0.lock();
        let drawn = counted.held.grow(bytes);
        if !drawn {
            counted.refused = Some(Refused::TooMany);
        }
        drawn
    }

    /// Gives back what was drawn.
    pub fn give_back(&self, bytes: usize) {
        self.0.lock().held.shrink(bytes);
    }

    /// Why something was refused, if it was.
    #[must_use]
    pub fn refused(&self) -> Option<Refused> {
        self.0.lock().refused
    }

    fn too_slow(&self) -> Refused {
        self.0.lock().refused = Some(Refused::TooSlow);
        Refused::TooSlow
    }
}

/// See the [module](self). `refuse` makes the error that the service understands.
pub struct Metered<B, K: Clone + Eq + Hash> {
    body: B,
    meter: Meter<K>,
    refuse: fn(Refused) -> Box<dyn Error + Send + Sync>,
    /// When the rest has to be there, and who wakes then.
    due: Pin<Box<Sleep>>,
}

/// When a body is due after so many more bytes: nothing is saved up beyond the grace, so that much of it sent at once keeps nothing for
/// long.
fn later(due: Instant, bytes: usize) -> Instant {
    let earned = Duration::from_secs(1) * u32::try_from(bytes).unwrap_or(u32::MAX) / BYTES_PER_SECOND;
    (due + earned).min(Instant::now() + GRACE)
}

impl<B, K: Clone + Eq + Hash> Metered<B, K> {
    /// A body that begins to arrive now.
    pub fn new(body: B, meter: Meter<K>, refuse: fn(Refused) -> Box<dyn Error + Send + Sync>) -> Self {
        Self {
            body,
            meter,
            refuse,
            due: Box::pin(sleep_until(Instant::now() + GRACE)),
        }
    }

    fn arrived(&mut self, bytes: usize) -> Result<(), Refused> {
        if !self.meter.draw(bytes) {
            return Err(Refused::TooMany);
        }
        let due = later(self.due.deadline(), bytes);
        self.due.as_mut().reset(due);
        Ok(())
    }
}

impl<B, K> Body for Metered<B, K>
where
    B: Body + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    K: Clone + Eq + Hash,
{
    type Data = B::Data;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, Self::Error>>> {
        let refuse = self.refuse;
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Buf::remaining);
                Poll::Ready(Some(self.arrived(bytes).map(|()| frame).map_err(refuse)))
            }
            Poll::Ready(other) => Poll::Ready(other.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                ready!(self.due.as_mut().poll(cx));
                Poll::Ready(Some(Err(refuse(self.meter.too_slow()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use http_body_util::BodyExt;
    use http_body_util::channel::Channel;

    use super::*;
    use crate::quota::{Division, Quota};

    fn quota(cap: usize) -> Arc<Quota<&'static str>> {
        Quota::new(Division {
            share: 0,
            cap,
            pool: cap,
        })
    }

    type Sent = http_body_util::channel::Sender<Bytes, Infallible>;
    type Arriving = Metered<Channel<Bytes, Infallible>, &'static str>;

    fn metered(quota: &Arc<Quota<&'static str>>) -> (Sent, Arriving, Meter<&'static str>) {
        let (sender, body) = Channel::new(1);
        let meter = Meter::new(quota.take(&"a", 0).unwrap());
        (
            sender,
            Metered::new(body, meter.clone(), |refused| refused.into()),
            meter,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_until_the_request_is_answered() {
        let quota = quota(10_000);
        let (mut sender, mut body, meter) = metered(&quota);
        sender.send_data(Bytes::from(vec![0; 8000])).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(quota.used(), 8000);
        sender.send_data(Bytes::from(vec![0; 3000])).await.unwrap();
        let refused = body.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.downcast_ref(), Some(&Refused::TooMany));
        drop(body);
        assert_eq!(quota.used(), 8000);
        drop(meter);
        assert_eq!(quota.used(), 0);
    }

    /// How long a body is read to which so many bytes come each second, at most a minute.
    async fn read_for(bytes: usize) -> (Duration, Option<Refused>) {
        let quota = quota(1 << 20);
        let (mut sender, mut body, _meter) = metered(&quota);
        let feeder = tokio::spawn(async move {
            while sender.send_data(Bytes::from(vec![0; bytes])).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let begun = Instant::now();
        let mut refused = None;
        while refused.is_none() && begun.elapsed() < Duration::from_secs(60) {
            let frame = body.frame().await.unwrap();
            refused = frame.err().and_then(|error| error.downcast_ref().copied());
        }
        feeder.abort();
        (begun.elapsed(), refused)
    }

    #[tokio::test(start_paused = true)]
    async fn what_trickles_ends_and_what_flows_does_not() {
        let (time, refused) = read_for(1).await;
        assert_eq!((time.as_secs(), refused), (5, Some(Refused::TooSlow)));
        let quota = quota(1 << 20);
        let (mut sender, mut body, _meter) = metered(&quota);
        sender.send_data(Bytes::from(vec![0; 1 << 19])).await.unwrap();
        assert!(body.frame().await.unwrap().is_ok());
        let begun = Instant::now();
        assert!(body.frame().await.unwrap().is_err(), "much at once buys no time");
        assert_eq!(begun.elapsed().as_secs(), GRACE.as_secs());
        let (time, refused) = read_for(5000).await;
        assert_eq!((time.as_secs(), refused), (60, None));
    }
}
