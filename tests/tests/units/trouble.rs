//! What systemd makes of a program that is told to read again, is killed, stopped, or wrongly configured.

use crate::machine::Machine;
use crate::page::follow;

impl Machine {
    /// Kills the unit's program and waits until another one is up.
    pub(crate) async fn is_started_again(&self, unit: &str) {
        let killed = self.property(unit, "MainPID").await;
        let restarts: u32 = self.property(unit, "NRestarts").await.parse().unwrap();
        self.types(&format!("kill -9 {killed}")).await;
        self.until(unit, "MainPID", |now| now != "0" && now != killed)
            .await;
        self.until(unit, "ActiveState", |state| state == "active").await;
        let again = (restarts + 1).to_string();
        assert_eq!(self.property(unit, "NRestarts").await, again);
    }

    /// Stops the unit, which ends well.
    pub(crate) async fn ends_in_order(&self, unit: &str) {
        self.types(&format!("systemctl stop {unit}")).await;
        let [state, result, code, status] = ["ActiveState", "Result", "ExecMainCode", "ExecMainStatus"];
        for (name, expected) in [
            (state, "inactive"),
            (result, "success"),
            (code, "1"),
            (status, "0"),
        ] {
            assert_eq!(self.property(unit, name).await, expected, "{unit}: {name}");
        }
    }

    /// Starts the unit with a mistake in its configuration, and mends that.
    async fn says_what_is_wrong(&self, unit: &str, file: &str) {
        self.types(&format!("cp {file} kept; echo 'trust_domian: x' >> {file}"))
            .await;
        let (started, _) = self.tried(&format!("systemctl start {unit}")).await;
        assert!(!started, "{unit}");
        let (_, status) = self
            .tried(&format!("systemctl status --no-pager --full {unit}"))
            .await;
        for said in ["failed (Result: exit-code)", "status=78", "trust_domian"] {
            assert!(status.contains(said), "{unit}: {said}: {status}");
        }
        assert_eq!(self.property(unit, "NRestarts").await, "0", "{unit}");
        self.types(&format!("cp kept {file}; systemctl start {unit}"))
            .await;
    }
}

mod needs_root_and_systemd {
    use super::*;

    #[tokio::test]
    #[ignore = "needs root and systemd: `.ci/step units` runs it"]
    async fn a_server_is_reloaded_killed_stopped_and_mended() {
        let machine = Machine::boot().await;
        follow(&machine, &["1. "]).await;
        let (unit, file) = ("signet-server", "/etc/signet/server.yaml");
        machine.until(unit, "StatusText", |text| text == "ready").await;
        let before = machine.types("signet-server rule list").await;
        machine
            .types(&format!(
                "sed -i 's/name: backup/name: reloaded/' {file}; systemctl reload {unit}"
            ))
            .await;
        machine
            .types("timeout 30 sh -c 'until signet-server rule list | grep reloaded; do sleep 0.1; done'")
            .await;
        assert!(!before.contains("reloaded"), "{before}");

        machine.is_started_again(unit).await;
        machine.until(unit, "StatusText", |text| text == "ready").await;
        machine.ends_in_order(unit).await;
        machine.says_what_is_wrong(unit, file).await;
        machine.until(unit, "StatusText", |text| text == "ready").await;

        // What is missing and may come is waited for.
        machine
            .types("systemctl stop signet-server; mv /etc/signet/kek kek")
            .await;
        assert!(!machine.tried("systemctl start signet-server").await.0);
        machine
            .until(unit, "SubState", |state| state == "auto-restart")
            .await;
        assert_eq!(machine.property(unit, "ExecMainStatus").await, "243");
        machine.types("mv kek /etc/signet/kek").await;
        machine
            .until(unit, "ActiveState", |state| state == "active")
            .await;
    }

    #[tokio::test]
    #[ignore = "needs root and systemd: `.ci/step units` runs it"]
    async fn an_agent_sees_the_programs_of_others_and_is_reloaded_killed_stopped_and_mended() {
        let machine = Machine::boot().await;
        let node = machine.is_a_node().await;
        follow(&machine, &["1. ", "2. "]).await;
        let (unit, file) = ("signet-agent", "/etc/signet/agent.yaml");
        // The agent has another /tmp than this program of another user.
        machine
            .types(
                "install -m 0755 /usr/local/bin/signet-agent /tmp/tool
                 hash=$(sha256sum /tmp/tool | cut -d ' ' -f 1)
                 rule=\"{clusters: [default], evidence: [unix], unix: {uids: [33], paths: [/tmp/tool], sha256: [$hash]}}\"
                 sed -i \"s|^rules:|rules:\\n  - name: tool\\n    match: $rule\\n    spiffe_id: /tool/{node_name}|\" /etc/signet/server.yaml
                 systemctl reload signet-server
                 timeout 30 sh -c 'until signet-server rule list | grep tool; do sleep 0.1; done'",
            )
            .await;
        let fetch = "setpriv --reuid 33 --regid 33 --clear-groups \
                     /tmp/tool fetch x509 --socket unix:///run/signet-agent/public/api.sock --timeout 60s";
        let id = format!("spiffe://example.org/tool/{node}");
        let fetched = machine.types(fetch).await;
        assert!(fetched.contains(&id), "{fetched}");

        // The page has done so once already.
        machine
            .types(
                "systemctl reload signet-agent
                 twice='[ $(journalctl -u signet-agent | grep -c SIGHUP:) = 2 ]'
                 timeout 30 bash -c \"until $twice; do sleep 0.1; done\"",
            )
            .await;

        // What it holds outlives it, without the server.
        machine.types("systemctl stop signet-server").await;
        machine
            .until(unit, "StatusText", |text| text.contains("server_away"))
            .await;
        machine.is_started_again(unit).await;
        let again = machine.types(fetch).await;
        assert!(again.contains(&id), "{again}");

        machine.ends_in_order(unit).await;
        machine
            .types("test -d /run/signet-agent/state; systemctl start signet-server")
            .await;
        machine.says_what_is_wrong(unit, file).await;
        machine.until(unit, "StatusText", |text| text == "ready").await;
        assert!(machine.types(fetch).await.contains(&id));
    }
}
