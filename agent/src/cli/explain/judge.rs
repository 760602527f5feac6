//! From what was seen to what it means. Pure: the time is in what was seen.

mod identity;

use std::time::{Duration, SystemTime};

use signet_certs::time::{from_unix_millis, rfc3339};
use signet_proto::explain as wire;
use signet_workload::{Code, MessageError, X509Context};

use super::agent::Why;
use super::story::{Fault, Story};

/// A machine's clock that is further off than this is worth a word.
const SKEW: Duration = Duration::from_secs(60);

/// What became of the question for an identity.
#[derive(Debug)]
pub(super) enum Fetched {
    /// An identity with bundle and lists, verified.
    Context(Box<X509Context>),
    /// The agent's word.
    Ended(Code, String),
    /// An answer that does not verify.
    Unusable(MessageError),
    /// Nothing within that time.
    Late(Duration),
    /// Another trouble.
    Nothing(String),
}

/// Everything that was seen behind the socket.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) fetched: Fetched,
    pub(super) why: Why,
    /// By this machine's clock.
    pub(super) now: SystemTime,
}

impl Seen {
    fn has_identity(&self) -> bool {
        matches!(self.fetched, Fetched::Context(_))
    }

    /// What the agent said of its caller.
    pub(super) fn said(&self) -> Option<&wire::WhyResponse> {
        match &self.why {
            Why::Said { answer, .. } => Some(answer),
            Why::TooOld | Why::Not(_) => None,
        }
    }

    /// The command by which an admin goes on.
    fn admins_command(&self) -> String {
        let pod = self
            .said()
            .and_then(|said| said.caller.as_ref())
            .map(|caller| &caller.pod);
        match pod.filter(|pod| !pod.is_empty()) {
            Some(pod) => format!("an admin sees all of it by `signet-server explain --pod {pod}`"),
            None => {
                "an admin sees the rules by `signet-server rule list`, and what was refused in the audit log"
                    .to_owned()
            }
        }
    }
}

/// Tells the steps behind the socket.
pub(super) fn tell(story: &mut Story, seen: &Seen) {
    agent(story, seen);
    if let Some(said) = seen.said() {
        caller(story, seen, said);
        evidence(story, seen, said);
        server(story, seen, said);
    }
    answer(story, seen);
    clock(story, seen);
    if let Fetched::Context(context) = &seen.fetched {
        identity::tell(story, seen, context);
    }
    if let Fetched::Unusable(error) = &seen.fetched {
        let _: Option<()> = story.told("verification", Err(identity::unusable(seen, error)));
    }
}

fn agent(story: &mut Story, seen: &Seen) {
    match &seen.why {
        Why::Said { answer, at, took } => {
            let says = format!(
                "version {}, of trust domain {}",
                answer.agent_version, answer.trust_domain
            );
            story.take("agent", *at, Some(*took), Ok(((), says)));
        }
        Why::TooOld => story.note(
            "agent",
            "it is older than this command, or of another make, and cannot be asked why",
            "what follows is what the Workload API alone shows; `signet-agent status` on the node says more",
        ),
        Why::Not(problem) => story.note(
            "agent",
            format!("it does not say why: {problem}"),
            "ask again in a moment",
        ),
    }
}

fn caller(story: &mut Story, seen: &Seen, said: &wire::WhyResponse) {
    let caller = said.caller.clone().unwrap_or_default();
    if !caller.problem.is_empty() {
        let remedy = if caller.kind == "pod" {
            "the volume is going away or was made by an earlier run: if this stays so, make the pod anew"
        } else {
            "outside pods a process of the host is served over the shared socket; in a pod use the socket of the pod's own volume"
        };
        let says = format!("{} {}: {}", caller.kind, name(&caller), caller.problem);
        return fails_unless(story, seen, "caller", says, remedy);
    }
    story.told("caller", Ok(((), format!("{} {}", caller.kind, name(&caller)))));
}

/// Who the agent takes the caller for.
fn name(caller: &wire::Caller) -> String {
    match &caller.process {
        Some(process) => {
            let or_unread = |text: &str| {
                if text.is_empty() {
                    "unreadable".to_owned()
                } else {
                    text.to_owned()
                }
            };
            format!(
                "of user {}, group {}, program {}, SHA-256 {}",
                process.uid,
                process.gid,
                or_unread(&process.path),
                or_unread(&process.sha256)
            )
        }
        None if caller.pod.is_empty() => caller.pod_uid.clone(),
        None => format!("{}, UID {}", caller.pod, caller.pod_uid),
    }
}

/// What the agent can prove the caller by.
fn evidence(story: &mut Story, seen: &Seen, said: &wire::WhyResponse) {
    let caller = said.caller.clone().unwrap_or_default();
    if !caller.problem.is_empty() {
        return;
    }
    if caller.kind != "pod" {
        let says = "these facts are this command's: a rule that names a program sees another one for the workload itself";
        return story.note("evidence", says, "");
    }
    let republish = "kubelet passes tokens by publishing the volume again, every minute or so: the CSIDriver object needs \
                     `requiresRepublish: true` and the agent's audience in `tokenRequests` (deploy/kubernetes/csidriver.yaml)";
    let ends = match caller.token_expires_unix_ms {
        0 => {
            let says = "the agent holds no token of this pod".to_owned();
            return fails_unless(story, seen, "evidence", says, republish);
        }
        ends => from_unix_millis(ends),
    };
    if ends <= from_unix_millis(said.now_unix_ms) {
        let says = format!("the pod's token ended {}", rfc3339(ends));
        return fails_unless(story, seen, "evidence", says, republish);
    }
    story.told(
        "evidence",
        Ok((
            (),
            format!("the agent holds the pod's token, until {}", rfc3339(ends)),
        )),
    );
}

