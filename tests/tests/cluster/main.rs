//! Signet against a real Kubernetes: the real API server, the real binaries, and the permissions as documented.
//!
//! Ignored unless asked for: `.ci/step cluster` asks, with the first of these variables.
//!
//! - `SIGNET_TEST_KUBECONFIG`: a kubeconfig with which the tests may create namespaces, nodes and cluster roles.
//! - `SIGNET_TEST_KUBELET_DIR`: the root directory of a kubelet on this machine, in the same mount namespace; the tests
//!   then run as root. `SIGNET_TEST_IMAGE` is an image with a shell that is on the node (default `local/busybox:1`).
//! - `SIGNET_TEST_CONTAINERD`: containerd's socket, for the manifests as they are shipped (default: `c.sock` beside the kubeconfig).
//! - `SIGNET_TEST_TOKEN_KEY`: the cluster's private key that signs tokens (RSA, PKCS#8), to make one that has expired.
//!
//! docs/kubernetes.md says how to run them.

mod api;
mod checks;
mod csi;
mod docs;
mod images;
mod namespaces;
mod node_tokens;
mod outage;
mod permissions;
mod pod_tokens;
mod relay;
mod server;
mod shipped;
mod world;

use checks::run;

const KUBECONFIG: &str = "SIGNET_TEST_KUBECONFIG";
const KUBELET_DIR: &str = "SIGNET_TEST_KUBELET_DIR";
const TOKEN_KEY: &str = "SIGNET_TEST_TOKEN_KEY";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster, SIGNET_TEST_KUBECONFIG: `.ci/step cluster` runs it"]
async fn pod_tokens_of_a_real_cluster_get_their_verdicts() {
    run(&[KUBECONFIG], pod_tokens::CHECKS, world::TwoNodes::set_up).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and its key, SIGNET_TEST_KUBECONFIG, SIGNET_TEST_TOKEN_KEY: `.ci/step cluster` runs it"]
async fn an_expired_token_of_a_real_cluster_is_refused() {
    run(
        &[KUBECONFIG, TOKEN_KEY],
        pod_tokens::SIGNED_HERE,
        world::TwoNodes::set_up,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster, SIGNET_TEST_KUBECONFIG: `.ci/step cluster` runs it"]
async fn node_tokens_of_a_real_cluster_get_their_verdicts() {
    run(&[KUBECONFIG], node_tokens::CHECKS, world::TwoNodes::set_up).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster, SIGNET_TEST_KUBECONFIG: `.ci/step cluster` runs it"]
async fn an_outage_of_a_real_api_server_is_no_verdict() {
    run(&[KUBECONFIG], outage::CHECKS, outage::Outage::set_up).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster, SIGNET_TEST_KUBECONFIG: `.ci/step cluster` runs it"]
async fn the_documented_permissions_are_narrow() {
    run(&[KUBECONFIG], permissions::CHECKS, world::TwoNodes::set_up).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster, SIGNET_TEST_KUBECONFIG: `.ci/step cluster` runs it"]
async fn labels_of_real_namespaces_decide() {
    run(&[KUBECONFIG], namespaces::CHECKS, namespaces::set_up).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and its kubelet, SIGNET_TEST_KUBECONFIG, SIGNET_TEST_KUBELET_DIR: `.ci/step cluster` runs it"]
async fn a_real_kubelet_gives_a_pod_its_socket() {
    run(&[KUBECONFIG, KUBELET_DIR], csi::CHECKS, csi::OneNode::set_up).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster and its kubelet, SIGNET_TEST_KUBECONFIG, SIGNET_TEST_KUBELET_DIR: `.ci/step cluster` runs it"]
async fn the_shipped_manifests_run() {
    run(
        &[KUBECONFIG, KUBELET_DIR],
        shipped::CHECKS,
        shipped::Shipped::set_up,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster from 1.36 on and its kubelet, SIGNET_TEST_KUBECONFIG, SIGNET_TEST_KUBELET_DIR: `.ci/step cluster` runs it"]
async fn the_page_about_kubernetes_is_true_from_1_36_on() {
    run(
        &[KUBECONFIG, KUBELET_DIR],
        docs::FROM_1_36_ON,
        docs::Reader::set_up,
    )
    .await;
}

/// Of all but what such a cluster cannot do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster before 1.36 and its kubelet, SIGNET_TEST_KUBECONFIG, SIGNET_TEST_KUBELET_DIR: `.ci/step cluster` runs it"]
async fn the_page_about_kubernetes_is_true_before_1_36() {
    run(
        &[KUBECONFIG, KUBELET_DIR],
        docs::BEFORE_1_36,
        docs::Reader::set_up,
    )
    .await;
}
