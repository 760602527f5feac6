//! From what is written to what can be used: everything that is wrong is found on the way.

use std::path::PathBuf;
use std::sync::Arc;

use signet_certs::id::{SpiffeId, TrustDomain};
use signet_runtime::config::{Configuration, Findings, Refused};
use signet_runtime::telemetry::LogFormat;
use signet_runtime::uds::MAX_PATH_BYTES;

use super::raw::{self, Raw};
use super::valid::{Config, Csi, SharedSocket};
use crate::kept::Keeping;
use crate::sds::{Names, Sds};

impl Configuration for Config {
    type Raw = Raw;

    fn check(raw: Raw, findings: &mut Findings) -> Result<Self, Refused> {
        let trust_domain = trust_domain(&raw.trust_domain, findings);
        let cluster = cluster(raw.cluster, findings);
        let server_address = host_and_port("server.address", raw.server.address, findings);
        let anchors_file = absolute("trust.anchors_file", raw.trust.anchors_file, findings);
        let node_token_file = absolute("node.token_file", raw.node.token_file, findings);
        let data_dir = absolute("data_dir", raw.data_dir, findings);
        let state_dir = absolute("state_dir", raw.state_dir, findings);
        let csi = raw.csi.enabled.then(|| csi(raw.csi, &trust_domain, findings));
        let admin_socket = socket("admin_socket", raw.admin_socket, findings);
        let shared_socket = raw
            .shared_socket
            .map(|shared| shared_socket(shared, &admin_socket, findings));
        let sds = sds(raw.sds, findings);
        Ok(Self {
            trust_domain: trust_domain?,
            cluster: cluster?,
            server_address: server_address?,
            anchors_file: anchors_file?,
            hybrid: raw.tls.hybrid,
            node_token_file: node_token_file?,
            node_name: Some(raw.node.name).filter(|name| !name.is_empty()),
            data_dir: data_dir?,
            state_dir: state_dir?,
            keeping: match (raw.keep_keys, raw.keep_secrets_on_disk) {
                (false, _) => Keeping::Nowhere,
                (true, true) => Keeping::Anywhere,
                (true, false) => Keeping::InMemory,
            },
            csi: csi.transpose()?,
            shared_socket: shared_socket.transpose()?,
            sds: sds?,
            admin_socket: admin_socket?,
            telemetry: raw.telemetry.listen,
            log: raw.log.format,
        })
    }

    fn log_format(&self) -> LogFormat {
        self.log
    }
}

fn trust_domain(name: &str, findings: &mut Findings) -> Result<TrustDomain, Refused> {
    if name.is_empty() {
        return Err(findings.error(
            "trust_domain",
            "is not set",
            "write the server's trust domain, for example example.org",
        ));
    }
    TrustDomain::parse_lenient(name).map_err(|error| {
        findings.error(
            "trust_domain",
            error.to_string(),
            "write the name that the server serves",
        )
    })
}

/// The name becomes a segment of the agent's own ID.
fn cluster(name: String, findings: &mut Findings) -> Result<String, Refused> {
    let in_an_id = TrustDomain::parse("example.org").and_then(|any| SpiffeId::agent(&any, &name, "node"));
    match in_an_id {
        Ok(_) => Ok(name),
        Err(error) => Err(findings.error(
            "cluster",
            error.to_string(),
            "use letters, digits, dots, dashes and underscores",
        )),
    }
}

fn shared_socket(
    raw: raw::SharedSocket,
    admin_socket: &Result<PathBuf, Refused>,
    findings: &mut Findings,
) -> Result<SharedSocket, Refused> {
    if admin_socket.as_ref() == Ok(&raw.path) {
        return Err(findings.error(
            "shared_socket.path",
            "is the admin socket's path too",
            "give each socket a path of its own",
        ));
    }
    Ok(SharedSocket {
        path: socket("shared_socket.path", raw.path, findings)?,
        mode: raw.mode.0,
    })
}

