//! Questions to lists that several checks ask at the same time, and that have not been sent.
//!
//! One token, presented by thousands of connections at once, must not take the permits of all
//! others. So where many questions are open, the first to ask one waits for a moment, and whoever
//! asks the same meanwhile gets its answer. A question that was sent is never joined: its answer
//! may be older than an entry that the other program has made since.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fred::types::Value;
use tokio::sync::oneshot;

use crate::store::StoreError;

type ListAnswer = Result<Value, StoreError>;
type Waiting = Vec<oneshot::Sender<ListAnswer>>;

/// Who waits for which question. The table is hashed with a seed, as clients choose what is in it.
#[derive(Clone, Default)]
pub(crate) struct UnsentQuestions(Arc<Mutex<HashMap<Box<[u8]>, Waiting>>>);

/// What one who asks has to do.
pub(super) enum ListTurn {
    /// To ask.
    First(Unsent),
    /// To wait for the answer of another; an error if that one goes away.
    Joined(oneshot::Receiver<ListAnswer>),
}

/// A question that others may still join. Dropped, it leaves them without an answer.
pub(super) struct Unsent {
    questions: UnsentQuestions,
    identity: Box<[u8]>,
    is_sent: bool,
}

/// A question that nobody joins any more, and who waits for its answer.
pub(super) struct Sent(Waiting);

impl UnsentQuestions {
    pub(super) fn join(&self, identity: &[u8]) -> ListTurn {
        let mut questions = self.lock();
        if let Some(waiting) = questions.get_mut(identity) {
            let (answer, answered) = oneshot::channel();
            waiting.push(answer);
            return ListTurn::Joined(answered);
        }
        questions.insert(identity.into(), Vec::new());
        ListTurn::First(Unsent {
            questions: self.clone(),
            identity: identity.into(),
            is_sent: false,
        })
    }

    // A panic while the lock is held cannot leave half a change.
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<[u8]>, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsent {
    /// To be called before the question is sent.
    pub(super) fn send(mut self) -> Sent {
        self.is_sent = true;
        Sent(self.questions.lock().remove(&self.identity).unwrap_or_default())
    }

    pub(super) fn answer(self, answer: ListAnswer) -> ListAnswer {
        self.send().answer(answer)
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        // Once it was sent, the place may be that of another who asks the same.
        if !self.is_sent {
            self.questions.lock().remove(&self.identity);
        }
    }
}

impl Sent {
    pub(super) fn answer(self, answer: ListAnswer) -> ListAnswer {
        for waiting in self.0 {
            let _ = waiting.send(answer.clone());
        }
        answer
    }
}

/// What a question asks, so that equal ones are equal and no others.
pub(super) fn identity_of(command: &str, arguments: &[Value]) -> Box<[u8]> {
    let mut identity = command.as_bytes().to_vec();
    for argument in arguments {
        let bytes = argument.as_bytes().unwrap_or_default();
        identity.extend_from_slice(&bytes.len().to_le_bytes());
        identity.extend_from_slice(bytes);
    }
    identity.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(questions: &UnsentQuestions, identity: &[u8]) -> Unsent {
        match questions.join(identity) {
            ListTurn::First(unsent) => unsent,
            ListTurn::Joined(_) => panic!("another asks it"),
        }
    }

    fn joined(questions: &UnsentQuestions, identity: &[u8]) -> oneshot::Receiver<ListAnswer> {
        match questions.join(identity) {
            ListTurn::Joined(answered) => answered,
            ListTurn::First(_) => panic!("nobody asks it"),
        }
    }

    #[test]
    fn what_was_not_sent_is_joined_and_what_was_sent_is_not() {
        let questions = UnsentQuestions::default();
        let unsent = first(&questions, b"a");
        let mut early = joined(&questions, b"a");
        let other = first(&questions, b"b");
        let sent = unsent.send();
        let later = first(&questions, b"a");
        let mut late = joined(&questions, b"a");
        sent.answer(Ok(Value::Integer(1))).unwrap();
        assert_eq!(early.try_recv().unwrap().unwrap(), Value::Integer(1));
        assert!(late.try_recv().is_err(), "it was asked later, and must be answered later");
        drop((later, other));
        // Whoever asks next asks for all who were left.
        assert!(matches!(late.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        drop(first(&questions, b"a"));
        assert!(questions.lock().is_empty());
    }

    #[test]
    fn only_equal_questions_are_equal() {
        let text = |text: &str| Value::from(text.to_owned());
        let one = identity_of("SISMEMBER", &[text("ab"), text("c")]);
        assert_eq!(one, identity_of("SISMEMBER", &[text("ab"), text("c")]));
        assert_ne!(one, identity_of("SISMEMBER", &[text("a"), text("bc")]));
        assert_ne!(one, identity_of("EXISTS", &[text("ab"), text("c")]));
    }
}
