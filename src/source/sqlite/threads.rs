//! Threads that own SQLite connections, and lanes of work to them.
//!
//! Must not know: what the work is.
//!
//! A lane has as many places as its threads can take; whoever finds none free waits, for a limited time. A job that takes
//! too long, or whose caller is gone, is interrupted between two steps of SQLite's virtual machine, and while it waits
//! for another process' lock.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::cannot_open;
use crate::source::backend::PoolState;
use crate::source::error::SourceError;

/// Steps of the virtual machine between two looks at the clock: some microseconds.
const STEPS_PER_LOOK: i32 = 1000;
/// Statements that a connection remembers.
const REMEMBERED_STATEMENTS: usize = 256;
/// Longest sleep between two attempts to get a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// What all connections of a file share.
#[derive(Debug)]
pub(super) struct Settings {
    pub path: PathBuf,
    pub statement_timeout: Duration,
    pub wait_timeout: Duration,
}

/// When the job that runs must end.
#[derive(Debug, Clone)]
struct Limit {
    until: Instant,
    abandoned: Arc<AtomicBool>,
}

impl Limit {
    fn is_over(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed) || Instant::now() >= self.until
    }
}

type Current = Arc<Mutex<Option<Limit>>>;
type Job = Box<dyn FnOnce(&mut Session) + Send>;

/// Threads with a connection each. Clones share them; they end when the last clone is gone.
#[derive(Debug, Clone)]
pub(super) struct Threads {
    jobs: Arc<Mutex<Option<Sender<Job>>>>,
    settings: Arc<Settings>,
}

impl Threads {
    /// Starts `count` threads. Connections are opened when they are first needed.
    pub fn start(settings: &Arc<Settings>, reading: bool, count: usize) -> Result<Self, SourceError> {
        let (jobs, receiver) = channel::<Job>();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..count.max(1) {
            let (receiver, settings) = (receiver.clone(), settings.clone());
            let session = Session { settings, reading, connection: None, current: Current::default() };
            std::thread::Builder::new()
                .name("sqlite".into())
                .spawn(move || serve(session, &receiver))
                .map_err(|error| SourceError::unavailable(format!("cannot start a thread: {error}")))?;
        }
        Ok(Self { jobs: Arc::new(Mutex::new(Some(jobs))), settings: settings.clone() })
    }

    fn submit(&self, job: Job) -> Result<(), SourceError> {
        let closed = SourceError::closed;
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.as_ref().ok_or_else(closed)?.send(job).map_err(|_| closed())
    }
}

fn serve(mut session: Session, jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while waiting: the other threads wait for it instead of for a job.
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(|| job(&mut session))).is_err() {
            tracing::error!("a panic in a SQLite job; its connection is opened anew");
            session.connection = None;
        }
    }
}

/// The connection of one thread.
struct Session {
    settings: Arc<Settings>,
    reading: bool,
    connection: Option<Connection>,
    current: Current,
}

impl Session {
    fn run<T>(
        &mut self,
        limit: Limit,
        work: impl FnOnce(&mut Connection) -> Result<T, SourceError>,
    ) -> Result<T, SourceError> {
        let timeout = self.settings.statement_timeout;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(limit);
        let result = match self.connected() {
            Ok(connection) => {
                let result = work(connection);
                if !connection.is_autocommit() && connection.execute_batch("rollback").is_err() {
                    self.connection = None;
                }
                result
            }
            Err(error) => Err(error),
        };
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match result {
            Err(SourceError::Unavailable { code: Some(code), .. }) if code == "57014" => {
                let message = format!("no answer within {timeout:?} (SQLSTATE {code})");
                Err(SourceError::Unavailable { message, code: Some(code) })
            }
            // Input or output failed, or the file is broken: the next job looks at the file anew.
            Err(error) if matches!(error.code(), Some("58030" | "XX001" | "53100")) => {
                self.connection = None;
                Err(error)
            }
            result => result,
        }
    }

