//! A node's containerd: the CRI plugin with the handler of `packaging/`, CNI's bridge in a network namespace of its own.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use husk_tests::cache::{unique, workspace};
use husk_tests::engines::containerd::Containerd;
use husk_tests::engines::remove_cgroup;
use husk_tests::image::{Content, busybox_layer};
use husk_tests::network::Namespace;
use prost::Message;
use serde_json::json;

use crate::client::Client;
use crate::messages::*;

/// How long something may take to come true, on a machine under load.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
const IMAGE: &str = "docker.io/library/husk-test:latest";
const PAUSE_IMAGE: &str = "docker.io/library/husk-pause:latest";
/// Where Debian's containernetworking-plugins are.
const PLUGINS: &str = "/usr/lib/cni";

pub struct Node {
    containerd: RefCell<Containerd>,
    directory: PathBuf,
    client: Client,
    cgroup: String,
}

/// Whether containerd is one of the second generation, with names and configuration of its own.
fn is_second() -> Result<bool> {
    let told = Command::new("containerd").arg("--version").output()?;
    let told = String::from_utf8(told.stdout)?;
    println!("{}", told.trim());
    Ok(told.contains("containerd/v2 "))
}

/// The handler as users are told to write it, and what is the test's own.
fn settings(at: &Path) -> Result<String> {
    // Below 0 is more than machines in machines allow.
    let runtime = "restrict_oom_score_adj = true\nnetns_mounts_under_state_dir = true\n";
    let configs = at.join("cni").display().to_string();
    let handler = |file| fs::read_to_string(workspace().join("packaging").join(file));
    Ok(if is_second()? {
        let plugin = "plugins.\"io.containerd.cri.v1.runtime\"";
        format!(
            "{}\n[{plugin}]\n{runtime}[{plugin}.cni]\nbin_dirs = [\"{PLUGINS}\"]\nconf_dir = \"{configs}\"\n\
             [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{PAUSE_IMAGE}\"\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n",
            handler("containerd-2.toml")?
        )
    } else {
        let plugin = "plugins.\"io.containerd.grpc.v1.cri\"";
        format!(
            "{}\n[{plugin}]\nsandbox_image = \"{PAUSE_IMAGE}\"\n{runtime}\
             [{plugin}.cni]\nbin_dir = \"{PLUGINS}\"\nconf_dir = \"{configs}\"\n\
             [plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n",
            handler("containerd.toml")?
        )
    })
}

