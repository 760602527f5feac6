//! A container of a manifest as a container runtime would make it: the image's files, read-only, and the manifest's mounts.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use signet_tests::process::binary;
use signet_tests::repository::root;
use tempfile::TempDir;

/// The objects of a manifest.
pub(crate) fn objects(manifest: &str) -> Vec<Value> {
    let yaml = fs::read_to_string(root().join("deploy/kubernetes").join(manifest)).unwrap();
    serde_saphyr::from_multiple(&yaml).unwrap()
}

/// Files by their names, as a ConfigMap or a Secret holds them.
pub(crate) type Files = BTreeMap<String, String>;

/// The namespaces of a container.
const OWN: [&str; 4] = ["--mount", "--net", "--propagation", "private"];
/// How a root differs from the manifest's, for what must not be.
#[derive(Default)]
pub(crate) struct Fault<'a> {
    /// This volume is not mounted, and the root can be written, as an overlay is.
    pub(crate) without: Option<&'a str>,
}

/// A manifest's only container.
pub(crate) struct Container {
    pub(crate) folder: TempDir,
    pub(crate) spec: Value,
    templates: Value,
    given: BTreeMap<String, Files>,
    script: String,
}

impl Container {
    /// Of the program in a manifest; `given` are the ConfigMaps that users make, and what projected volumes hold.
    pub(crate) fn new(manifest: &str, program: &Path, given: &[(&str, Files)], fault: &Fault<'_>) -> Self {
        let objects = objects(manifest);
        let workload = objects
            .iter()
            .find(|object| object["spec"]["template"].is_object());
        let spec = workload.unwrap()["spec"]["template"]["spec"].clone();
        let mut given: BTreeMap<String, Files> = given
            .iter()
            .map(|(name, files)| ((*name).to_owned(), files.clone()))
            .collect();
        for map in objects.iter().filter(|object| object["kind"] == "ConfigMap") {
            let files = serde_json::from_value(map["data"].clone()).unwrap();
            given.insert(map["metadata"]["name"].as_str().unwrap().to_owned(), files);
        }
        // That of kubelet and of who unpacks images, whatever this process was given.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let mut made = Self {
            folder: signet_testkit::folder(),
            spec,
            templates: workload.unwrap()["spec"]["volumeClaimTemplates"].clone(),
            given,
            script: String::new(),
        };
        made.unpack(program);
        made.write_script(fault);
        made
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Where a folder of the node is on this machine.
    pub(crate) fn node(&self, path: &str) -> PathBuf {
        self.folder.path().join("node").join(path.trim_start_matches('/'))
    }

    pub(crate) fn container(&self) -> &Value {
        &self.spec["containers"][0]
    }

