//! What a workload and an agent may have issued, and who is displaced.

use std::sync::Arc;
use std::time::Duration;

use super::fixture::{at, by_id, by_serial, displaced, free, issuance, issue, revocation, verdicts};
use crate::store::{AgentShare, Budget, BudgetOwner, IssueRefusal, NewIssuance, Spent, Store, SvidFilter};

fn budgeted(path: &str, pod: &str, seconds: u64) -> NewIssuance {
    NewIssuance {
        budget: free(2),
        ..issuance(path, pod, at(seconds))
    }
}

/// What is displaced is found by a revocation like any other.
///
/// Covers INV-11.
pub(crate) async fn a_budget_displaces_the_oldest_and_locks_nobody_out(store: Arc<dyn Store>) {
    let batch = (0..67).map(|_| budgeted("/a", "one", 0)).collect();
    let results = store.issue(batch, at(10)).await.unwrap();
    let results: Vec<_> = results
        .into_iter()
        .map(|result| result.map(|recorded| recorded.displaced()))
        .collect();
    let mut expected: Vec<_> = [0].into_iter().chain(0..65).map(Ok).collect();
    expected.push(Err(IssueRefusal::Budget(Spent {
        owner: BudgetOwner::Workload,
        retry_after: Duration::from_secs(10),
    })));
    assert_eq!(results, expected, "two are free, 64 displace");
    issue(&store, budgeted("/b", "one", 0), at(10)).await.unwrap();
    issue(&store, budgeted("/a", "two", 0), at(10)).await.unwrap();
    issue(&store, issuance("/a", "one", at(0)), at(10))
        .await
        .expect("no budget, no limit");
    assert_eq!(
        store.list(SvidFilter::default()).await.unwrap().rows.len(),
        69,
        "a refused item leaves no row"
    );
    issue(&store, budgeted("/a", "one", 0), at(20))
        .await
        .expect("when it was told to come back");
    let revoked = store.revoke(revocation(by_id("/a"), at(21))).await.unwrap();
    assert_eq!(revoked.svids.len(), 66 + 1 + 1 + 1, "the displaced ones too");
}

/// Buckets of a workload and of an agent that were emptied an hour ahead are full once the clock is right.
pub(crate) async fn a_budget_used_up_by_a_clock_that_was_ahead_holds_up_nobody(store: Arc<dyn Store>) {
    let ahead = 3600;
    let batch = (0..67).map(|_| budgeted("/a", "one", ahead)).collect();
    let results = verdicts(store.issue(batch, at(ahead)).await.unwrap());
    assert!(results[66].is_err(), "the workload's is empty");
    let invented = |n: u64, seconds| {
        let mut item = issuance("/unix", &format!("pod-{n}"), at(seconds));
        let share = AgentShare::ItsWord;
        item.budget = Some(Budget { free: 8, share });
        item
    };
    let batch = (0..257).map(|n| invented(n, ahead)).collect();
    let results = verdicts(store.issue(batch, at(ahead)).await.unwrap());
    assert!(results[256].is_err(), "the agent's is empty");
    issue(&store, budgeted("/a", "one", 0), at(0)).await.unwrap();
    issue(&store, invented(300, 0), at(0)).await.unwrap();
}

pub(crate) async fn a_budget_without_a_pod_counts_per_process_and_node(store: Arc<dyn Store>) {
    let of = |node: &str, process: &str| {
        let mut item = budgeted("/unix", "", 0);
        (item.workload.node_uid, item.workload.process) = (node.into(), process.into());
        item
    };
    for process in ["uid=0 path=/a", "uid=0 path=/b"] {
        for expected in [0, 0, 1] {
            let displaces = displaced(&store, of("n1", process), at(0)).await;
            assert_eq!(displaces, Ok(expected), "{process}");
        }
    }
    assert_eq!(displaced(&store, of("n2", "uid=0 path=/a"), at(0)).await, Ok(0));
}

pub(crate) async fn a_budget_frees_what_expired_or_was_revoked(store: Arc<dyn Store>) {
    let first = budgeted("/a", "one", 0);
    issue(&store, first.clone(), at(0)).await.unwrap();
    issue(&store, budgeted("/a", "one", 60), at(60)).await.unwrap();
    assert_eq!(displaced(&store, budgeted("/a", "one", 61), at(61)).await, Ok(1));
    store
        .revoke(revocation(by_serial(first.serial), at(62)))
        .await
        .unwrap();
    assert_eq!(
        displaced(&store, budgeted("/a", "one", 63), at(63)).await,
        Ok(1),
        "the revoked one is out"
    );
    assert_eq!(
        displaced(&store, budgeted("/a", "one", 3660), at(3660)).await,
        Ok(1),
        "the one of second 60 has expired"
    );
    assert_eq!(
        displaced(&store, budgeted("/a", "one", 9000), at(9000)).await,
        Ok(0)
    );
}

/// An agent that asks without end, for ever new workloads or for ever new identities of one pod, as its labels might give it, gets what its
/// pods may have and no more; its neighbour, and what it asks for itself, are not touched.
pub(crate) async fn an_agent_that_asks_without_end_gets_its_bucket(store: Arc<dyn Store>) {
    let asked = |agent: &str, share, path: &str, pod: &str| {
        let mut item = issuance(path, pod, at(0));
        item.workload.agent_id = format!("spiffe://example.org/signet/agent/c/{agent}");
        item.budget = Some(Budget { free: 8, share });
        item
    };
    let (pods, identities) = (17, 1);
    let pods = AgentShare::Pods { pods, identities };
    for (share, most) in [(pods, 64 * 17), (AgentShare::ItsWord, 256)] {
        let new_workload = |n: usize| asked("greedy", share, "/a", &format!("pod-{n}"));
        assert_eq!(given_without_end(&store, new_workload).await, most);
        let neighbours = asked("other", share, "/a", "pod-0");
        issue(&store, neighbours, at(0)).await.unwrap();
    }
    let relabelled = |n: usize| asked("relabelling", pods, &format!("/label/{n}"), "one");
    assert_eq!(given_without_end(&store, relabelled).await, 64 * 17);
    let itself = asked("greedy", AgentShare::Itself, "/a", "pod-9999");
    issue(&store, itself, at(0)).await.unwrap();
    issue(&store, asked("greedy", pods, "/a", "pod-9999"), at(60))
        .await
        .expect("nobody waits longer than a minute");
}

/// How many are issued before the agent is refused.
async fn given_without_end(store: &Arc<dyn Store>, item: impl Fn(usize) -> NewIssuance) -> usize {
    let mut given = 0;
    loop {
        let batch = (0..500).map(|n| item(given + n)).collect();
        let results = verdicts(store.issue(batch, at(0)).await.unwrap());
        given += results.iter().filter(|result| result.is_ok()).count();
        if let Some(refused) = results.into_iter().find_map(Result::err) {
            let of_agent = matches!(&refused, IssueRefusal::Budget(spent)
                if spent.owner == BudgetOwner::Agent && spent.retry_after <= Duration::from_secs(60));
            assert!(of_agent, "{refused}");
            return given;
        }
    }
}