/// Waits until `is_so`.
pub fn await_that(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

impl Node {
    pub fn start() -> Result<Self> {
        ensure!(
            Path::new(PLUGINS).join("bridge").exists(),
            "no CNI plugins: run xtask/setup"
        );
        let mut text = Ok(String::new());
        let containerd = Containerd::configured(
            |at| {
                text = settings(at);
                text.as_ref().cloned().unwrap_or_default()
            },
            Some(Namespace::new()?),
        )?;
        text?;
        let at = containerd.directory();
        let network = json!({
            "cniVersion": "0.4.0", "name": "pods", "plugins": [{
                "type": "bridge", "bridge": "pods", "isGateway": true,
                "ipam": {
                    "type": "host-local", "dataDir": at.join("addresses"),
                    "ranges": [[{ "subnet": "10.88.0.0/16" }]],
                    "routes": [{ "dst": "0.0.0.0/0" }],
                },
            }],
        });
        fs::create_dir_all(at.join("cni"))?;
        fs::write(at.join("cni/pods.conflist"), network.to_string())?;
        let mut content = Content::new(busybox_layer()?.finish()?);
        let archives = [
            (IMAGE, "sh", at.join("image.tar")),
            (PAUSE_IMAGE, "pause", at.join("pause.tar")),
        ];
        for (name, command, archive) in &archives {
            if *command == "pause" {
                content.config["config"]["Cmd"] = json!(["sleep", "infinity"]);
            }
            fs::write(archive, content.docker_archive_named(name)?)?;
            let import = Command::new("ctr")
                .arg("--address")
                .arg(containerd.socket())
                .args(["--namespace", "k8s.io", "images", "import"])
                .arg(archive)
                .output()?;
            ensure!(
                import.status.success(),
                "{}",
                String::from_utf8_lossy(&import.stderr)
            );
        }
        let node = Self {
            client: Client::new(&containerd.socket())?,
            directory: containerd.directory().to_owned(),
            containerd: RefCell::new(containerd),
            cgroup: unique("husk-test-cri"),
        };
        node.is_up()?;
        Ok(node)
    }

    /// Waits until the CRI plugin has seen the images and the network.
    fn is_up(&self) -> Result<()> {
        for name in [IMAGE, PAUSE_IMAGE] {
            await_that("an image", || {
                let image = Some(ImageSpec {
                    image: name.to_owned(),
                });
                let request = ImageStatusRequest { image };
                let answer = self.client.call("ImageService/ImageStatus", request);
                let answer: Result<ImageStatusResponse> = answer;
                Ok(answer.is_ok_and(|answer| answer.image.is_some()))
            })?;
        }
        await_that("ready", || {
            let status: StatusResponse = self.call("Status", Empty {})?;
            let conditions = status.status.unwrap_or_default().conditions;
            Ok(conditions
                .iter()
                .filter(|condition| condition.r#type.ends_with("Ready"))
                .all(|condition| condition.status))
        })
    }

    /// Ends containerd, does something, and starts it again; pods live on.
    pub fn restart(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut containerd = self.containerd.borrow_mut();
        containerd.down();
        let done = meanwhile();
        containerd.up()?;
        done?;
        self.is_up()
    }

    /// Calls a method of the runtime service.
    pub fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.client
            .call(&format!("RuntimeService/{method}"), request)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A pod, whose name no other has; the network is the pod's own or the node's.
    pub fn pod(&self, handler: &str, network: i32) -> Result<Pod<'_>> {
        let name = unique("pod");
        let options = NamespaceOption {
            network,
            pid: CONTAINER,
            ipc: POD,
        };
        let own_network = network == POD;
        let sysctls = [("net.ipv4.ip_unprivileged_port_start", "0")];
        let config = PodSandboxConfig {
            metadata: Some(Metadata {
                name: name.clone(),
                uid: name.clone(),
                namespace: "default".to_owned(),
            }),
            // With the node's network the kubelet sends none.
            hostname: if own_network { "pod" } else { "" }.to_owned(),
            log_directory: self
                .directory()
                .join("logs")
                .join(&name)
                .display()
                .to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/{}/{name}", self.cgroup),
                security_context: Some(SandboxSecurity {
                    namespace_options: Some(options),
                }),
                sysctls: sysctls
                    .iter()
                    .filter(|_| own_network)
                    .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                    .collect(),
            }),
        };
        fs::create_dir_all(&config.log_directory)?;
        let request = RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: handler.to_owned(),
        };
        let answer: Id = self.call("RunPodSandbox", request)?;
        Ok(Pod {
            node: self,
            id: answer.id,
            config,
        })
    }

    /// What is left of a pod or container that was removed: nothing, as soon as shims have ended.
    pub fn left(&self, ids: &[String]) -> Result<()> {
        let mut left = String::new();
        let outcome = await_that("nothing left", || {
            left = self.traces(ids)?;
            Ok(left.is_empty())
        });
        outcome.with_context(|| left)
    }

    fn traces(&self, ids: &[String]) -> Result<String> {
        let mut found = String::new();
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        for id in ids {
            for line in mounts.lines().filter(|line| line.contains(id.as_str())) {
                found += &format!("mount {line}\n");
            }
            let state = Path::new("/run/containerd/husk/k8s.io/containers").join(id);
            if state.exists() {
                found += &format!("{}\n", state.display());
            }
            let processes = Command::new("pgrep").args(["-af", "--", id]).output()?;
            found += &String::from_utf8_lossy(&processes.stdout);
            let groups = Command::new("find")
                .args(["/sys/fs/cgroup", "-type", "d", "-name", id])
                .output()?;
            found += &String::from_utf8_lossy(&groups.stdout);
        }
        let spaces = fs::read_dir(
            self.directory()
                .join("state/io.containerd.grpc.v1.cri/netns"),
        );
        for space in spaces.into_iter().flatten() {
            found += &format!("{}\n", space?.path().display());
        }
        Ok(found)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // What a test that failed has left.
        let pods: Result<Ids> = self.call("ListPodSandbox", Empty {});
        for pod in pods.unwrap_or_default().items {
            let _: Result<Empty> = self.call("StopPodSandbox", pod.clone());
            let _: Result<Empty> = self.call("RemovePodSandbox", pod);
        }
        remove_cgroup(&self.cgroup);
    }
}

/// A pod that runs.
pub struct Pod<'a> {
    node: &'a Node,
    pub id: String,
    config: PodSandboxConfig,
}

