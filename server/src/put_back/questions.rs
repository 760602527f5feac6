//! Who is asked, and how often: one agent at a time, and each only now and then. Pure.

use std::collections::HashMap;
use std::time::Duration;

use signet_certs::authority::AuthorityId;
use signet_certs::id::SpiffeId;
use tokio::time::Instant;

use super::Claim;

/// How long an agent has for its answer: the largest list over a slow line.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// How long an agent is not asked again about the same authority.
pub(super) const INTERVAL: Duration = Duration::from_secs(600);

/// Whom has been asked for what.
#[derive(Debug, Default)]
pub(super) struct Questions {
    is_asking: bool,
    asked: HashMap<(SpiffeId, AuthorityId), Instant>,
}

/// Whether somebody may be asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// For this list, now.
    Ask(Claim),
    /// Not before, unless another's turn ends.
    At(Instant),
    /// Not before anything changes.
    Never,
}

impl Questions {
    /// Whether it is the turn of an agent that claims to hold these lists; if so, it is asked from now on.
    pub(super) fn turn(
        &mut self,
        agent: &SpiffeId,
        claims: &[Claim],
        is_proven: impl Fn(&Claim) -> bool,
        now: Instant,
    ) -> Turn {
        self.asked.retain(|_, asked| now < *asked + INTERVAL);
        if self.is_asking {
            return Turn::Never;
        }
        let key = |claim: &Claim| (agent.clone(), claim.authority);
        let due = |claim: &Claim| self.asked.get(&key(claim)).map_or(now, |asked| *asked + INTERVAL);
        let open = claims.iter().filter(|claim| !is_proven(claim));
        let Some((at, claim)) = open.map(|claim| (due(claim), *claim)).min_by_key(|(at, _)| *at) else {
            return Turn::Never;
        };
        if at > now {
            return Turn::At(at);
        }
        self.is_asking = true;
        self.asked.insert(key(&claim), now);
        Turn::Ask(claim)
    }

    /// The question is over, however it ended.
    pub(super) const fn end(&mut self) {
        self.is_asking = false;
    }
}

#[cfg(test)]
mod tests {
    use signet_certs::crl::CrlNumber;

    use super::*;

    fn agent(node: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://example.org/signet/agent/c/{node}")).unwrap()
    }

    fn claim(authority: u8, digest: u8) -> Claim {
        Claim {
            authority: AuthorityId::from_bytes([authority; 20]),
            number: CrlNumber(9),
            own: CrlNumber(3),
            sha256: [digest; 32],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_agent_is_asked_at_a_time_and_none_too_often() {
        let mut questions = Questions::default();
        let start = Instant::now();
        let proven = |claim: &Claim| claim.sha256 == [7; 32];
        let (a, b) = (agent("a"), agent("b"));
        let mut turn = |agent: &SpiffeId, claims: &[Claim], later: u64| {
            questions.turn(agent, claims, proven, start + Duration::from_secs(later))
        };
        assert_eq!(turn(&a, &[], 0), Turn::Never);
        assert_eq!(turn(&a, &[claim(1, 7)], 0), Turn::Never, "it is proven");
        let both = [claim(1, 1), claim(2, 1)];
        assert_eq!(turn(&a, &both, 0), Turn::Ask(both[0]));
        assert_eq!(turn(&b, &both, 1), Turn::Never, "another is being asked");
        questions.end();
        let mut turn = |agent: &SpiffeId, claims: &[Claim], later: u64| {
            let turn = questions.turn(agent, claims, proven, start + Duration::from_secs(later));
            questions.end();
            turn
        };
        assert_eq!(turn(&a, &both, 2), Turn::Ask(both[1]), "the other authority");
        assert_eq!(
            turn(&a, &[claim(1, 2)], 3),
            Turn::At(start + INTERVAL),
            "whatever it claims"
        );
        assert_eq!(turn(&b, &both, 4), Turn::Ask(both[0]));
        assert_eq!(turn(&a, &[claim(1, 2)], 600), Turn::Ask(claim(1, 2)));
    }
}
