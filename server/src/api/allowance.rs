//! What one caller may have under way at the doors of gRPC: calls, bytes of requests and of answers, trust streams. All connections of a
//! caller draw from the same, before the service sees a byte.

mod answer;
mod line;
mod rows;

use std::{error::Error, fmt, sync::Arc};

use http_body_util::Limited;
use signet_certs::id::SpiffeId;
use signet_runtime::{
    body::{Messages, Meter, Metered, Refused},
    bucket::{Buckets, Rate},
    places::{Bounds, Loses, Place, Places},
    quota::{Division, Quota},
    refusals::Refusals,
    source::Source,
};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tonic::{Status, body::Body};

use self::answer::{Answer, Kind, Streams, Untaken};
use self::line::STRANGERS_CALLS;
pub(super) use self::line::{STRANGERS_PER_SOURCE, STRANGERS_REQUEST};
pub(crate) use self::{line::Line, rows::limits};
use super::retry::later;
use crate::issuer::RETRY_AFTER;

/// Bytes of an agent's requests and answers. Beyond shares there is room for some of the largest requests, which are rare.
const AGENTS_BYTES: Division = Division {
    share: 16 << 10,
    cap: 12 << 20,
    pool: 96 << 20,
};
/// Bytes of one agent whose certificate is worth a trust stream alone.
const GUESTS_BYTES: Division = Division {
    share: STRANGERS_REQUEST,
    cap: 512 << 10,
    pool: 16 << 20,
};
/// Bytes of one source of strangers. One request is sure; and all calls of all connections that a source may have find room together,
/// for what waits there for its turn shuts out no neighbour.
const STRANGERS_BYTES: Division = Division {
    share: STRANGERS_REQUEST,
    cap: STRANGERS_PER_SOURCE * STRANGERS_CALLS * STRANGERS_REQUEST,
    pool: 48 << 20,
};
/// Bytes of all admins together.
const ADMINS_BYTES: Division = Division {
    share: 0,
    cap: 64 << 20,
    pool: 64 << 20,
};

/// Trust streams that one agent opens: one, and another when that breaks.
const STREAMS: Rate = Rate {
    per_second: 1.0,
    burst: 32.0,
};
/// Callers that are told apart at once.
const CALLERS: usize = 32_768;

/// Answers to GetTrust under way, in all and to one caller: each may be as large as all lists together.
const ALL_READERS: usize = 32;
const CALLERS_READERS: usize = 4;

/// Why callers are refused, as the [`Refusals`] of a door of gRPC count it.
pub(crate) const REASONS: &[&str] = &[BYTES, SLOW, CALLS, CONNECTS, STREAMS_OPENED, READERS];
const BYTES: &str = "bytes";
const SLOW: &str = "slow_request";
const CALLS: &str = "calls";
pub(super) const CONNECTS: &str = "connects";
const STREAMS_OPENED: &str = "trust_streams";
const READERS: &str = "readers";

/// Who uses what is granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// By a certificate that counts.
    Agent(SpiffeId),
    /// By one that is worth a trust stream and no more: whoever holds such a one takes nothing from the agent.
    Guest(SpiffeId),
    /// Whoever connects from there without.
    Stranger(Source),
    /// Whoever can open the admin socket.
    Admin,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => agent.fmt(f),
            Self::Guest(agent) => write!(f, "{agent}, by a certificate that does not count"),
            Self::Stranger(source) => source.fmt(f),
            Self::Admin => f.write_str("admin"),
        }
    }
}

/// What everybody at one door has. Clones are of the same.
#[derive(Clone, Debug)]
pub(crate) struct Allowances(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    agents: Arc<Quota<Caller>>,
    guests: Arc<Quota<Caller>>,
    strangers: Arc<Quota<Caller>>,
    admins: Arc<Quota<Caller>>,
    opened: Buckets<Caller>,
    readers: Arc<Places<Caller>>,
    streams: Arc<Streams>,
    refusals: Refusals,
}

/// How the messages of a call come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One, of at most so many bytes, the service's own bound aside.
    One(usize),
    /// As many as there are: a trust stream.
    Trust,
    /// As [`Shape::One`], where the answer is the trust state.
    Public(usize),
}

/// What one call has been granted.
pub(super) struct Granted {
    meter: Meter<Caller>,
    call: Option<OwnedSemaphorePermit>,
    line: Line,
    /// Among those who read what is public.
    reading: Option<Place<Caller>>,
    refusals: Refusals,
}

impl Allowances {
    /// Nothing is used; `refusals` are the door's.
    pub(crate) fn new(refusals: Refusals) -> Self {
        Self(Arc::new(Shared {
            agents: Quota::new(AGENTS_BYTES),
            guests: Quota::new(GUESTS_BYTES),
            strangers: Quota::new(STRANGERS_BYTES),
            admins: Quota::new(ADMINS_BYTES),
            opened: Buckets::new(STREAMS, CALLERS),
            readers: Places::new(Bounds {
                total: ALL_READERS,
                cap: CALLERS_READERS,
                loses: Loses::Newest,
            }),
            streams: Arc::default(),
            refusals,
        }))
    }

