//! What every manifest owes to whoever applies it.

use serde_json::{Value, json};

use crate::root::objects;

fn pod_spec(manifest: &str) -> Value {
    let objects = objects(manifest);
    let workload = objects
        .iter()
        .find(|object| object["spec"]["template"].is_object());
    workload.unwrap()["spec"]["template"]["spec"].clone()
}

#[test]
fn every_container_has_limits_and_probes() {
    for manifest in ["agent.yaml", "server.yaml"] {
        let container = &pod_spec(manifest)["containers"][0];
        for probe in ["readinessProbe", "livenessProbe"] {
            let asked = container[probe]["exec"].is_object() || container[probe]["httpGet"].is_object();
            assert!(asked, "{manifest}: {probe}");
        }
        for amount in ["requests", "limits"] {
            for of in ["cpu", "memory"] {
                assert!(
                    container["resources"][amount][of].is_string(),
                    "{manifest}: {amount}.{of}"
                );
            }
        }
    }
}

/// Kubelet's own key lies in the rest of that folder. The secrets, tokens and ConfigMaps of the node's pods lie in `pods`, where the
/// driver mounts.
#[test]
fn the_agent_sees_no_more_of_kubelets_folder_than_it_needs() {
    let spec = pod_spec("agent.yaml");
    let paths = spec["volumes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| volume["hostPath"]["path"].as_str());
    let kubelets: Vec<&str> = paths
        .filter_map(|path| path.strip_prefix("/var/lib/kubelet"))
        .collect();
    assert_eq!(
        kubelets,
        ["/pods", "/plugins/csi.signet.dev", "/plugins_registry"]
    );
    let mounts = spec["containers"][0]["volumeMounts"].as_array().unwrap();
    let both_ways = mounts.iter().filter(|mount| !mount["mountPropagation"].is_null());
    assert_eq!(
        both_ways.map(|mount| &mount["name"]).collect::<Vec<_>>(),
        ["pods"]
    );
}

#[test]
fn the_server_fits_the_restricted_standard() {
    let spec = pod_spec("server.yaml");
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(
        spec["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let context = &spec["containers"][0]["securityContext"];
    assert_eq!(context["allowPrivilegeEscalation"], false);
    assert_eq!(context["capabilities"]["drop"], json!(["ALL"]));
}

/// One key and the place where kubelet puts the tokens; everything else that the object says is part of the security.
#[test]
fn both_driver_objects_differ_in_the_place_of_the_tokens_alone() {
    let [plain] = objects("csidriver.yaml").try_into().unwrap();
    let [mut secrets]: [Value; 1] = objects("csidriver-secrets.yaml").try_into().unwrap();
    let moved = secrets["spec"]
        .as_object_mut()
        .unwrap()
        .remove("serviceAccountTokenInSecrets");
    assert_eq!(moved, Some(json!(true)));
    assert_eq!(plain, secrets);
    assert_eq!(plain["spec"]["podInfoOnMount"], true);
    assert_eq!(plain["spec"]["requiresRepublish"], true);
}
