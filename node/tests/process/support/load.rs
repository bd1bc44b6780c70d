//! A steady load of reads, writes and deletes by the client library, from several tasks, that keeps [`Books`].

use super::books::{Books, Write, text};
use quorate_client::{
    Attempts, Client, ClientConfig, Context, Error, IntoValue, Key, Operation, ReadOptions, Reply, Versioned,
    WriteOptions,
};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tasks that read and write.
const WORKERS: usize = 6;
/// Keys that they share: few, so that siblings happen.
const KEYS: usize = 24;
/// Between two operations of a worker: a steady load, not as much as goes.
const PAUSE: Duration = Duration::from_millis(4);
/// Unless a test says otherwise.
const BUCKET: &str = "load";

/// A load that runs.
pub(crate) struct Load {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    bucket: &'static str,
    books: Mutex<Books>,
    stop: AtomicBool,
}

impl Load {
    /// Starts it, on a thread and a runtime of its own.
    pub(crate) fn start(config: PathBuf) -> Load {
        Load::start_in(BUCKET, config)
    }

    /// Starts it in some bucket.
    pub(crate) fn start_in(bucket: &'static str, config: PathBuf) -> Load {
        let books = Books::of(bucket);
        let shared = Arc::new(Shared {
            bucket,
            books: Mutex::new(books),
            stop: AtomicBool::new(false),
        });
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || {
            super::runtime().block_on(async {
                let client = Client::connect(ClientConfig::from_file(config).unwrap()).await.unwrap();
                let work = |worker| tokio::spawn(work(client.clone(), worker, theirs.clone()));
                for worker in Vec::from_iter((0..WORKERS).map(work)) {
                    worker.await.unwrap();
                }
            });
        });
        Load {
            shared,
            thread: Some(thread),
        }
    }

    /// Acknowledged writes so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.shared.books.lock().unwrap().acknowledged()
    }

    /// Lets it go on until so many more writes are acknowledged.
    pub(crate) fn wait_for_more(&self, writes: usize) {
        let goal = self.acknowledged() + writes;
        super::eventually("more acknowledged writes", || {
            (self.acknowledged() >= goal).then_some(())
        });
    }

    /// Lets it go on for some time: for what only time brings, like the end of an idle timeout.
    pub(crate) fn keep_up_for(&self, time: Duration) {
        let until = Instant::now() + time;
        super::eventually("the time to pass", || (Instant::now() >= until).then_some(()));
    }

    /// Ends it; operations under way end first.
    pub(crate) fn finish(mut self) -> Books {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread
            .take()
            .expect("it runs")
            .join()
            .expect("the load does not panic");
        self.shared.books.lock().unwrap().clone()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

async fn work(client: Client, worker: usize, shared: Arc<Shared>) {
    let bucket = client.bucket(shared.bucket);
    for turn in 0.. {
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let key = key_name(worker * 5 + turn * 7);
        let started = Instant::now();
        let found = bucket.get(&key).await;
        let took = started.elapsed();
        match found {
            Err(error) => shared.books.lock().unwrap().failed(format!("get {key}: {error}")),
            Ok(found) => {
                let shown = found.values.iter().map(|value| text(&value.body)).collect();
                shared.books.lock().unwrap().read(&key, &shown, took);
                write(&client, &shared, (worker, turn), key, shown, found).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Writes after a read. Now and then somebody writes without looking, and somebody deletes.
async fn write(
    client: &Client,
    shared: &Shared,
    (worker, turn): (usize, usize),
    key: String,
    shown: Vec<String>,
    found: Versioned,
) {
    let id = format!("{worker}.{turn}");
    let context = found.context.filter(|_| turn % 8 != 5);
    let delete = turn % 16 == 9 && context.is_some() && !shown.is_empty();
    let covers = context.as_ref().map(|_| shown).unwrap_or_default();
    shared
        .books
        .lock()
        .unwrap()
        .begin(&id, Write::new(&key, delete, covers));
    let started = Instant::now();
    let result = send(client, (shared.bucket, &key), &id, context, delete).await;
    shared
        .books
        .lock()
        .unwrap()
        .end(&id, result.map(|(_, attempts)| attempts.sent == 1), started.elapsed());
}

/// One write, and what it took.
async fn send(
    client: &Client,
    (bucket, key): (&str, &str),
    id: &str,
    context: Option<Context>,
    delete: bool,
) -> Result<(Reply, Attempts), Error> {
    let key = Key::new(bucket.as_bytes(), key.as_bytes(), None)?;
    let context = context.map(|context| context.as_bytes().clone());
    let (request, options) = (client.request_id(), WriteOptions::default());
    let operation = match delete {
        true => Operation::Delete {
            key,
            context,
            request,
            retry: false,
            options,
        },
        false => Operation::Put {
            key,
            context,
            value: id.into_value(),
            request,
            retry: false,
            options,
        },
    };
    client.execute(operation, client.patience().operation).await
}

/// The keys that a load works on.
pub(crate) fn keys() -> impl Iterator<Item = String> {
    (0..KEYS).map(key_name)
}

fn key_name(at: usize) -> String {
    format!("key-{}", at % KEYS)
}

impl Books {
    /// Reads everything from all owners, and holds it against the books.
    pub(crate) fn audit(&self, client: &Client, runtime: &tokio::runtime::Runtime) {
        let all = ReadOptions {
            r: Some(3),
            ..ReadOptions::default()
        };
        let bucket = client.bucket(self.bucket).with_read_options(all);
        let found = keys().flat_map(|key| {
            let found = runtime.block_on(bucket.get(&key)).unwrap();
            found
                .values
                .into_iter()
                .map(move |value| (key.clone(), text(&value.body)))
        });
        self.check(found.collect());
    }
}
