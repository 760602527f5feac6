//! What kubelet may ask for, and what it is told otherwise.

use std::collections::HashMap;

use signet_proto::csi::{VolumeCapability, volume_capability::MountVolume};

use super::*;

const UID: &str = "dd4cbb08-469b-4ef9-a96b-3b5ff555a13b";

fn config() -> DriverConfig {
    DriverConfig {
        driver_name: "csi.signet.dev".into(),
        socket_path: "/run/csi.sock".into(),
        registration_dir: "/run/registry".into(),
        kubelet_dir: "/var/lib/kubelet".into(),
        node_name: "node-a".into(),
        token_audience: "signet:example.org:pod".into(),
        tokens_from: TokensFrom::VolumeContext,
        max_volumes: 20,
    }
}

fn request() -> NodePublishVolumeRequest {
    let tokens =
        r#"{"signet:example.org:pod":{"token":"t.t.t","expirationTimestamp":"2026-11-21T19:47:36Z"}}"#;
    let context = [
        (POD_NAME, "csi-0"),
        (POD_NAMESPACE, "shop"),
        (POD_UID, UID),
        (SERVICE_ACCOUNT, "frontend"),
        (EPHEMERAL, "true"),
        (TOKENS, tokens),
    ];
    NodePublishVolumeRequest {
        volume_id: "csi-4c42".into(),
        target_path: format!("/var/lib/kubelet/pods/{UID}/volumes/kubernetes.io~csi/spiffe/mount"),
        volume_capability: Some(VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume::default())),
            access_mode: None,
        }),
        readonly: true,
        volume_context: context
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into_iter()
            .collect::<HashMap<_, _>>(),
        ..NodePublishVolumeRequest::default()
    }
}

fn refused(change: impl FnOnce(&mut NodePublishVolumeRequest)) -> String {
    let mut request = request();
    change(&mut request);
    Publication::check(request, &config()).err().expect("refused")
}

#[test]
fn what_kubelet_sends_is_taken() {
    let publication = Publication::check(request(), &config()).unwrap();
    assert_eq!(publication.record.pod(), "shop/csi-0");
    assert_eq!(publication.record.service_account, "frontend");
    assert_eq!(publication.token.secret(), "t.t.t");
}

#[test]
fn writable_volumes_and_foreign_kinds_are_refused() {
    assert!(refused(|r| r.readonly = false).contains("readOnly"));
    assert!(refused(|r| r.volume_capability = None).contains("missing"));
    assert!(refused(|r| drop(r.volume_context.remove(EPHEMERAL))).contains("inline"));
    assert!(refused(|r| drop(r.volume_context.remove(POD_UID))).contains("podInfoOnMount"));
    assert!(refused(|r| drop(r.volume_context.remove(TOKENS))).contains("tokenRequests"));
    assert!(refused(|r| r.volume_id = "../x".into()).contains("volume_id"));
    let other = r#"{"vault":{"token":"t","expirationTimestamp":"2026-11-21T19:47:36Z"}}"#;
    assert!(refused(|r| drop(r.volume_context.insert(TOKENS.into(), other.into()))).contains("audience"));
}

#[test]
fn what_json_escapes_is_fine_in_an_audience_and_never_in_a_token() {
    let beside = r#"{"https://a?b\u0026c":{"token":"x","expirationTimestamp":"2026-11-21T19:47:36Z"},
        "signet:example.org:pod":{"token":"t.t.t","expirationTimestamp":"2026-11-21T19:47:36Z"}}"#;
    let mut asked = request();
    asked.volume_context.insert(TOKENS.into(), beside.into());
    let publication = Publication::check(asked, &config()).unwrap();
    assert_eq!(publication.token.secret(), "t.t.t");
    let escaped =
        r#"{"signet:example.org:pod":{"token":"secret\u002e","expirationTimestamp":"2026-11-21T19:47:36Z"}}"#;
    let said = refused(|r| drop(r.volume_context.insert(TOKENS.into(), escaped.into())));
    assert!(
        said.contains("not what kubelet writes") && !said.contains("secret"),
        "{said}"
    );
}

