//! What kubelet asks for, checked before anything is touched. Pure.

use std::{
    borrow::Cow,
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use signet_certs::time::parse_rfc3339;
use signet_proto::csi::{NodePublishVolumeRequest, volume_capability::AccessType};
use zeroize::Zeroizing;

use super::{DriverConfig, volumes::VolumeRecord};
use crate::token::PodToken;

const POD_NAME: &str = "csi.storage.k8s.io/pod.name";
const POD_NAMESPACE: &str = "csi.storage.k8s.io/pod.namespace";
const POD_UID: &str = "csi.storage.k8s.io/pod.uid";
const SERVICE_ACCOUNT: &str = "csi.storage.k8s.io/serviceAccount.name";
const EPHEMERAL: &str = "csi.storage.k8s.io/ephemeral";
/// The one key of tokens, in the place where our CSIDriver makes kubelet put them. Only there a pod's author cannot: the other
/// place holds what he wrote.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

/// Kubernetes names and UIDs are shorter.
const MAX_NAME: usize = 253;
const MAX_TOKENS: usize = 64 << 10;

/// Where kubelet puts a pod's tokens, by `serviceAccountTokenInSecrets` of the CSIDriver object.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum TokensFrom {
    /// Among what says which pod it is.
    #[default]
    VolumeContext,
    /// Among the call's secrets, which no log of a sidecar shows; Kubernetes 1.36 and later.
    Secrets,
}

impl TokensFrom {
    fn remedy(self) -> &'static str {
        match self {
            Self::VolumeContext => {
                "tokenRequests, and no serviceAccountTokenInSecrets (or csi.tokens_from: secrets in the agent's file)"
            }
            Self::Secrets => {
                "tokenRequests and serviceAccountTokenInSecrets: true, which Kubernetes knows from 1.36 on (or csi.tokens_from: \
                 volume_context in the agent's file)"
            }
        }
    }
}

/// A publish call that may be carried out.
pub(super) struct Publication {
    pub(super) record: VolumeRecord,
    pub(super) token: Arc<PodToken>,
}

/// One audience's entry in [`TOKENS`]. The token stays where it is: a JWT has nothing that JSON escapes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    token: &'a str,
    #[serde(borrow)]
    expiration_timestamp: Cow<'a, str>,
}

impl Publication {
    /// Refuses everything that kubelet would not ask of our CSIDriver object.
    ///
    /// # Errors
    /// What was wrong, and where to mend it.
    pub(super) fn check(
        mut request: NodePublishVolumeRequest,
        config: &DriverConfig,
    ) -> Result<Self, String> {
        // First, and from both places, so that it is wiped however this ends.
        let in_context = request.volume_context.remove(TOKENS).map(Zeroizing::new);
        let in_secrets = request.secrets.remove(TOKENS).map(Zeroizing::new);
        let tokens = match config.tokens_from {
            TokensFrom::VolumeContext => in_context,
            TokensFrom::Secrets => in_secrets,
        };
        check_volume_id(&request.volume_id)?;
        check_capability(&request)?;
        let context = &request.volume_context;
        if context.get(EPHEMERAL).map(String::as_str) != Some("true") {
            return Err("only inline (ephemeral) volumes are served".to_owned());
        }
        let record = VolumeRecord {
            volume_id: request.volume_id,
            pod_uid: named(context, POD_UID)?,
            namespace: named(context, POD_NAMESPACE)?,
            name: named(context, POD_NAME)?,
            service_account: named(context, SERVICE_ACCOUNT)?,
            target: PathBuf::new(),
        };
        let target = Target::check(&request.target_path, &config.kubelet_dir)?;
        if target.pod_uid != record.pod_uid {
            return Err(format!(
                "the target belongs to pod {}, the call names pod {}",
                target.pod_uid, record.pod_uid
            ));
        }
        let token = token(tokens, config)?;
        if token.is_of_another_pod(&record.pod_uid) {
            return Err(format!(
                "the token is another pod's than {} ({})",
                record.pod(),
                record.pod_uid
            ));
        }
        Ok(Self {
            record: VolumeRecord {
                target: target.path,
                ..record
            },
            token,
        })
    }
}