/// Names that differ, and that no SPIFFE ID can be taken for.
fn sds(raw: raw::Sds, findings: &mut Findings) -> Result<Sds, Refused> {
    let names = Names {
        default_svid: raw.default_svid_name,
        own_bundle: raw.default_bundle_name,
        all_bundles: raw.all_bundles_name,
    };
    let (default, own, all) = (&names.default_svid, &names.own_bundle, &names.all_bundles);
    let keys = [
        ("sds.default_svid_name", default, [own, all]),
        ("sds.default_bundle_name", own, [default, all]),
        ("sds.all_bundles_name", all, [default, own]),
    ];
    let mut refused = None;
    for (key, name, others) in keys {
        let problem = if name.is_empty() || name.len() > 255 || name.contains(char::is_control) {
            "is no name"
        } else if name == "*" {
            "asks for everything"
        } else if name.starts_with("spiffe:") {
            "could be taken for a SPIFFE ID"
        } else if others.contains(&name) {
            "is another secret's name too"
        } else {
            continue;
        };
        let remedy = "give each of these secrets a name of its own, of 1 to 255 bytes";
        refused = Some(findings.error(key, problem, remedy));
    }
    let sds = Sds {
        names: Arc::new(names),
        plain: !raw.spiffe_validator,
        ..Sds::default()
    };
    refused.map_or(Ok(sds), Err)
}

fn csi(
    raw: raw::Csi,
    trust_domain: &Result<TrustDomain, Refused>,
    findings: &mut Findings,
) -> Result<Csi, Refused> {
    let driver_name = driver_name(raw.driver_name, findings);
    let kubelet_dir = absolute("csi.kubelet_dir", raw.kubelet_dir, findings);
    let volumes_dir = absolute("csi.volumes_dir", raw.volumes_dir, findings);
    let registration_dir = match raw.registration_dir {
        empty if empty.as_os_str().is_empty() => {
            kubelet_dir.clone().map(|root| root.join("plugins_registry"))
        }
        written => absolute("csi.registration_dir", written, findings),
    };
    let socket_path = match raw.socket_path {
        empty if empty.as_os_str().is_empty() => {
            let (root, name) = (kubelet_dir.clone()?, driver_name.clone()?);
            socket(
                "csi.socket_path",
                root.join("plugins").join(name).join("csi.sock"),
                findings,
            )
        }
        written => socket("csi.socket_path", written, findings),
    };
    Ok(Csi {
        driver_name: driver_name?,
        audience: match raw.audience {
            empty if empty.is_empty() => format!("signet:{}:pod", trust_domain.clone()?),
            written => written,
        },
        socket_path: socket_path?,
        registration_dir: registration_dir?,
        kubelet_dir: kubelet_dir?,
        volumes_dir: volumes_dir?,
        tokens_from: raw.tokens_from,
        mounter: raw.mounter,
    })
}

fn driver_name(name: String, findings: &mut Findings) -> Result<String, Refused> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
    if (1..=63).contains(&name.len()) && name.bytes().all(allowed) {
        return Ok(name);
    }
    let problem = format!("`{name}` is no CSI driver name");
    let remedy = "use at most 63 letters, digits, dots and dashes";
    Err(findings.error("csi.driver_name", problem, remedy))
}

fn absolute(key: &str, path: PathBuf, findings: &mut Findings) -> Result<PathBuf, Refused> {
    if path.is_absolute() {
        return Ok(path);
    }
    let problem = format!("`{}` is not an absolute path", path.display());
    Err(findings.error(key, problem, "begin it with a slash"))
}

fn socket(key: &str, path: PathBuf, findings: &mut Findings) -> Result<PathBuf, Refused> {
    let path = absolute(key, path, findings)?;
    let length = path.as_os_str().len();
    if length <= MAX_PATH_BYTES {
        return Ok(path);
    }
    let problem = format!("the path has {length} bytes, a Unix socket's may have {MAX_PATH_BYTES}");
    Err(findings.error(key, problem, "choose a shorter one"))
}

fn host_and_port(key: &str, address: String, findings: &mut Findings) -> Result<String, Refused> {
    let plain = |host: &str| {
        !host.is_empty() && !host.contains(['/', '@', ' ']) && (host.starts_with('[') || !host.contains(':'))
    };
    match address.rsplit_once(':') {
        Some((host, port)) if plain(host) && port.parse::<u16>().is_ok_and(|port| port > 0) => Ok(address),
        _ => {
            let problem = format!("`{address}` is not host:port");
            Err(findings.error(key, problem, "write for example signet-server.signet.svc:8443"))
        }
    }
}