impl Pod<'_> {
    /// What a container of the busybox image has; its log is `NAME.log`.
    pub fn config(&self, name: &str, script: &str) -> ContainerConfig {
        let options = self.config.linux.as_ref().and_then(|linux| {
            let security = linux.security_context.as_ref()?;
            security.namespace_options.clone()
        });
        ContainerConfig {
            metadata: Some(Metadata {
                name: name.to_owned(),
                ..Metadata::default()
            }),
            image: Some(ImageSpec {
                image: IMAGE.to_owned(),
            }),
            command: ["sh", "-c", script].map(str::to_owned).to_vec(),
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                resources: Some(Resources {
                    cpu_shares: 512,
                    ..Resources::default()
                }),
                security_context: Some(ContainerSecurity {
                    namespace_options: options,
                    ..ContainerSecurity::default()
                }),
            }),
            ..ContainerConfig::default()
        }
    }

    pub fn create(&self, config: ContainerConfig) -> Result<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let answer: Id = self.node.call("CreateContainer", request)?;
        Ok(answer.id)
    }

    pub fn start(&self, id: &str) -> Result<()> {
        self.on("StartContainer", id)
    }

    /// Creates and starts one.
    pub fn run(&self, config: ContainerConfig) -> Result<String> {
        let id = self.create(config)?;
        self.start(&id)?;
        Ok(id)
    }

    /// A call that takes an id and answers nothing.
    pub fn on(&self, method: &str, id: &str) -> Result<()> {
        let _: Empty = self.node.call(method, Id { id: id.to_owned() })?;
        Ok(())
    }

    pub fn stop(&self, id: &str, seconds: i64) -> Result<()> {
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: seconds,
        };
        let _: Empty = self.node.call("StopContainer", request)?;
        Ok(())
    }

    pub fn status(&self, id: &str) -> Result<ContainerStatus> {
        self.asked(id, false)?.status.context("no status")
    }

    /// Its process on the host.
    pub fn process(&self, id: &str) -> Result<PathBuf> {
        let answer = self.asked(id, true)?;
        let info = answer.info.get("info").context("no information")?;
        let info: serde_json::Value = serde_json::from_str(info)?;
        let pid = info["pid"].as_u64().context("no process")?;
        Ok(Path::new("/proc").join(pid.to_string()))
    }

    fn asked(&self, id: &str, verbose: bool) -> Result<ContainerStatusResponse> {
        let container_id = id.to_owned();
        let request = ContainerStatusRequest {
            container_id,
            verbose,
        };
        self.node.call("ContainerStatus", request)
    }

    /// Waits for its end; tells that as the kubelet sees it.
    pub fn end(&self, id: &str) -> Result<String> {
        await_that("its end", || Ok(self.status(id)?.state == 2))?;
        let status = self.status(id)?;
        ensure!(status.finished_at > 0, "{status:?}");
        Ok(format!("{} {}", status.exit_code, status.reason))
    }

    /// Output, errors and status of a command in a container.
    pub fn exec(&self, id: &str, script: &str) -> Result<String> {
        self.exec_within(id, script, 0)
    }

    /// The same, ended after so many seconds.
    pub fn exec_within(&self, id: &str, script: &str, seconds: i64) -> Result<String> {
        let request = ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: ["sh", "-c", script].map(str::to_owned).to_vec(),
            timeout: seconds,
        };
        let answer: ExecSyncResponse = self.node.call("ExecSync", request)?;
        Ok(format!(
            "{}|{}|{}",
            String::from_utf8_lossy(&answer.stdout),
            String::from_utf8_lossy(&answer.stderr),
            answer.exit_code
        ))
    }

    /// Waits until a command succeeds.
    pub fn await_exec(&self, id: &str, script: &str) -> Result<()> {
        await_that(script, || Ok(self.exec(id, script)?.ends_with("|0")))
    }

    pub fn log_file(&self, name: &str) -> PathBuf {
        Path::new(&self.config.log_directory).join(format!("{name}.log"))
    }

    /// A log's lines without their times: `stdout F text`, sorted, since nothing says which stream is first.
    pub fn log(&self, name: &str) -> Result<String> {
        let mut lines = Vec::new();
        for line in fs::read_to_string(self.log_file(name))?.lines() {
            let (time, rest) = line.split_once(' ').context("a line without a time")?;
            ensure!(
                time.contains('T') && (time.ends_with('Z') || time.contains('+')),
                "{time} is no time"
            );
            lines.push(rest.to_owned());
        }
        lines.sort();
        Ok(lines.join("; "))
    }

    /// What it answers to `PodSandboxStatus`.
    pub fn sandbox(&self) -> Result<PodSandboxStatus> {
        let request = Id {
            id: self.id.clone(),
        };
        let answer: PodSandboxStatusResponse = self.node.call("PodSandboxStatus", request)?;
        answer.status.context("no status")
    }

    /// Shims that serve it, and other processes with its id in their command line.
    pub fn shims(&self) -> Result<usize> {
        let pattern = format!("^[^ ]*containerd-shim.*{}", self.id);
        let found = Command::new("pgrep")
            .args(["-cf", "--", &pattern])
            .output()?;
        Ok(String::from_utf8(found.stdout)?.trim().parse()?)
    }
}
