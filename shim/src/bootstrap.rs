//! The commands containerd runs: `start`, which finds or makes the process that serves, and `delete`, which clears up
//! after one that died.

use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use containerd_shim::api::DeleteResponse;
use containerd_shim::cgroup::{add_task_to_cgroup, adjust_oom_score};
use containerd_shim::protos::protobuf::Message;
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::util::{read_pid_from_file, write_address};
use containerd_shim::{
    Config, ExitSignal, Flags, Result, Shim, StartOpts, info, socket_address, spawn, warn,
};
use serde_json::Value;

use crate::events::Events;
use crate::husk::{Husk, INIT_PID};
use crate::options::Options;
use crate::reaper::Reaper;
use crate::rootfs;
use crate::service::Service;

/// Containers with the same value share one shim: those of a pod.
const GROUPING: &str = "io.kubernetes.cri.sandbox-id";
/// containerd's socket for events.
const TTRPC_ADDRESS: &str = "TTRPC_ADDRESS";
/// In the bundle: where the shim serves.
const ADDRESS: &str = "address";
/// Status of what was killed.
const KILLED: u32 = 137;
/// How long the last events may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// One call of this program.
pub struct HuskShim {
    namespace: String,
    id: String,
    bundle: PathBuf,
    socket: PathBuf,
    exit: Arc<ExitSignal>,
    events: Events,
}

fn socket_path(address: &str) -> &Path {
    Path::new(address.strip_prefix("unix://").unwrap_or(address))
}

/// Whether somebody serves there; a socket nobody serves is removed.
fn is_served(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                let _ = fs::remove_file(path);
            }
            false
        }
    }
}

/// The name of the group the bundle's container belongs to.
fn grouping(config: &[u8], id: &str) -> String {
    let spec: Value = serde_json::from_slice(config).unwrap_or_default();
    spec["annotations"][GROUPING]
        .as_str()
        .filter(|group| !group.is_empty())
        .unwrap_or(id)
        .to_owned()
}

/// The options in what containerd gives to `start`: an `Any`, or nothing, or from containerd 2.3 something else that
/// is of no use here.
fn start_options(input: &[u8]) -> Options {
    Any::parse_from_bytes(input)
        .ok()
        .and_then(|any| Options::of(Some(&any)).ok())
        .unwrap_or_default()
}

impl Shim for HuskShim {
    type T = Service;

    fn new(_: &str, flags: &Flags, _: &mut Config) -> Self {
        let bundle = match flags.bundle.as_str() {
            "" => std::env::current_dir().unwrap_or_default(),
            bundle => PathBuf::from(bundle),
        };
        let address = std::env::var(TTRPC_ADDRESS).unwrap_or_default();
        Self {
            namespace: flags.namespace.clone(),
            id: flags.id.clone(),
            bundle,
            socket: socket_path(&flags.socket).to_owned(),
            exit: Arc::default(),
            events: Events::start(address, flags.namespace.clone()),
        }
    }

    fn start_shim(&mut self, opts: StartOpts) -> Result<String> {
        let config = fs::read("config.json").unwrap_or_default();
        let group = grouping(&config, &opts.id);
        let address = socket_address(&opts.address, &opts.namespace, &group);
        if !is_served(socket_path(&address)) {
            let mut input = Vec::new();
            let _ = io::stdin().read_to_end(&mut input);
            let (pid, _) = spawn(opts, &group, Vec::new())?;
            let options = start_options(&input);
            if !options.shim_cgroup.is_empty() {
                add_task_to_cgroup(&options.shim_cgroup, pid)?;
            }
            // It may be more than this host allows, as in a container.
            let _ = adjust_oom_score(pid);
        }
        write_address(&address)?;
        Ok(address)
    }

    fn delete_shim(&mut self) -> Result<DeleteResponse> {
        let reaper = Reaper::start().map_err(|err| containerd_shim::Error::IoError {
            context: "start the reaper".to_owned(),
            err,
        })?;
        let pid = read_pid_from_file(&self.bundle.join(INIT_PID)).unwrap_or(0);
        let options = Options::kept(&self.bundle);
        Husk::new(&options, &self.namespace, &self.id, &self.bundle, reaper).delete_forced();
        if let Err(error) = rootfs::unmount(&self.bundle) {
            warn!("cannot unmount the root of {}: {error}", self.id);
        }
        if let Ok(address) = fs::read_to_string(self.bundle.join(ADDRESS)) {
            // One that still serves the other containers of a pod keeps its socket.
            is_served(socket_path(address.trim()));
        }
        Ok(DeleteResponse {
            pid: pid.cast_unsigned(),
            exit_status: KILLED,
            exited_at: Some(SystemTime::now().into()).into(),
            ..DeleteResponse::default()
        })
    }

    fn wait(&mut self) {
        self.exit.wait();
        self.events.flush(GOODBYE);
        info!("the shim ends");
        // Not left to the library, which looks the address up in the bundle: that may be gone, or another shim's
        // socket may have taken the place of this one's.
        let _ = fs::remove_file(&self.socket);
        std::process::exit(0);
    }

    fn create_task_service(&self, _: RemotePublisher) -> Service {
        let reaper = match Reaper::start() {
            Ok(reaper) => reaper,
            Err(error) => {
                warn!("cannot start the reaper: {error}");
                std::process::exit(1);
            }
        };
        Service::new(
            self.namespace.clone(),
            self.events.clone(),
            reaper,
            self.exit.clone(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn containers_of_a_pod_share_a_shim() {
        let config = br#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
        assert_eq!(grouping(config, "c"), "pod");
        assert_eq!(grouping(b"{}", "c"), "c");
        assert_eq!(grouping(b"not JSON", "c"), "c");
    }

    #[test]
    fn sockets_nobody_serves_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        assert!(!is_served(&path));
        let listener = UnixListener::bind(&path).unwrap();
        assert!(is_served(&path));
        drop(listener);
        assert!(!is_served(&path));
        assert!(!path.exists());
    }

    #[test]
    fn what_start_is_given() {
        assert_eq!(start_options(b""), Options::default());
        assert_eq!(start_options(b"\xff\xffno protobuf"), Options::default());
        let runc = containerd_shim::api::Options {
            shim_cgroup: "/shims".to_owned(),
            ..Default::default()
        };
        let any = Any {
            type_url: "containerd.runc.v1.Options".to_owned(),
            value: runc.write_to_bytes().unwrap(),
            ..Any::default()
        };
        let options = start_options(&any.write_to_bytes().unwrap());
        assert_eq!(options.shim_cgroup, "/shims");
    }
}
