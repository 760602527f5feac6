//! docs/systemd.md, and what docs/files.md has of systemd, block by block, as root types it on a machine of its own.

use std::fs;

use signet_tests::repository::root;

use crate::machine::Machine;

/// The blocks of commands under the heading that begins so.
pub(crate) fn blocks(heading: &str) -> Vec<String> {
    blocks_of("systemd", heading)
}

/// The same of another page.
pub(crate) fn blocks_of(page: &str, heading: &str) -> Vec<String> {
    let page = fs::read_to_string(root().join(format!("docs/{page}.md"))).unwrap();
    let mut sections = page.split("\n## ");
    let section = sections.find(|section| section.starts_with(heading)).unwrap();
    let blocks = section.split("```sh\n").skip(1);
    let blocks: Vec<String> = blocks
        .map(|rest| rest.split_once("```").unwrap().0.to_owned())
        .collect();
    assert!(!blocks.is_empty(), "{heading} has no commands");
    blocks
}

/// Types all of them; what the last one said.
pub(crate) async fn follow(machine: &Machine, headings: &[&str]) -> String {
    let mut last = String::new();
    for block in headings.iter().flat_map(|heading| blocks(heading)) {
        last = machine.types(&block).await;
    }
    last
}

#[test]
fn every_block_of_the_page_is_typed_by_a_test() {
    let page = fs::read_to_string(root().join("docs/systemd.md")).unwrap();
    let all = page.matches("```sh\n").count();
    let typed = ["1. ", "2. ", "3. ", "4. "].map(|heading| blocks(heading).len());
    assert_eq!(typed.iter().sum::<usize>(), all);
}

/// What a service is told that is shut in as much as services are, with users of its own.
async fn of_its_own_unit(machine: &Machine) -> String {
    let unit = "[Service]\nType=oneshot\nUser=34\nPrivateUsers=yes\nPrivateTmp=yes\nProtectSystem=strict\nProtectHome=yes\n\
                Environment=SPIFFE_ENDPOINT_SOCKET=unix:///run/signet-agent/public/api.sock\n\
                ExecStart=/usr/local/bin/signet-agent fetch x509 --timeout 60s\n\
                StandardOutput=file:/run/own.out\n";
    machine
        .types(&format!(
            "printf '%s' '{unit}' > /etc/systemd/system/own.service
             systemctl daemon-reload
             systemctl start own
             cat /run/own.out"
        ))
        .await
}

mod needs_root_and_systemd {
    use super::*;

    #[tokio::test]
    #[ignore = "needs root and systemd: `.ci/step units` runs it"]
    async fn the_page_about_systemd_is_true() {
        let machine = Machine::boot().await;
        let node = machine.is_a_node().await;
        follow(&machine, &["1. "]).await;
        let status = machine
            .types("systemctl status --no-pager --full signet-server")
            .await;
        assert!(status.contains("active (running)"), "{status}");
        // What is said follows readiness.
        machine
            .until("signet-server", "StatusText", |text| text == "ready")
            .await;

        follow(&machine, &["2. "]).await;
        machine
            .until("signet-agent", "StatusText", |text| text == "ready")
            .await;
        let fetched = follow(&machine, &["3. "]).await;
        let id = format!("spiffe://example.org/vm/{node}/backup");
        assert!(fetched.contains(&id), "{fetched}");

        let served = machine.types("signet-server status; signet-agent status").await;
        assert!(served.contains("1 connected"), "{served}");
        let audit = machine.types("cat /var/log/signet-server/audit.log").await;
        assert!(audit.contains("node_attested") && audit.contains(&id), "{audit}");
        let own = of_its_own_unit(&machine).await;
        assert!(own.contains(&id), "{own}");
        for unit in ["signet-server", "signet-agent"] {
            let file = format!("/etc/systemd/system/{unit}.service");
            let verified = machine.types(&format!("systemd-analyze verify {file}")).await;
            assert_eq!(verified, "", "{unit}");
            assert_eq!(machine.property(unit, "ActiveState").await, "active");
            assert_eq!(machine.property(unit, "NRestarts").await, "0");
        }
    }
}