/// A volume id becomes part of a record: kubelet's are `csi-` and hex.
pub(super) fn check_volume_id(id: &str) -> Result<(), String> {
    let fine = !id.is_empty()
        && id.len() <= 128
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if fine {
        Ok(())
    } else {
        Err("volume_id is empty, too long, or has characters other than letters, digits, - _ .".to_owned())
    }
}

fn check_capability(request: &NodePublishVolumeRequest) -> Result<(), String> {
    if !request.readonly {
        return Err("the volume must be mounted with readOnly: true in the pod".to_owned());
    }
    let capability = request
        .volume_capability
        .as_ref()
        .ok_or("volume_capability is missing")?;
    match &capability.access_type {
        Some(AccessType::Mount(mount)) if mount.fs_type.is_empty() && mount.mount_flags.is_empty() => Ok(()),
        Some(AccessType::Mount(_)) => {
            Err("fsType and mount flags mean nothing for a socket directory".to_owned())
        }
        Some(AccessType::Block(_)) => Err("block volumes are not served".to_owned()),
        None => Err("volume_capability has no access type".to_owned()),
    }
}

fn named(context: &HashMap<String, String>, key: &str) -> Result<String, String> {
    match context.get(key) {
        Some(value) if !value.is_empty() && value.len() <= MAX_NAME && !value.contains('/') => {
            Ok(value.clone())
        }
        Some(_) => Err(format!("{key} is not a name")),
        None => Err(format!(
            "{key} is missing: the CSIDriver object needs podInfoOnMount: true"
        )),
    }
}

fn token(tokens: Option<Zeroizing<String>>, config: &DriverConfig) -> Result<Arc<PodToken>, String> {
    let audience = config.token_audience.as_str();
    let tokens = tokens.ok_or_else(|| {
        let remedy = config.tokens_from.remedy();
        format!("{TOKENS} is missing: for audience {audience} the CSIDriver object needs {remedy}")
    })?;
    if tokens.len() > MAX_TOKENS {
        return Err(format!("{TOKENS} is longer than {MAX_TOKENS} bytes"));
    }
    let by_audience: HashMap<String, Entry<'_>> =
        serde_json::from_str(&tokens).map_err(|_| format!("{TOKENS} is not what kubelet writes"))?;
    let token = by_audience.get(audience).ok_or_else(|| {
        format!("no token for audience {audience}: the CSIDriver object needs it in tokenRequests")
    })?;
    let expires = parse_rfc3339(&token.expiration_timestamp)
        .map_err(|_| "the token's expirationTimestamp is not a time".to_owned())?;
    Ok(PodToken::new(token.token, expires))
}

/// Where kubelet wants the volume: `<kubelet>/pods/<uid>/volumes/kubernetes.io~csi/<volume>/mount` and nothing else, so
/// that a caller cannot have us mount over, or remove, another directory of the host.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) path: PathBuf,
    pub(super) pod_uid: String,
}

impl Target {
    pub(super) fn check(target: &str, kubelet_dir: &Path) -> Result<Self, String> {
        let refuse = || {
            format!(
                "target_path {target:?} is not a CSI volume folder of a pod below {}",
                kubelet_dir.display()
            )
        };
        let path = PathBuf::from(target);
        // `components` folds `//` and `/./`; a path that is not its own canonical text is refused.
        let canonical: PathBuf = path.components().collect();
        if canonical.as_os_str() != path.as_os_str() {
            return Err(refuse());
        }
        let below = path.strip_prefix(kubelet_dir).map_err(|_| refuse())?;
        let parts: Vec<&str> = below
            .components()
            .map(|part| match part {
                Component::Normal(name) => name.to_str().ok_or_else(refuse),
                _ => Err(refuse()),
            })
            .collect::<Result<_, _>>()?;
        match parts[..] {
            ["pods", pod_uid, "volumes", "kubernetes.io~csi", _, "mount"] => Ok(Self {
                pod_uid: pod_uid.to_owned(),
                path,
            }),
            _ => Err(refuse()),
        }
    }
}

#[cfg(test)]
mod tests;
