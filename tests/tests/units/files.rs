//! The sample for files, with the program that it is for: what docs/files.md says of it, as root types it.

use crate::machine::Machine;
use crate::page::{blocks_of, follow};
use crate::shape::SAMPLE;

/// The program with the configuration of its example, but for the port, which the server has here.
const NGINX: &str = "mkdir -p /etc/nginx /var/lib/nginx /var/log/nginx
     sed 's/127.0.0.1:8443/127.0.0.1:9443/' deploy/examples/nginx/nginx.conf > /etc/nginx/signet.conf
     cat > /etc/systemd/system/nginx.service <<'UNIT'
[Service]
Type=forking
PIDFile=/run/nginx/nginx.pid
RuntimeDirectory=nginx
ExecStart=/usr/sbin/nginx -c /etc/nginx/signet.conf
UNIT";

/// Adds a rule for the user of the sample.
const RULE: &str = "rule='{clusters: [default], evidence: [unix], unix: {uids: [33]}}'
     sed -i \"s|^rules:|rules:\\n  - name: web\\n    match: $rule\\n    spiffe_id: /vm/{node_name}/web|\" /etc/signet/server.yaml
     systemctl reload signet-server
     timeout 30 sh -c 'until signet-server rule list | grep web; do sleep 0.1; done'";

/// The serial of the certificate in the files, and of the one that the program shows.
const IN_FILES: &str = "openssl x509 -in /run/signet-files/svid.pem -noout -serial";
const SHOWN: &str =
    "openssl s_client -connect 127.0.0.1:9443 </dev/null 2>/dev/null | openssl x509 -noout -serial";

/// Another user of the machine, who shows who he is.
const ASKS: &str = "setpriv --reuid 34 --regid 34 --clear-groups signet-agent fetch x509 \
     --socket unix:///run/signet-agent/public/api.sock --timeout 60s --write /tmp/backup
     curl --silent --show-error --insecure --cert /tmp/backup/svid.pem --key /tmp/backup/svid_key.pem https://127.0.0.1:9443/";

impl Machine {
    /// Waits until the program shows what is in the files, and that is another certificate than `before`.
    async fn shows_what_is_in_the_files(&self, before: &str) -> String {
        let commands = format!(
            "timeout 30 bash -c 'until now=$({IN_FILES}) && [ \"$now\" != \"{before}\" ] && [ \"$now\" = \"$({SHOWN})\" ]; do sleep 0.1; done'
             {IN_FILES}"
        );
        self.types(&commands).await.trim().to_owned()
    }
}

/// Takes the agent away, whoever wants it.
const AGENT_AWAY: &str = "mkdir -p /etc/systemd/system/signet-agent.service.d
     printf '[Unit]\nConditionPathExists=!/run/away\n' > /etc/systemd/system/signet-agent.service.d/away.conf
     touch /run/away; systemctl daemon-reload; systemctl stop signet-agent";

impl Machine {
    /// The program knows nothing of it when the writer of its files ends and starts again, be the agent there or not.
    async fn outlives_its_writer(&self) {
        let program = self.property("nginx", "MainPID").await;
        self.is_started_again(SAMPLE).await;
        self.until(SAMPLE, "StatusText", |text| text == "ready").await;
        assert_eq!(self.property("nginx", "MainPID").await, program);

        self.types(AGENT_AWAY).await;
        self.is_started_again(SAMPLE).await;
        self.until(SAMPLE, "StatusText", |text| text.contains("earlier_set"))
            .await;
        assert_eq!(self.property("nginx", "MainPID").await, program);
        // Also after a boot, when the program waits for the writer.
        self.types(&format!("systemctl stop nginx {SAMPLE}; systemctl start nginx"))
            .await;
        for unit in ["nginx", SAMPLE] {
            assert_eq!(self.property(unit, "ActiveState").await, "active", "{unit}");
        }
        assert_eq!(self.property("signet-agent", "ActiveState").await, "inactive");
        // Without any files it is told what is waited for.
        self.types(&format!(
            "systemctl stop {SAMPLE}; rm -r /run/signet-files; systemctl start --no-block {SAMPLE}"
        ))
        .await;
        let waits = "starts, and waits: agent_away: ";
        self.until(SAMPLE, "StatusText", |text| text.starts_with(waits))
            .await;
        assert_eq!(self.property(SAMPLE, "ActiveState").await, "activating");
        self.types("rm /run/away; systemctl start signet-agent").await;
        self.until(SAMPLE, "StatusText", |text| text == "ready").await;
    }
}

impl Machine {
    /// The variant whose files are another user's, and who is told by a command.
    async fn gives_files_away(&self) {
        self.types(&format!(
            "systemctl stop {SAMPLE}; rm -r /run/signet-files; install -d -o www-data /var/lib/backup-trust
             install -D -m 0644 -t /etc/systemd/system/{SAMPLE}.service.d deploy/examples/systemd/files-of-another-user.conf
             systemctl daemon-reload; systemctl start {SAMPLE}"
        ))
        .await;
        self.until(SAMPLE, "StatusText", |text| text == "ready").await;
        let shown = "cd /run/signet-files; stat -L -c '%a %U' . svid_key.pem; cmp svid.pem /var/lib/backup-trust/svid.pem
             setpriv --reuid 34 --regid 34 --clear-groups openssl pkey -noout -in svid_key.pem";
        assert_eq!(self.types(shown).await, "755 www-data\n600 backup\n");
        // The next set replaces what is another's.
        self.types(&format!("systemctl reload {SAMPLE}")).await;
        let again =
            "timeout 30 sh -c 'until [ \"$(readlink /run/signet-files/..data)\" = ..2 ]; do sleep 0.1; done'";
        self.types(again).await;
        self.until(SAMPLE, "StatusText", |text| text == "ready").await;
        self.ends_in_order(SAMPLE).await;
    }
}

mod needs_root_and_systemd {
    use super::*;

    #[tokio::test]
    #[ignore = "needs root and systemd: `.ci/step units` runs it"]
    async fn a_program_starts_once_it_has_its_files_and_is_told_of_each_set() {
        let machine = Machine::boot().await;
        machine.is_a_node().await;
        follow(&machine, &["1. ", "2. "]).await;
        machine.types(RULE).await;
        machine.types(NGINX).await;
        for block in blocks_of("files", "As a service") {
            machine.types(&block).await;
        }
        assert_eq!(machine.property(SAMPLE, "ActiveState").await, "active");
        machine.types("systemctl start nginx").await;
        let first = machine.shows_what_is_in_the_files("").await;
        let answer = machine.types(ASKS).await;
        assert!(answer.ends_with("ok\n"), "{answer}");
        machine.until(SAMPLE, "StatusText", |text| text == "ready").await;

        let serial = first.trim_start_matches("serial=").to_lowercase();
        machine
            .types(&format!("signet-server revoke --serial {serial}"))
            .await;
        let second = machine.shows_what_is_in_the_files(&first).await;

        machine.outlives_its_writer().await;
        machine.ends_in_order(SAMPLE).await;
        assert_eq!(machine.types(IN_FILES).await.trim(), second, "the files stay");
        let modes = "stat -c '%a %U' /run/signet-files /run/signet-files/..data/svid_key.pem";
        assert_eq!(machine.types(modes).await, "750 www-data\n600 www-data\n");
        let file = format!("/etc/systemd/system/{SAMPLE}.service");
        let verified = machine.types(&format!("systemd-analyze verify {file}")).await;
        assert_eq!(verified, "");
        machine.gives_files_away().await;
    }
}
