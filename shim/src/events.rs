//! Events for containerd, in the order in which they happened.
//!
//! They go through one queue and one thread, which connects again when containerd was restarted. What cannot be
//! delivered for a minute is dropped: a containerd that comes back asks for the state of all tasks anyway.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::MessageDyn;
use containerd_shim::protos::shim::event::Envelope;
use containerd_shim::protos::shim::events::ForwardRequest;
use containerd_shim::protos::shim_sync::{Client, EventsClient};
use containerd_shim::protos::ttrpc::context;
use containerd_shim::util::{connect, convert_to_any, timestamp};
use containerd_shim::{Result, warn};

/// Events that may wait for containerd.
const QUEUE: usize = 2048;
/// How long an event is worth something.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long one delivery may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two attempts.
const RETRY: Duration = Duration::from_millis(500);

struct Queued {
    request: ForwardRequest,
    since: Instant,
}

#[derive(Default)]
struct Waiting {
    count: Mutex<usize>,
    changed: Condvar,
}

/// The way for events.
#[derive(Clone)]
pub struct Events {
    namespace: String,
    queue: SyncSender<Queued>,
    waiting: Arc<Waiting>,
}

impl Events {
    /// Starts the thread that delivers to containerd's ttrpc socket at `address`.
    pub fn start(address: String, namespace: String) -> Self {
        let (queue, events) = sync_channel(QUEUE);
        let waiting = Arc::new(Waiting::default());
        let own = waiting.clone();
        thread::spawn(move || deliver(&address, &events, &own));
        Self {
            namespace,
            queue,
            waiting,
        }
    }

    /// Queues an event.
    pub fn publish(&self, event: impl Event) {
        let topic = event.topic();
        let request = match self.envelope(&topic, Box::new(event)) {
            Ok(envelope) => ForwardRequest {
                envelope: Some(envelope).into(),
                ..ForwardRequest::default()
            },
            Err(error) => {
                warn!("cannot encode the event {topic}: {error}");
                return;
            }
        };
        self.waiting.add(1);
        let queued = Queued {
            request,
            since: Instant::now(),
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(queued)
        {
            self.waiting.done();
            warn!("too many events wait for containerd: {topic} is dropped");
        }
    }

    fn envelope(&self, topic: &str, event: Box<dyn MessageDyn>) -> Result<Envelope> {
        Ok(Envelope {
            timestamp: Some(timestamp()?).into(),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(convert_to_any(event)?).into(),
            ..Envelope::default()
        })
    }

    /// Waits until all events are delivered, but not longer than `limit`.
    pub fn flush(&self, limit: Duration) {
        let count = self.waiting.lock();
        let _ = self
            .waiting
            .changed
            .wait_timeout_while(count, limit, |count| *count > 0);
    }
}

impl Waiting {
    fn lock(&self) -> std::sync::MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, number: usize) {
        *self.lock() += number;
    }

    fn done(&self) {
        *self.lock() -= 1;
        self.changed.notify_all();
    }
}

fn deliver(address: &str, events: &Receiver<Queued>, waiting: &Waiting) {
    let mut client = None;
    for event in events {
        loop {
            // Of a connection that was good once, the next attempt may tell more.
            let had_connection = client.is_some();
            match forward(address, &mut client, &event.request) {
                Ok(()) => break,
                Err(error) if event.since.elapsed() > LIFETIME => {
                    warn!("containerd does not take an event: {error}");
                    break;
                }
                Err(_) => {
                    client = None;
                    if !had_connection {
                        thread::sleep(RETRY);
                    }
                }
            }
        }
        waiting.done();
    }
}

fn forward(
    address: &str,
    client: &mut Option<EventsClient>,
    request: &ForwardRequest,
) -> Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(EventsClient::new(Client::new(connect(address)?)?)),
    };
    client.forward(context::with_duration(PATIENCE), request)?;
    Ok(())
}
