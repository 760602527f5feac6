use super::*;

fn read(text: &str) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.yaml");
    std::fs::write(&path, text).unwrap();
    let read = signet_runtime::config::load_valid(&path);
    read.map(|(config, _)| config).map_err(|error| error.to_string())
}

#[test]
fn a_trust_domain_is_enough() {
    let config = read("trust_domain: example.org\n").unwrap();
    assert_eq!(config.cluster.0, "default");
    assert_eq!(config.pod_audience(), "signet:example.org:pod");
    assert!(config.shared_socket.is_none());
    assert!(!config.csi.enabled);
    assert_eq!(config.admin_socket.0, Path::new(DEFAULT_ADMIN_SOCKET));
    assert_eq!(
        config.csi.socket_path(),
        Path::new("/var/lib/kubelet/plugins/csi.signet.dev/csi.sock")
    );
}

#[test]
fn the_documented_file_is_the_default_one() {
    let source = include_str!("../config.rs");
    let yaml: String = source
        .lines()
        .skip_while(|line| !line.contains("```yaml"))
        .skip(1)
        .take_while(|line| !line.contains("```"))
        .map(|line| {
            format!(
                "{}\n",
                line.trim_start_matches("//!").strip_prefix(' ').unwrap_or("")
            )
        })
        .collect();
    let documented = read(&yaml).unwrap();
    let default = read("trust_domain: example.org").unwrap();
    assert_eq!(documented.server.address, default.server.address);
    assert_eq!(documented.trust.anchors_file, default.trust.anchors_file);
    assert_eq!(documented.node.token_file, default.node.token_file);
    assert_eq!(documented.data_dir, default.data_dir);
    assert_eq!(documented.csi.socket_path(), default.csi.socket_path());
    assert_eq!(documented.csi.registration_dir(), default.csi.registration_dir());
    assert_eq!(documented.csi.volumes_dir, default.csi.volumes_dir);
    assert_eq!(documented.pod_audience(), default.pod_audience());
    assert_eq!(documented.telemetry.listen, default.telemetry.listen);
    let shared = documented.shared_socket.unwrap();
    assert_eq!(
        (shared.path, shared.mode),
        (SharedSocket::default().path, SharedSocket::default().mode)
    );
}

#[test]
fn mistakes_are_named_with_place_and_remedy() {
    let wrong = |text: &str, place: &str| {
        let error = read(text).unwrap_err();
        assert!(
            error.contains(place),
            "{text:?} gave {error:?}, which does not name {place:?}"
        );
        assert!(!error.contains('\n'), "one line: {error:?}");
    };
    wrong("", "trust_domain");
    wrong("trust_domain: 'exa mple'", "trust_domain");
    wrong("trust_domain: a\nclustre: b", "cluster");
    wrong("trust_domain: a\ncluster: a/b", "cluster");
    wrong("trust_domain: a\nserver: {address: localhost}", "server.address");
    wrong(
        "trust_domain: a\nserver: {address: 'http://x:1'}",
        "server.address",
    );
    wrong("trust_domain: a\nserver: {address: 'x:99999'}", "server.address");
    wrong("trust_domain: a\ndata_dir: here", "data_dir");
    wrong(
        "trust_domain: a\nshared_socket: {path: x.sock}",
        "shared_socket.path",
    );
    wrong(
        "trust_domain: a\nshared_socket: {path: /run/signet-agent/admin.sock}",
        "shared_socket.path",
    );
    wrong(
        "trust_domain: a\nshared_socket: {path: /x.sock, mode: '9'}",
        "octal",
    );
    wrong(
        "trust_domain: a\ncsi: {enabled: true, driver_name: 'a b'}",
        "csi.driver_name",
    );
    wrong(
        &format!("trust_domain: a\nadmin_socket: /{}", "x".repeat(107)),
        "admin_socket",
    );
    wrong("trust_domain: a\ntelemetry: {listen: nowhere}", "agent.yaml:2");
}