fn server(story: &mut Story, seen: &Seen, said: &wire::WhyResponse) {
    let server = said.server.clone().unwrap_or_default();
    let since = rfc3339(from_unix_millis(server.since_unix_ms));
    if !server.connected {
        let ended = server.agent_expires_unix_ms > 0 && server.agent_expires_unix_ms <= said.now_unix_ms;
        let own = match server.agent_expires_unix_ms {
            0 => "; the agent has no certificate of its own yet".to_owned(),
            ends if ended => format!("; its own certificate ended {}", rfc3339(from_unix_millis(ends))),
            _ => String::new(),
        };
        let why = if server.problem.is_empty() {
            "it has not answered yet"
        } else {
            &server.problem
        };
        let says = format!("the agent is not connected to its server since {since}: {why}{own}");
        let remedy = "see that the server runs and can be reached from this node: `signet-server status` there, `signet-agent status` here; \
                      what the agent holds is served until it ends";
        return fails_unless(story, seen, "server", says, remedy);
    }
    if !server.not_issuing.is_empty() {
        let says = format!("the server cannot issue: {}", server.not_issuing.join("; "));
        let remedy =
            "`signet-server status` shows it, and the table of reasons in docs/operating.md what to do";
        return fails_unless(story, seen, "server", says, remedy);
    }
    if server.cluster_unreachable_since_unix_ms > 0 {
        let since = rfc3339(from_unix_millis(server.cluster_unreachable_since_unix_ms));
        let says = format!(
            "the server cannot reach the API server of this node's cluster since {since}: no new pod is attested"
        );
        let remedy = "look at the network between the server and that API server; pods that were attested before may renew";
        let is_new = said.svids.is_empty() && said.caller.as_ref().is_some_and(|caller| caller.kind == "pod");
        if is_new {
            return fails_unless(story, seen, "server", says, remedy);
        }
        return story.note("server", says, remedy);
    }
    story.told(
        "server",
        Ok(((), format!("the agent is connected to its server since {since}"))),
    );
}

/// What was answered, in the words of whoever did.
fn answer(story: &mut Story, seen: &Seen) {
    let began = story.waited;
    let checked = match &seen.fetched {
        Fetched::Context(_) => Ok(((), "an identity was given".to_owned())),
        Fetched::Unusable(_) => Ok((
            (),
            "an identity was given, which this machine cannot use".to_owned(),
        )),
        Fetched::Ended(Code::PermissionDenied, message) => Err(Fault::new(
            message.clone(),
            format!(
                "{}; rules and denials are the trust domain's to change",
                seen.admins_command()
            ),
        )),
        Fetched::Ended(Code::Unavailable, message) => {
            Err(Fault::new(format!("nothing yet: {message}"), waits(seen)))
        }
        Fetched::Ended(code, message) => Err(Fault::new(
            format!("the agent ended the call with {code}: {message}"),
            "the agent's words say what to do; its log says more",
        )),
        Fetched::Late(limit) => {
            let said = seen.said().and_then(|said| said.answer.as_ref());
            let why = said
                .map(|answer| answer.message.as_str())
                .filter(|why| !why.is_empty());
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Err(Fault::new(
                format!("nothing within {} s{why}", limit.as_secs_f64()),
                waits(seen),
            ))
        }
        Fetched::Nothing(problem) => Err(Fault::new(
            problem.clone(),
            "ask again; the agent's log says more",
        )),
    };
    match began {
        Some(began) => story.since("answer", began, checked),
        None => story.told("answer", checked),
    };
}

fn waits(seen: &Seen) -> String {
    match seen.said() {
        Some(_) => format!("if no step above fails, wait a moment and ask again; {}", seen.admins_command()),
        None => "the agent tries again by itself; its log, or `signet-agent status` on the node, says what it waits for".to_owned(),
    }
}

/// How this machine's clock stands to the time that the agent goes by. It stands in the way where this machine refuses what is good by
/// that time.
fn clock(story: &mut Story, seen: &Seen) {
    let Why::Said { answer, at, took } = &seen.why else {
        return;
    };
    let agents = from_unix_millis(answer.now_unix_ms);
    // The answer was made at some time between question and arrival.
    let here = *at + *took / 2;
    let apart = here
        .duration_since(agents)
        .unwrap_or_else(|error| error.duration());
    let synchronise = "synchronise this machine's clock: certificates are judged by it";
    if apart > SKEW {
        let way = if here > agents { "ahead of" } else { "behind" };
        let says = format!(
            "this machine's clock is {} s {way} the time that the agent goes by",
            apart.as_secs()
        );
        if identity::is_refused_by_clock(seen, agents) {
            let says = format!("{says}, by which the identity is good");
            let _: Option<()> = story.told("clock", Err(Fault::new(says, synchronise)));
            return;
        }
        return story.note("clock", says, synchronise);
    }
    if !answer.clock_problem.is_empty() {
        return story.note("clock", answer.clock_problem.clone(), synchronise);
    }
    story.told(
        "clock",
        Ok((
            (),
            "this machine's clock is the agent's within a minute".to_owned(),
        )),
    );
}

/// Stands in the way only where there is no identity: what the agent holds is served until it ends.
fn fails_unless(story: &mut Story, seen: &Seen, name: &'static str, says: String, remedy: &str) {
    if seen.has_identity() {
        return story.note(name, says, remedy);
    }
    let _: Option<()> = story.told(name, Err(Fault::new(says, remedy)));
}
