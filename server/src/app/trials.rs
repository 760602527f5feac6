//! The paths and addresses of the configuration, each in the way in which it is used.

use std::path::Path;

use signet_certs::tls;
use signet_runtime::trial::{Advice, Trial, Use};

use crate::{
    attest::config::ClusterConfig, audit::AuditSink, config::Config, key_manager::kept_apart,
    kubernetes::access::Access, live_rules::clash, publish_https::WebCertificate,
    store::sqlite::admin_rules_in,
};

const KEK_FILE: &str = "keys.kek_file";

/// What an admin should change about a configuration with which the server runs, a line each, as `status` says it.
pub(super) fn advice(config: &Config) -> Vec<String> {
    let advice = kept_apart(&config.kek_file, &config.data_dir);
    let said = |advice: Advice| format!("{KEK_FILE}: {}; {}", advice.problem, advice.remedy);
    advice.map(said).into_iter().collect()
}

/// All of them, in the order in which a start uses them.
pub(crate) fn trials(config: &Config) -> Vec<Trial<'_>> {
    // The clients of API servers that are tried are made as those of the start, which says so where another provider is there already.
    let _ = tls::install(config.hybrid.with_anybody());
    let private = Use::PrivateDir {
        may_be_read_only: false,
        gets_mode: false,
    };
    let listen = &config.listen;
    let apart = || kept_apart(&config.kek_file, &config.data_dir);
    let mut trials = vec![
        Trial::of("data_dir", &config.data_dir, private),
        Trial::of(KEK_FILE, &config.kek_file, Use::ReadOrMade),
        Trial::of(KEK_FILE, &config.kek_file, Use::Advised(Box::new(apart))),
        Trial::of(
            "trust.control_anchors_file",
            &config.control_anchors_file,
            Use::Replaced,
        ),
        Trial::of("listen.admin_socket", &listen.admin_socket, Use::Socket),
        Trial::address("listen.agents", listen.agents),
        Trial::address("listen.publish", listen.publish),
        Trial::address("listen.telemetry", listen.telemetry),
    ];
    trials.extend(
        listen
            .bundle
            .map(|address| Trial::address("listen.bundle", address)),
    );
    if let AuditSink::File(path) = &config.audit {
        trials.push(Trial::of("audit.file", path, Use::Appended));
    }
    if let Some(files) = &config.bundle.certificate {
        let (certificate, key) = (&files.certificate, &files.key);
        let chain = move || WebCertificate::check_chain(certificate).map_err(|error| error.to_string());
        trials.push(Trial::of(
            "publish.bundle_certificate_file",
            certificate,
            Use::Own(Box::new(chain)),
        ));
        let fits = move || WebCertificate::check_key(certificate, key).map_err(|error| error.to_string());
        trials.push(Trial::of(
            "publish.bundle_key_file",
            key,
            Use::Own(Box::new(fits)),
        ));
    }
    trials.push(Trial::of(
        "rules",
        &config.data_dir,
        Use::Advised(Box::new(|| clash_of(config))),
    ));
    let clusters = config.attestation.clusters.iter().enumerate();
    trials.extend(clusters.map(|(index, cluster)| client(index, cluster)));
    trials
}

/// What stands in the way of the rules of the file in the store, where this user may look at that.
fn clash_of(config: &Config) -> Option<Advice> {
    let kept = admin_rules_in(&config.data_dir)?;
    clash(&kept, &config.rules, config.longest_ttl()).map(|problem| Advice {
        problem: format!("beside the rules that admins have set they are not in force: {problem}"),
        remedy: "`signet-server rule list` shows those; a running server says the same in `status`",
    })
}

/// What the client of a cluster is made of. A program that makes its credentials is for the start alone.
fn client(index: usize, cluster: &ClusterConfig) -> Trial<'_> {
    let key = format!("attestation.clusters[{index}]");
    let (key, path) = match &cluster.access {
        Access::Kubeconfig { path, .. } => (format!("{key}.kubeconfig"), path.as_path()),
        Access::ApiServer { .. } => (format!("{key}.api_server"), Path::new("")),
        Access::InCluster | Access::Given(_) => (key, Path::new("")),
    };
    let make = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(cluster.access.check())
    };
    Trial::of(key, path, Use::Own(Box::new(make)))
}

#[cfg(test)]
mod tests;