    /// Where what is refused at the door is counted.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// What a call is granted before it is looked at.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, with the time to wait.
    pub(super) fn grant(&self, line: Line) -> Result<Granted, Status> {
        if let Some(wait) = line.wait {
            // It was counted when the connection came in.
            return Err(later("this agent connects too often", wait));
        }
        if let Some(begun) = &line.begun {
            begun.lock().take(Instant::now()).map_err(|wait| {
                self.0.refusals.count(CALLS, &line.caller);
                later("too many calls on this connection", wait)
            })?;
        }
        let call = line.calls.clone().try_acquire_owned();
        let (Ok(call), Some(held)) = (call, self.bytes_of(&line.caller).take(&line.caller, 0)) else {
            self.0.refusals.count(CALLS, &line.caller);
            return Err(later("too many calls under way on this connection", RETRY_AFTER));
        };
        Ok(Granted {
            meter: Meter::new(held),
            call: Some(call),
            line,
            reading: None,
            refusals: self.0.refusals.clone(),
        })
    }

    /// What a call is granted besides if its answer is the trust state: an agent opens no more than a few streams, and those who
    /// read what is public are few at once, the same number from everywhere.
    ///
    /// # Errors
    /// As [`grant`](Self::grant).
    pub(super) fn grant_stream(&self, mut granted: Granted, shape: Shape) -> Result<Granted, Status> {
        let caller = &granted.line.caller;
        match (shape, caller) {
            (Shape::Trust, Caller::Agent(_) | Caller::Guest(_)) => {
                self.0.opened.take(caller.clone()).map_err(|wait| {
                    self.0.refusals.count(STREAMS_OPENED, caller);
                    later("this agent opens too many trust streams", wait)
                })?;
            }
            (Shape::Public(_), Caller::Agent(_) | Caller::Guest(_) | Caller::Stranger(_)) => {
                let place = self.0.readers.take(caller).map_err(|_| {
                    self.0.refusals.count(READERS, caller);
                    later("too many read the trust state at the moment", RETRY_AFTER)
                })?;
                granted.reading = Some(place);
            }
            _ => {}
        }
        Ok(granted)
    }

    /// The answer, with what was granted to the call held until it has been taken.
    pub(super) fn answer(
        &self,
        granted: Granted,
        shape: Shape,
        answer: http::Response<Body>,
    ) -> http::Response<Body> {
        let kind = match shape {
            Shape::One(_) => Kind::Counted,
            Shape::Trust => Kind::Stream(self.0.streams.clone()),
            Shape::Public(_) => Kind::Shared,
        };
        answer.map(|body| Body::new(Answer::new(body, granted, kind)))
    }

    fn bytes_of(&self, caller: &Caller) -> &Arc<Quota<Caller>> {
        match caller {
            Caller::Agent(_) => &self.0.agents,
            Caller::Guest(_) => &self.0.guests,
            Caller::Stranger(_) => &self.0.strangers,
            Caller::Admin => &self.0.admins,
        }
    }
}

impl Granted {
    /// The request, with its bytes counted as they arrive.
    pub(super) fn request(&self, shape: Shape, request: http::Request<Body>) -> http::Request<Body> {
        request.map(|body| match shape {
            Shape::One(most) | Shape::Public(most) => {
                let body = Body::new(Limited::new(body, most));
                Body::new(Metered::new(body, self.meter.clone(), refuse))
            }
            Shape::Trust => Body::new(Messages::new(body, self.meter.clone(), refuse)),
        })
    }

    const fn meter(&self) -> &Meter<Caller> {
        &self.meter
    }

    const fn caller(&self) -> &Caller {
        &self.line.caller
    }

    /// The place among readers, for whoever ends the answer when it is lost.
    fn take_reading(&mut self) -> Option<Place<Caller>> {
        self.reading.take()
    }

    const fn untaken(&self) -> &Arc<Untaken> {
        &self.line.untaken
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        drop(self.call.take());
        if let Some(refused) = self.meter.refused() {
            let reason = match refused {
                Refused::TooMany => BYTES,
                Refused::TooSlow => SLOW,
            };
            self.refusals.count(reason, &self.line.caller);
        }
    }
}

/// As the service passes it on.
fn refuse(refused: Refused) -> Box<dyn Error + Send + Sync> {
    let message = refused.to_string();
    Box::new(match refused {
        Refused::TooMany => later(&message, RETRY_AFTER),
        Refused::TooSlow => Status::deadline_exceeded(message),
    })
}
