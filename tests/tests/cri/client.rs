//! The runtime and image services of a containerd, as the kubelet calls them.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, anyhow};
use prost::Message;
use tokio::runtime::{Builder, Runtime};
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

/// How long a call may take, on a machine under load.
const LIMIT: Duration = Duration::from_secs(120);

/// A connection, made when the first call needs it and again when it broke.
pub struct Client {
    runtime: Runtime,
    channel: Channel,
}

impl Client {
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?.timeout(LIMIT);
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok(Self { runtime, channel })
    }

    /// Calls a method, as `RuntimeService/Version`. Its error is gRPC's code and what containerd says.
    pub fn call<Q, A>(&self, method: &str, request: Q) -> Result<A>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::try_from(format!("/runtime.v1.{method}"))?;
        let answer = self.runtime.block_on(async {
            let mut service = Grpc::new(self.channel.clone());
            service.ready().await?;
            let codec = ProstCodec::<Q, A>::default();
            Ok::<_, anyhow::Error>(service.unary(Request::new(request), path, codec).await)
        })?;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| anyhow!("{method}: {:?}: {}", status.code(), status.message()))
    }
}
