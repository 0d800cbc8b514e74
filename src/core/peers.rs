//! Questions that concern the clients of all workers, and their answers.
//!
//! Must not know: what a question is for.
//!
//! A worker owns its clients, so it is asked rather than looked into. The request that asks keeps its place in its
//! client's order until the last worker has answered; a worker always does, until the process ends.

use super::client::{Begun, Client, Slot};
use super::local::{Filter, describe};
use super::{ClientKey, Core, Kind, Route};
use crate::command::Command;
use std::collections::HashMap;

/// From one worker to another.
#[derive(Debug)]
pub struct Note {
    from: usize,
    number: u64,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Question(Question),
    Answer(Answer),
    /// A line for a client that looks on.
    Shown(ClientKey, Vec<u8>),
    /// Whether anybody looks on has changed.
    Look,
}

/// What a worker is asked about its clients.
#[derive(Clone, Debug)]
pub(super) enum Question {
    /// Describe those that fit, a line each.
    List(Filter),
    /// Close those that fit.
    Kill(Filter),
    /// Let the client with this id go on, if it blocks.
    Unblock {
        /// Its id.
        id: u64,
        /// With an error, instead of as if its time were over.
        error: bool,
    },
    /// Look at the users again, who have changed.
    Rules {
        /// Id of the client that asks.
        asker: u64,
        /// How many are gone: counted once, where the client is.
        deleted: u64,
    },
    /// Learn that somebody looks on.
    Monitors,
    /// Learn what is held.
    Pause,
}

/// Answers of all workers, added up.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The lines, by client id.
    pub lines: Vec<(u64, String)>,
    /// How many clients it was true for.
    pub count: u64,
}

/// Writes the reply, in the dialect of the client.
pub(super) type Finish = fn(Answer, u8, &mut Vec<u8>);

/// Questions whose answers are not all here.
#[derive(Debug, Default)]
pub(super) struct Asked {
    next: u64,
    open: HashMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    client: ClientKey,
    seq: u32,
    left: usize,
    answer: Answer,
    finish: Finish,
}

impl Core {
    /// Asks all workers, this one first, and answers the client with what `finish` makes of it.
    pub(super) fn ask_all(
        &mut self,
        index: usize,
        command: &'static Command,
        question: &Question,
        finish: Finish,
    ) {
        let here = self.options.about.worker;
        let answer = self.answer_question(question);
        let others = (0..self.process.peers()).filter(|worker| *worker != here);
        let at = self.now;
        let Some(client) = self.clients.get_mut(index) else { return };
        let key = ClientKey { index: index as u32, serial: client.serial };
        let seq = client.open(Slot::Waiting(Begun { at, command: command.id }));
        self.stats.inflight.add(1);
        let number = self.asked.next;
        self.asked.next += 1;
        let left = others.clone().count();
        let open = Open { client: key, seq, left, answer, finish };
        if left == 0 {
            return self.finish_question(open);
        }
        self.asked.open.insert(number, open);
        for worker in others {
            let content = Content::Question(question.clone());
            self.process.tell(worker, Note { from: here, number, content });
        }
    }

    /// Another worker asks, or answers.
    pub fn note(&mut self, note: Note) {
        match note.content {
            Content::Question(question) => {
                let answer = self.answer_question(&question);
                let from = self.options.about.worker;
                let answer = Note { from, number: note.number, content: Content::Answer(answer) };
                self.process.tell(note.from, answer);
            }
            Content::Answer(answer) => {
                let Some(open) = self.asked.open.get_mut(&note.number) else { return };
                open.answer.lines.extend(answer.lines);
                open.answer.count += answer.count;
                open.left -= 1;
                if open.left == 0
                    && let Some(open) = self.asked.open.remove(&note.number)
                {
                    self.finish_question(open);
                }
            }
            Content::Shown(client, line) => self.shown(client, &line),
            Content::Look => self.look_at_all_again(),
        }
    }

    /// A line for a client of another worker.
    pub(super) fn tell_shown(&self, worker: usize, client: ClientKey, line: &[u8]) {
        let content = Content::Shown(client, line.to_vec());
        self.process.tell(worker, Note { from: self.options.about.worker, number: 0, content });
    }

    /// Whether anybody looks on has changed: the other workers learn it.
    pub(super) fn tell_others_to_look(&self) {
        let from = self.options.about.worker;
        for worker in (0..self.process.peers()).filter(|worker| *worker != from) {
            self.process.tell(worker, Note { from, number: 0, content: Content::Look });
        }
    }

    fn finish_question(&mut self, mut open: Open) {
        let Some(client) = self.client(open.client) else { return };
        open.answer.lines.sort_unstable();
        let mut reply = Vec::new();
        (open.finish)(open.answer, client.session.protocol, &mut reply);
        self.complete(open.client.index as usize, open.seq, &reply, Route::Local);
    }

    fn answer_question(&mut self, question: &Question) -> Answer {
        let (now, mut answer) = (self.now, Answer::default());
        let (Question::List(filter) | Question::Kill(filter)) = question else {
            if let Question::Rules { asker, deleted } = *question {
                let about = &self.options.about;
                answer.count = if asker % about.workers as u64 == about.worker as u64 { deleted } else { 0 };
                self.rules_changed(asker);
            }
            if matches!(question, Question::Monitors) {
                self.look_at_all_again();
            }
            if matches!(question, Question::Pause) {
                self.look_at_pause();
            }
            if let Question::Unblock { id, error } = *question {
                answer.count = u64::from(self.unblock(id, error));
            }
            return answer;
        };
        let fits = |client: &&mut Client| client.kind == Kind::Socket && filter.fits(client);
        let mut killed = Vec::new();
        for (index, client) in self.clients.iter_mut() {
            if !fits(&client) {
                continue;
            }
            answer.count += 1;
            match question {
                Question::List(_) => answer.lines.push((client.session.id, describe(client, now))),
                // The one that asks is told before it is closed.
                Question::Kill(filter) if filter.asker == client.session.id => client.closing = true,
                Question::Kill(_) => {
                    client.gone = true;
                    killed.push(index);
                }
                Question::Unblock { .. } | Question::Rules { .. } | Question::Monitors | Question::Pause => {}
            }
        }
        killed.into_iter().for_each(|index| self.touch(index));
        answer
    }
}
