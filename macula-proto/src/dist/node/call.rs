//! Calls as `gen_server:call` makes them.

use super::Target;
use crate::wire::etf::{Atom, Pid, Reference, Term};

/// A call: `{'$gen_call', {Pid, Tag}, Request}`. The answer is `{Tag, Reply}`, sent to the pid, or to the alias that is in the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who calls.
    pub from: Pid,
    /// What the answer begins with.
    pub tag: Term,
    /// What is asked for.
    pub request: Term,
}

impl Call {
    /// A call by `from`, whose answer names `reference`.
    pub fn new(from: Pid, reference: Reference, request: impl Into<Term>) -> Self {
        Self {
            from,
            tag: reference.into(),
            request: request.into(),
        }
    }

    /// The call that a message is.
    ///
    /// # Errors
    /// The message as it was, when it is none.
    pub fn from_term(term: Term) -> Result<Self, Term> {
        let is_call = |elements: &[Term]| match elements {
            [label, Term::Tuple(from), _] => label.is_atom("$gen_call") && matches!(&from[..], [Term::Pid(_), _]),
            _ => false,
        };
        match term {
            Term::Tuple(elements) if is_call(&elements) => {
                let mut elements = elements.into_iter().skip(1);
                let (from, request) = (elements.next(), elements.next());
                let (Some(Term::Tuple(from)), Some(request)) = (from, request) else {
                    return Err(Term::NIL);
                };
                let mut from = from.into_iter();
                match (from.next(), from.next()) {
                    (Some(Term::Pid(from)), Some(tag)) => Ok(Self { from, tag, request }),
                    _ => Err(Term::NIL),
                }
            }
            term => Err(term),
        }
    }

    /// The message to be sent.
    pub fn into_term(self) -> Term {
        let from = [Term::Pid(self.from), self.tag].into();
        [Atom::known("$gen_call").into(), from, self.request].into()
    }

    /// Where the answer goes.
    pub fn reply_to(&self) -> Target {
        match &self.tag {
            // `[alias | Reference]`, and `[[alias | Reference] | Tag]`, as sent by request collections.
            Term::ImproperList(elements, tail) => {
                let nested = match &elements[..] {
                    [Term::ImproperList(inner, tail)] => Some((&inner[..], tail)),
                    [_] => Some((&elements[..], tail)),
                    _ => None,
                };
                match nested {
                    Some(([alias], tail)) if alias.is_atom("alias") => match tail.as_reference() {
                        Some(reference) => Target::Alias(reference.clone()),
                        None => Target::Pid(self.from.clone()),
                    },
                    _ => Target::Pid(self.from.clone()),
                }
            }
            _ => Target::Pid(self.from.clone()),
        }
    }

    /// The answer: what is to be sent to [`reply_to`](Self::reply_to).
    pub fn reply(&self, reply: impl Into<Term>) -> Term {
        [self.tag.clone(), reply.into()].into()
    }

    /// What `message` says if it is the answer to a call that named `reference`.
    ///
    /// # Errors
    /// The message as it was, when it is another one.
    pub fn answer(message: Term, reference: &Reference) -> Result<Term, Term> {
        match message {
            Term::Tuple(mut elements) => {
                let tag = elements.first().and_then(Term::as_reference);
                if elements.len() == 2 && tag == Some(reference) {
                    Ok(elements.pop().unwrap_or(Term::NIL))
                } else {
                    Err(Term::Tuple(elements))
                }
            }
            message => Err(message),
        }
    }
}
