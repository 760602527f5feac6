//! Against the calls recorded of a real kubelet.

use super::*;

const RECORDED: &str = include_str!("../../../testkit/fixtures/kube/csi-calls-of-kubelet.txt");

/// The quoted strings of the first call of that name, in the order of the recording.
fn recorded(call: &str) -> Vec<String> {
    let (_, rest) = RECORDED.split_once(&format!("## /csi.v1.Node/{call}\n")).unwrap();
    let body = rest.split("\n## ").next().unwrap();
    body.lines()
        .filter_map(|line| line.split_once(": \""))
        .map(|(_, text)| text.trim_end_matches('"').replace("\\\"", "\""))
        .collect()
}

#[test]
fn a_volume_is_published_as_kubelet_was_recorded_to_do() {
    let strings = recorded("NodePublishVolume");
    let value = |key: &str| {
        let at = strings
            .iter()
            .position(|s| s == &format!("csi.storage.k8s.io/{key}"))
            .unwrap();
        strings[at + 1].clone()
    };
    let config = KubeletConfig::new("", Path::new("/var/lib/kubelet"), "signet");
    let pod = PodOfVolume {
        namespace: value("pod.namespace"),
        name: value("pod.name"),
        uid: value("pod.uid"),
        service_account: value("serviceAccount.name"),
    };
    let volume = volume(&config, pod);
    let tokens = value("serviceAccount.tokens");
    let request = publish_request(&volume, &tokens);
    assert_eq!(request.volume_id, strings[0]);
    assert_eq!(request.target_path, strings[1]);
    let keys = strings.iter().filter(|s| s.starts_with("csi.storage.k8s.io/"));
    for key in keys.clone() {
        assert_eq!(
            request.volume_context[key],
            value(key.rsplit('/').next().unwrap()),
            "{key}"
        );
    }
    assert_eq!(request.volume_context.len(), keys.count());
    let tokens: Value = serde_json::from_str(&tokens).unwrap();
    assert!(tokens["signet"]["token"].is_string() && tokens["signet"]["expirationTimestamp"].is_string());
    let unpublished = recorded("NodeUnpublishVolume");
    assert_eq!(unpublished, [volume.id, volume.target.display().to_string()]);
}