    fn connected(&mut self) -> Result<&mut Connection, SourceError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        Ok(self.connection.insert(connection))
    }

    fn open(&self) -> Result<Connection, SourceError> {
        let path = &self.settings.path;
        let failed = |error: rusqlite::Error| match SourceError::from(error) {
            SourceError::Unavailable { message, code } => {
                let message = format!("{}: {message}", path.display());
                SourceError::Unavailable { message, code }
            }
            error => cannot_open(path, error),
        };
        // Only the writer creates the file: a reader must not find an empty one where a full one was.
        let mut flags = OpenFlags::default();
        flags.set(OpenFlags::SQLITE_OPEN_CREATE, !self.reading);
        let mut connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        let current = self.current.clone();
        let over = move || {
            let current = current.lock().unwrap_or_else(PoisonError::into_inner);
            current.as_ref().is_some_and(Limit::is_over)
        };
        let locked = over.clone();
        connection.progress_handler(STEPS_PER_LOOK, Some(over)).map_err(failed)?;
        connection
            .busy_handler(Some(move |attempt: i32| {
                let again = !locked();
                if again {
                    std::thread::sleep(LOCK_POLL.min(Duration::from_millis(1 << attempt.clamp(0, 8))));
                }
                again
            }))
            .map_err(failed)?;
        connection.set_prepared_statement_cache_capacity(REMEMBERED_STATEMENTS);
        if self.reading {
            connection.execute_batch("pragma query_only = on").map_err(failed)?;
        } else {
            // A file that cannot be written can still be read: writes will say what is wrong.
            let _ = connection.execute_batch("pragma journal_mode = wal");
            // A commit is on the disk when it is answered.
            connection
                .execute_batch("pragma synchronous = full; pragma foreign_keys = on")
                .map_err(failed)?;
        }
        Ok(connection)
    }
}

/// One kind of work for some threads, with a limited number of places.
#[derive(Debug)]
pub(super) struct Lane {
    name: &'static str,
    threads: Threads,
    places: Arc<Semaphore>,
    max: usize,
    waiting: AtomicUsize,
    waited_us: AtomicU64,
    served: AtomicU64,
}

/// Tells a job that nobody waits for it any more.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Lane {
    pub fn new(name: &'static str, threads: Threads, places: usize) -> Arc<Self> {
        let max = places.max(1);
        Arc::new(Self {
            name,
            threads,
            places: Arc::new(Semaphore::new(max)),
            max,
            waiting: AtomicUsize::new(0),
            waited_us: AtomicU64::new(0),
            served: AtomicU64::new(0),
        })
    }

    /// Runs `work` on one of the threads. Dropping the future interrupts it; a transaction that it leaves open is rolled
    /// back.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let place = self.place().await?;
        let abandoned = Arc::new(AtomicBool::new(false));
        let _abandon = Abandon(abandoned.clone());
        let (answer, answered) = oneshot::channel();
        let timeout = self.threads.settings.statement_timeout;
        self.threads.submit(Box::new(move |session| {
            let limit = Limit { until: Instant::now() + timeout, abandoned };
            let result = session.run(limit, work);
            drop(place);
            // Nobody may be there any more.
            let _ = answer.send(result);
        }))?;
        answered.await.unwrap_or_else(|_| Err(SourceError::unavailable("the database thread broke off")))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, SourceError> {
        struct Waiting<'l>(&'l AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let asked = Instant::now();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        let limit = self.threads.settings.wait_timeout;
        let place = tokio::time::timeout(limit, self.places.clone().acquire_owned()).await;
        drop(waiting);
        self.waited_us.fetch_add(asked.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.served.fetch_add(1, Ordering::Relaxed);
        match place {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(SourceError::closed()),
            Err(_) => Err(SourceError::pool_busy()),
        }
    }

    pub fn state(&self) -> PoolState {
        PoolState {
            name: self.name,
            size: self.max,
            max: self.max,
            in_use: self.max.saturating_sub(self.places.available_permits()),
            waiting: self.waiting.load(Ordering::Relaxed),
            waited: Duration::from_micros(self.waited_us.load(Ordering::Relaxed)),
            served: self.served.load(Ordering::Relaxed),
        }
    }

    /// No more work; the threads end after what they have.
    pub fn close(&self) {
        self.places.close();
        self.threads.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
