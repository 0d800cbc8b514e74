//! Commands of the program itself: each is a client of the core without a socket.
//!
//! Must not know: what the commands are for.

use super::Worker;
use crate::cluster::{Call, Calls, Job, Origin, Served};
use crate::core::Kind;
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use tokio::sync::{mpsc, oneshot};

/// Jobs that are taken in one turn of the event loop.
const JOBS_AT_ONCE: usize = 64;

/// Who waits for the reply of a call.
pub(super) enum Waiting {
    One(oneshot::Sender<(Bytes, Served)>),
    /// The many, and the position among them.
    Many(Rc<RefCell<Many>>, usize),
}

/// Replies that go back together. Dropped unfinished (the worker ends), it tells its caller by hanging up.
pub(super) struct Many {
    replies: Vec<Bytes>,
    missing: usize,
    reply: Option<oneshot::Sender<Vec<Bytes>>>,
}

impl Waiting {
    pub(super) fn answer(self, reply: Bytes, served: Served) {
        match self {
            // Nobody may be waiting any more.
            Self::One(waiting) => drop(waiting.send((reply, served))),
            Self::Many(many, at) => many.borrow_mut().answer(at, reply),
        }
    }
}

impl Many {
    fn answer(&mut self, at: usize, reply: Bytes) {
        if let Some(place) = self.replies.get_mut(at) {
            *place = reply;
        }
        self.missing -= 1;
        if self.missing == 0
            && let Some(waiting) = self.reply.take()
        {
            let _ = waiting.send(std::mem::take(&mut self.replies));
        }
    }
}

impl Worker {
    /// Runs a job, and those that came with it: their requests leave together.
    pub(super) fn jobs(&mut self, first: Job, queue: &mut mpsc::Receiver<Job>) {
        self.clock();
        self.job(first);
        for _ in 0..JOBS_AT_ONCE {
            let Ok(job) = queue.try_recv() else { break };
            self.job(job);
        }
        self.settle();
    }

    fn job(&mut self, job: Job) {
        match job {
            Job::One(Call { origin, request, reply }) => self.call(origin, &request, Waiting::One(reply)),
            Job::Many(Calls { origin, requests, reply }) => {
                let missing = requests.len();
                let many = Many { replies: vec![Bytes::new(); missing], missing, reply: Some(reply) };
                let many = Rc::new(RefCell::new(many));
                for (at, request) in requests.iter().enumerate() {
                    self.call(origin, request, Waiting::Many(many.clone(), at));
                }
            }
        }
    }

    fn call(&mut self, origin: Origin, request: &[u8], waiting: Waiting) {
        let kind = match origin {
            Origin::Client => Kind::Call,
            Origin::Internal => Kind::Internal,
        };
        let key = self.core.add_client(kind, None);
        self.calls.insert(key.serial, waiting);
        self.core.client_data(key, request);
    }
}
