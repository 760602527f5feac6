//! Labels of the namespaces that pods are in.

use super::*;

impl World {
    async fn proven(&self, pod: &str) -> AttestedPod {
        let token = self.token(pod);
        self.attestor.attest_pod(&self.agent(), &token).await.unwrap()
    }

    async fn team(&self, pod: &AttestedPod) -> Result<Option<String>, AttestError> {
        let labels = self.attestor.namespace_labels(pod).await?;
        Ok(labels.get("team").cloned())
    }

    async fn until_team(&self, pod: &AttestedPod, team: Option<&str>) {
        let what = format!("the namespace's label to be {team:?}");
        eventually(&what, async || {
            let now = self.team(pod).await.unwrap();
            (now.as_deref() == team).then_some(())
        })
        .await;
    }

    /// Waits until a change of this pod is told.
    async fn told_of(&mut self, pod: &AttestedPod) {
        loop {
            let event = tokio::time::timeout(HOUR / 120, self.events.recv());
            let event = event.await.expect("a change of the pod").unwrap();
            if event.pod_uid == pod.pod_uid && event.kind == PodEventKind::Changed {
                return;
            }
        }
    }
}

#[tokio::test]
async fn a_namespaces_labels_are_followed_and_its_pods_are_told_of() {
    let mut world = World::new().await;
    let pod = world.proven("web-0").await;
    assert_eq!(world.team(&pod).await, Ok(None));
    world.kube.label_namespace("shop", "team", Some("payments"));
    world.told_of(&pod).await;
    world.until_team(&pod, Some("payments")).await;
    let before = world.kube.calls(Endpoint::Namespaces);
    for _ in 0..10 {
        assert_eq!(world.team(&pod).await, Ok(Some("payments".to_owned())));
    }
    assert!(
        world.kube.calls(Endpoint::Namespaces) < before + 5,
        "they come from the watch"
    );
    world.kube.label_namespace("shop", "team", None);
    world.told_of(&pod).await;
    world.until_team(&pod, None).await;
}

/// Covers BT-11.
#[tokio::test]
async fn namespaces_that_the_server_may_not_read_are_no_verdict_and_it_says_what_to_grant() {
    let world = World::new().await;
    let pod = world.proven("web-0").await;
    world.kube.fault_at(Endpoint::Namespaces, Fault::Forbidden);
    world.kube.cut_watches();
    let problem = eventually("the missing permission to be said", async || {
        let problem = world.attestor.clusters().remove(0).problem?;
        problem.contains("namespaces").then_some(problem)
    })
    .await;
    assert!(
        problem.contains("403") && problem.contains("get, list and watch"),
        "{problem}"
    );
    // What the watch has shown holds for a minute; one that it has never shown is asked for.
    let other = AttestedPod {
        namespace: "made-just-now".to_owned(),
        ..pod.clone()
    };
    let asked = world.team(&other).await;
    assert!(
        matches!(&asked, Err(AttestError::Unavailable { message, .. }) if message.contains("get, list and watch namespaces")),
        "{asked:?}"
    );
    assert_eq!(world.team(&pod).await, Ok(None));
    world.kube.clear_faults();
    let asked = world.team(&other).await;
    assert!(
        matches!(&asked, Err(AttestError::Unavailable { message, .. }) if message.contains("is not there")),
        "{asked:?}"
    );
    eventually("the problem to be gone", async || {
        world
            .attestor
            .clusters()
            .remove(0)
            .problem
            .is_none()
            .then_some(())
    })
    .await;
}