#[test]
fn a_pod_cannot_be_given_another_pods_folder() {
    let other = "/var/lib/kubelet/pods/other/volumes/kubernetes.io~csi/spiffe/mount";
    assert!(refused(|r| r.target_path = other.into()).contains("belongs to pod other"));
}

#[test]
fn targets_outside_of_kubelets_volume_folders_are_refused() {
    let kubelet = Path::new("/var/lib/kubelet");
    for target in [
        "",
        "/",
        "/etc",
        "relative/pods/u/volumes/kubernetes.io~csi/v/mount",
        "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/../mount",
        "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount/..",
        "/var/lib/kubelet/pods/u/volumes/kubernetes.io~csi/v/mount/x",
        "/var/lib/kubelet/pods//u/volumes/kubernetes.io~csi/v/mount",
        "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/v/mount",
        "/var/lib/kubelet2/pods/u/volumes/kubernetes.io~csi/v/mount",
    ] {
        assert!(Target::check(target, kubelet).is_err(), "{target}");
    }
}

/// Of the pod `pod-1`; nobody looks at the signature here.
const OF_POD_1: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2siLCJzdWIiOiJzeXN0ZW06c2VydmljZWFjY291bnQ6czphIiwiYXVkIjpb\
    InNpZ25ldDpleGFtcGxlLm9yZzpub2RlIl0sImV4cCI6MTgwMDAwMzYwMCwiaWF0IjoxODAwMDAwMDAwLCJuYmYiOjE4MDAwMDAwMDAsImp0aSI6ImoiLCJrd\
    WJlcm5ldGVzLmlvIjp7Im5hbWVzcGFjZSI6InMiLCJub2RlIjp7Im5hbWUiOiJuIiwidWlkIjoidSJ9LCJwb2QiOnsibmFtZSI6InAiLCJ1aWQiOiJwb2QtMSJ9L\
    CJzZXJ2aWNlYWNjb3VudCI6eyJuYW1lIjoiYSIsInVpZCI6IngifX19.AAAA";

fn tokens(token: &str) -> String {
    format!(
        r#"{{"signet:example.org:pod":{{"token":"{token}","expirationTimestamp":"2026-11-21T19:47:36Z"}}}}"#
    )
}

/// Without `tokenRequests` kubelet hands on what the pod's author wrote: another pod's token would get this one its identity.
#[test]
fn a_token_of_another_pod_is_refused() {
    let of = |uid: &str| {
        let mut asked = request();
        asked.volume_context.insert(POD_UID.into(), uid.into());
        asked.volume_context.insert(TOKENS.into(), tokens(OF_POD_1));
        asked.target_path = asked.target_path.replace(UID, uid);
        Publication::check(asked, &config())
    };
    let refused = of("pod-2").err().expect("refused");
    assert!(refused.contains("another pod's"), "{refused}");
    assert_eq!(of("pod-1").unwrap().token.secret(), OF_POD_1);
}

/// kubelet puts them in one place; in the other a pod's author may have written.
#[test]
fn tokens_are_taken_from_the_place_that_is_configured_and_from_no_other() {
    let both = || {
        let mut asked = request();
        asked
            .volume_context
            .insert(TOKENS.into(), tokens("of.the.context"));
        asked.secrets.insert(TOKENS.into(), tokens("of.the.secrets"));
        asked
    };
    for (from, expected, key) in [
        (
            TokensFrom::VolumeContext,
            "of.the.context",
            "no serviceAccountTokenInSecrets",
        ),
        (
            TokensFrom::Secrets,
            "of.the.secrets",
            "serviceAccountTokenInSecrets: true",
        ),
    ] {
        let config = DriverConfig {
            tokens_from: from,
            ..config()
        };
        let taken = Publication::check(both(), &config).unwrap();
        assert_eq!(taken.token.secret(), expected, "{from:?}");
        let mut missing = both();
        match from {
            TokensFrom::VolumeContext => drop(missing.volume_context.remove(TOKENS)),
            TokensFrom::Secrets => missing.secrets.clear(),
        }
        let refused = Publication::check(missing, &config).err().expect("refused");
        assert!(refused.contains(key), "{refused}");
    }
}