    /// What is in the image.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let list = Command::new("find")
            .args(["-type", "f", "-printf", "%P\\n"])
            .current_dir(self.root())
            .output()
            .unwrap();
        let text = String::from_utf8(list.stdout).unwrap();
        text.lines().map(PathBuf::from).collect()
    }

    /// The image's only layer.
    fn unpack(&self, program: &Path) {
        let (archive, layout) = (
            self.folder.path().join("image.tar"),
            self.folder.path().join("image"),
        );
        let packed = Command::new(binary("signet-image"))
            .arg(program)
            .args(["--name", "x:1", "--out"])
            .arg(&archive)
            .output()
            .unwrap();
        assert!(packed.status.success(), "{packed:?}");
        untar(&archive, &layout);
        let json = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            layout.join("blobs").join(digest)
        };
        let index = json(&layout.join("index.json"));
        let manifest = json(&blob(&index["manifests"][0]));
        untar(&blob(&manifest["layers"][0]), &self.root());
        fs::remove_file(archive).unwrap();
        fs::remove_dir_all(layout).unwrap();
    }

    fn write_script(&mut self, fault: &Fault<'_>) {
        let root = self.root();
        let mut script = vec![
            "ip link set lo up".to_owned(),
            format!("cd {}", self.folder.path().display()),
        ];
        for memory in ["run", "var/lib/kubelet/pods"] {
            let memory = self.node(memory);
            fs::create_dir_all(&memory).unwrap();
            script.push(format!(
                "mount -t tmpfs tmpfs {0}; mount --make-shared {0}",
                memory.display()
            ));
        }
        match fault.without {
            None => script.push(format!("mount --bind {0} {0}", root.display())),
            Some(_) => script.push(format!(
                "mkdir up work; mount -t overlay overlay -o lowerdir={0},upperdir=up,workdir=work {0}",
                root.display()
            )),
        }
        let mut mounts = self.container()["volumeMounts"].as_array().unwrap().clone();
        if self.spec["automountServiceAccountToken"] != json!(false) && self.given.contains_key("account") {
            mounts.push(json!({
                "name": "account", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true,
            }));
        }
        for mount in mounts
            .iter()
            .filter(|mount| fault.without != mount["name"].as_str())
        {
            script.push(self.mount(mount));
        }
        for own in ["proc", "dev"] {
            script.push(format!(
                "mkdir -p {0}/{own}; mount --rbind /{own} {0}/{own}",
                root.display()
            ));
        }
        assert_eq!(
            self.container()["securityContext"]["readOnlyRootFilesystem"],
            true
        );
        if fault.without.is_none() {
            script.push(format!("mount -o remount,bind,ro {}", root.display()));
        }
        let words: Vec<&str> = strings(&self.container()["command"]).collect();
        script.push(format!(
            "exec /usr/bin/env -i {} /usr/sbin/chroot {} {} {}",
            self.environment(),
            self.user(),
            root.display(),
            words.join(" ")
        ));
        self.script = script.join("\n");
    }

    fn mount(&self, mount: &Value) -> String {
        let name = mount["name"].as_str().unwrap();
        let (source, wait) = self.volume(name);
        let at = self
            .root()
            .join(mount["mountPath"].as_str().unwrap().trim_start_matches('/'));
        let (source, at) = match mount["subPath"].as_str() {
            Some(file) => {
                let make = format!(
                    "mkdir -p {}; touch {}",
                    at.parent().unwrap().display(),
                    at.display()
                );
                (source.join(file), (make, at))
            }
            None => (source, (format!("mkdir -p {}", at.display()), at)),
        };
        let (make, at) = at;
        let bind = format!(
            "{wait}{make}; mount --rbind {} {}",
            source.display(),
            at.display()
        );
        if mount["readOnly"] == true {
            format!("{bind}; mount -o remount,bind,ro {}", at.display())
        } else {
            bind
        }
    }

    /// Where a volume's files are, and what makes them be there.
    fn volume(&self, name: &str) -> (PathBuf, String) {
        let volumes = self.spec["volumes"].as_array().unwrap();
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == name)
            .cloned()
            .unwrap_or_default();
        let own = self.folder.path().join("volumes").join(name);
        if let Some(path) = volume["hostPath"]["path"].as_str() {
            let path = self.node(path);
            fs::create_dir_all(&path).unwrap();
            // What lies in memory is mounted over it.
            let make = format!("mkdir -p {}; ", path.display());
            return (path, make);
        }
        fs::create_dir_all(&own).unwrap();
        if volume["emptyDir"]["medium"] == "Memory" {
            let group = self.spec["securityContext"]["fsGroup"]
                .as_u64()
                .unwrap_or_default();
            return (
                own.clone(),
                format!(
                    "mount -t tmpfs tmpfs -o mode=2777,gid={group} {}; ",
                    own.display()
                ),
            );
        }
        if strings_of(&self.templates).any(|claim| claim == name) {
            let group = self.spec["securityContext"]["fsGroup"].as_u64().unwrap();
            chown(&own, None, Some(u32::try_from(group).unwrap())).unwrap();
            fs::set_permissions(&own, fs::Permissions::from_mode(0o2775)).unwrap();
            return (own, String::new());
        }
        let map = volume["configMap"]["name"].as_str().unwrap_or(name);
        for (file, text) in self
            .given
            .get(map)
            .unwrap_or_else(|| panic!("nobody gives {map}"))
        {
            fs::write(own.join(file), text).unwrap();
        }
        (own, String::new())
    }

    fn environment(&self) -> String {
        let mut all = vec!["PATH=/usr/bin".to_owned()];
        for variable in self.container()["env"].as_array().into_iter().flatten() {
            let by_field = variable["valueFrom"]["fieldRef"]["fieldPath"] == "spec.nodeName";
            let value = if by_field {
                "node-a"
            } else {
                variable["value"].as_str().unwrap()
            };
            all.push(format!("{}={value}", variable["name"].as_str().unwrap()));
        }
        if self.given.contains_key("account") {
            all.extend([
                "KUBERNETES_SERVICE_HOST=127.0.0.1".to_owned(),
                "KUBERNETES_SERVICE_PORT=1".to_owned(),
            ]);
        }
        all.join(" ")
    }

    /// The user that the manifest names, else root.
    fn user(&self) -> String {
        let context = &self.spec["securityContext"];
        match (context["runAsUser"].as_u64(), context["fsGroup"].as_u64()) {
            (Some(user), Some(group)) => {
                format!("--userspec={user}:{} --groups={group}", context["runAsGroup"])
            }
            _ => String::new(),
        }
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(OWN).args(["sh", "-ec", &self.script]);
        command
    }

    /// Starts it and waits for its end.
    pub(crate) fn output(&self) -> Output {
        self.command().output().unwrap()
    }
}

fn untar(archive: &Path, into: &Path) {
    fs::create_dir_all(into).unwrap();
    let status = Command::new("tar")
        .arg("-xf")
        .arg(archive)
        .arg("-C")
        .arg(into)
        .status()
        .unwrap();
    assert!(status.success());
}

pub(crate) fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().unwrap().iter().map(|word| word.as_str().unwrap())
}

fn strings_of(templates: &Value) -> impl Iterator<Item = &str> {
    templates
        .as_array()
        .into_iter()
        .flatten()
        .map(|template| template["metadata"]["name"].as_str().unwrap())
}
