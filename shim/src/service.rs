//! The Task service: what containerd asks (`containerd.task.v2.Task`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use containerd_shim::protos::events::task::{TaskCreate, TaskDelete, TaskIO};
use containerd_shim::protos::shim::oci::ProcessDetails;
use containerd_shim::protos::types::task::ProcessInfo;
use containerd_shim::util::convert_to_any;
use containerd_shim::{ExitSignal, Task, TtrpcContext, TtrpcResult, info};

use crate::container::Container;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::husk::Husk;
use crate::options::Options;
use crate::process::timestamp;
use crate::reaper::Reaper;
use crate::rootfs;
use crate::stdio::Paths;

/// Containers by their ids; none for one that is being created.
type Containers = HashMap<String, Option<Arc<Container>>>;

/// Serves containerd.
pub struct Service {
    namespace: String,
    events: Events,
    reaper: Arc<Reaper>,
    exit: Arc<ExitSignal>,
    containers: Mutex<Containers>,
}

impl Service {
    /// A service without containers, which raises `exit` when it is no longer needed.
    pub fn new(
        namespace: String,
        events: Events,
        reaper: Arc<Reaper>,
        exit: Arc<ExitSignal>,
    ) -> Self {
        Self {
            namespace,
            events,
            reaper,
            exit,
            containers: Mutex::default(),
        }
    }

    fn containers(&self) -> MutexGuard<'_, Containers> {
        self.containers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn container(&self, id: &str) -> Result<Arc<Container>> {
        self.containers()
            .get(id)
            .cloned()
            .flatten()
            .ok_or_else(|| Error::NotFound(format!("container {id} does not exist")))
    }

    fn make(&self, request: &CreateTaskRequest) -> Result<Arc<Container>> {
        if !request.checkpoint.is_empty() {
            return Err(Error::Unimplemented("restoring a checkpoint"));
        }
        let bundle = PathBuf::from(&request.bundle);
        let options = Options::of(request.options.as_ref())?;
        options.keep(&bundle)?;
        let paths = Paths {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let owner = (options.io_uid, options.io_gid);
        let husk = Husk::new(
            &options,
            &self.namespace,
            &request.id,
            &bundle,
            self.reaper.clone(),
        );
        rootfs::mount(&bundle, &request.rootfs, &self.reaper)?;
        let create = || Container::create(husk.clone(), paths.clone(), owner, self.events.clone());
        let mut made = create();
        if let Err(Error::Runtime { message, .. }) = &made
            && message.contains("already exists")
        {
            // Left by a shim that died in the middle of this: ids are containerd's, nobody else's. The failed
            // attempt has removed it.
            info!(
                "{}: what was left of an earlier one is replaced",
                request.id
            );
            made = create();
        }
        made.inspect_err(|_| {
            let _ = rootfs::unmount(&bundle);
        })
    }

    fn create_task(&self, request: CreateTaskRequest) -> Result<CreateTaskResponse> {
        {
            let mut containers = self.containers();
            if containers.contains_key(&request.id) {
                let id = &request.id;
                return Err(Error::Exists(format!("container {id} exists already")));
            }
            containers.insert(request.id.clone(), None);
        }
        let made = self.make(&request);
        let mut containers = self.containers();
        let container = match made {
            Ok(container) => container,
            Err(error) => {
                containers.remove(&request.id);
                return Err(error);
            }
        };
        let pid = container.process("")?.pid().cast_unsigned();
        self.events.publish(TaskCreate {
            container_id: request.id.clone(),
            bundle: request.bundle,
            rootfs: request.rootfs,
            io: Some(TaskIO {
                stdin: request.stdin,
                stdout: request.stdout,
                stderr: request.stderr,
                terminal: request.terminal,
                ..TaskIO::default()
            })
            .into(),
            checkpoint: request.checkpoint,
            pid,
            ..TaskCreate::default()
        });
        container.attend();
        containers.insert(request.id, Some(container));
        Ok(CreateTaskResponse {
            pid,
            ..CreateTaskResponse::default()
        })
    }

    fn state_of(&self, request: &StateRequest) -> Result<StateResponse> {
        let container = self.container(&request.id)?;
        let process = container.process(&request.exec_id)?;
        let exit = process.exit();
        Ok(StateResponse {
            id: request.id.clone(),
            bundle: container.bundle().display().to_string(),
            pid: process.pid().cast_unsigned(),
            status: process.status(container.is_paused()).into(),
            stdin: process.paths.stdin.clone(),
            stdout: process.paths.stdout.clone(),
            stderr: process.paths.stderr.clone(),
            terminal: process.paths.terminal,
            exit_status: exit.map_or(0, |exit| exit.status),
            exited_at: exit.map(timestamp).into(),
            exec_id: request.exec_id.clone(),
            ..StateResponse::default()
        })
    }

    fn delete_process(&self, request: &DeleteRequest) -> Result<DeleteResponse> {
        let container = self.container(&request.id)?;
        let (pid, exit) = container.delete(&request.exec_id)?;
        let pid = pid.cast_unsigned();
        if request.exec_id.is_empty() {
            self.containers().remove(&request.id);
            self.events.publish(TaskDelete {
                container_id: request.id.clone(),
                pid,
                exit_status: exit.status,
                exited_at: Some(timestamp(exit)).into(),
                ..TaskDelete::default()
            });
        }
        Ok(DeleteResponse {
            pid,
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..DeleteResponse::default()
        })
    }

    fn pids_of(&self, id: &str) -> Result<PidsResponse> {
        let processes = self
            .container(id)?
            .pids()?
            .into_iter()
            .map(|(pid, exec_id)| {
                let details = exec_id.map(|exec_id| {
                    convert_to_any(Box::new(ProcessDetails {
                        exec_id,
                        ..ProcessDetails::default()
                    }))
                });
                Ok(ProcessInfo {
                    pid,
                    info: details.transpose()?.into(),
                    ..ProcessInfo::default()
                })
            })
            .collect::<Result<_>>()?;
        Ok(PidsResponse {
            processes,
            ..PidsResponse::default()
        })
    }

    fn stats_of(&self, id: &str) -> Result<StatsResponse> {
        let container = self.container(id)?;
        let no_cgroup = || Error::NotFound("the container has no control group".to_owned());
        if container.process("")?.exit().is_some() {
            return Err(no_cgroup());
        }
        let cgroup = container.cgroup().ok_or_else(no_cgroup)?;
        let stats = crate::metrics::collect(cgroup, container.guest_pids())?;
        Ok(StatsResponse {
            stats: Some(stats).into(),
            ..StatsResponse::default()
        })
    }

    fn shut_down(&self) {
        if self.containers().is_empty() {
            info!("no task is left");
            self.exit.signal();
        }
    }
}

/// The answer to what has none.
fn done(result: Result<()>) -> TtrpcResult<Empty> {
    result?;
    Ok(Empty::new())
}

impl Task for Service {
    fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        Ok(self.state_of(&request)?)
    }

    fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> TtrpcResult<CreateTaskResponse> {
        Ok(self.create_task(request)?)
    }

    fn start(&self, _: &TtrpcContext, request: StartRequest) -> TtrpcResult<StartResponse> {
        let pid = self.container(&request.id)?.start(&request.exec_id)?;
        Ok(StartResponse {
            pid,
            ..StartResponse::default()
        })
    }

    fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        Ok(self.delete_process(&request)?)
    }

    fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        Ok(self.pids_of(&request.id)?)
    }

    fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> TtrpcResult<Empty> {
        done(self.container(&request.id)?.pause(true))
    }

    fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> TtrpcResult<Empty> {
        done(self.container(&request.id)?.pause(false))
    }

    fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> TtrpcResult<Empty> {
        done(Err(Error::Unimplemented("checkpoint")))
    }

    fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        let container = self.container(&request.id)?;
        done(container.kill(&request.exec_id, request.signal, request.all))
    }

    fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> TtrpcResult<Empty> {
        let container = self.container(&request.id)?;
        let spec = request.spec.into_option().unwrap_or_default().value;
        let paths = Paths {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        done(container.add(&request.exec_id, paths, spec))
    }

    fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> TtrpcResult<Empty> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        done(process.resize(request.width, request.height))
    }

    fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> TtrpcResult<Empty> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        if request.stdin {
            process.close_input();
        }
        done(Ok(()))
    }

    fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> TtrpcResult<Empty> {
        let container = self.container(&request.id)?;
        let resources = request.resources.into_option().unwrap_or_default();
        done(container.update(&resources.value))
    }

    fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let process = self.container(&request.id)?.process(&request.exec_id)?;
        let exit = process.wait();
        Ok(WaitResponse {
            exit_status: exit.status,
            exited_at: Some(timestamp(exit)).into(),
            ..WaitResponse::default()
        })
    }

    fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> TtrpcResult<StatsResponse> {
        Ok(self.stats_of(&request.id)?)
    }

    fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> TtrpcResult<ConnectResponse> {
        let first = self
            .container(&request.id)
            .and_then(|container| container.process(""));
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: first.map_or(0, |process| process.pid().cast_unsigned()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..ConnectResponse::default()
        })
    }

    fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> TtrpcResult<Empty> {
        self.shut_down();
        done(Ok(()))
    }
}
