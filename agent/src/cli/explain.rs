//! `explain`: every step from the address of a socket to an identity, as the caller, and what to do about the first that fails. Useful
//! where no agent runs, too: what can be seen without one is looked at by this command alone.

mod agent;
mod judge;
mod path;
mod render;
mod story;
#[cfg(test)]
mod tests;

use std::time::Duration;

use signet_runtime::cli::Answer;
use signet_runtime::clock::{Clock as _, SystemClock};
use signet_workload::{Endpoint, SourceError, X509Context};
use tokio::time::timeout;

use self::agent::Agent;
use self::judge::{Fetched, Seen};
use self::story::Story;

/// Asks the socket at this address, waiting so long for an identity.
pub(super) async fn explain(address: Option<&str>, limit: Duration) -> anyhow::Result<Answer> {
    let mut story = Story::default();
    let seen = look(&mut story, address, limit).await;
    if let Some(seen) = &seen {
        judge::tell(&mut story, seen);
    }
    Ok(render::answer(address, &story, seen.as_ref()))
}

/// Up to the first step that fails; what is left then was not looked at.
async fn look(story: &mut Story, address: Option<&str>, limit: Duration) -> Option<Seen> {
    let path = story.step("address", || path::address(address))?;
    let owner = story.step("path", || path::socket(&path))?;
    let began = story.begin();
    let connected = path::connect(&path).await;
    story.told("permission", path::permission(&owner, &connected))?;
    story.since("connection", began, path::connection(connected))?;
    let started = story.begin();
    let agent = Agent::at(&path);
    let speaks = agent.speaks().await;
    story.since("grpc", started, speaks)?;
    let started = story.begin();
    // While its stream is open it is known to the agent, and what it waits for is told.
    let mut fetching = signet_runtime::spans::spawn(fetch(Endpoint::Unix(path)));
    let early = timeout(limit, &mut fetching).await;
    let fetched = match early {
        Ok(Ok(fetched)) => fetched,
        Ok(Err(_)) => Fetched::Nothing("this command failed to ask".to_owned()),
        Err(_) => Fetched::Late(limit),
    };
    story.waited = Some(started);
    let why = agent.why().await;
    fetching.abort();
    Some(Seen {
        fetched,
        why,
        now: SystemClock.now(),
    })
}

async fn fetch(endpoint: Endpoint) -> Fetched {
    match X509Context::fetch(&endpoint, &SystemClock).await {
        Ok(context) => Fetched::Context(Box::new(context)),
        Err(SourceError::Stream { code, message }) => Fetched::Ended(code, message),
        Err(SourceError::Message(error)) => Fetched::Unusable(error),
        Err(other) => Fetched::Nothing(other.to_string()),
    }
}
