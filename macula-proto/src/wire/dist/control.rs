//! The control term of a distribution message: what is done, by whom, to whom.

use thiserror::Error;

use crate::wire::etf::{Atom, Pid, Reference, Term};

/// A process, by its pid or by the name it is registered under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// By pid.
    Pid(Pid),
    /// By name.
    Name(Atom),
}

/// What a process is started from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spawn {
    /// What the answer names.
    pub request: Reference,
    /// Who wants it.
    pub from: Pid,
    /// Group leader of the new process.
    pub group_leader: Pid,
    /// Module of the function; its arguments are the payload.
    pub module: Atom,
    /// The function.
    pub function: Atom,
    /// Number of arguments.
    pub arity: u8,
    /// Options: `monitor`, `link` and others.
    pub options: Term,
    /// Trace token, where there is one.
    pub token: Option<Term>,
}

/// A control term. Forms with and without a trace token are one: `token` tells them apart.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Control {
    /// LINK: `from` links itself to `to`.
    Link {
        /// Who.
        from: Pid,
        /// To whom.
        to: Pid,
    },
    /// SEND, SEND_TT: the payload is for `to`.
    Send {
        /// To whom.
        to: Pid,
        /// Trace token.
        token: Option<Term>,
    },
    /// SEND_SENDER, SEND_SENDER_TT: the payload is for `to`, from `from`.
    SendSender {
        /// From whom.
        from: Pid,
        /// To whom.
        to: Pid,
        /// Trace token.
        token: Option<Term>,
    },
    /// REG_SEND, REG_SEND_TT: the payload is for whoever is registered as `to`.
    RegSend {
        /// From whom.
        from: Pid,
        /// To whom.
        to: Atom,
        /// Trace token.
        token: Option<Term>,
    },
    /// ALIAS_SEND, ALIAS_SEND_TT: the payload is for the process with this alias.
    AliasSend {
        /// From whom.
        from: Pid,
        /// To whom.
        alias: Reference,
        /// Trace token.
        token: Option<Term>,
    },
    /// EXIT, EXIT_TT, PAYLOAD_EXIT, PAYLOAD_EXIT_TT: `from`, which was linked to `to`, has ended.
    Exit {
        /// Who ended.
        from: Pid,
        /// Who is told.
        to: Pid,
        /// Why; `None`: the payload says why.
        reason: Option<Term>,
        /// Trace token.
        token: Option<Term>,
    },
    /// EXIT2, EXIT2_TT, PAYLOAD_EXIT2, PAYLOAD_EXIT2_TT: `from` called `exit(to, reason)`.
    Exit2 {
        /// From whom.
        from: Pid,
        /// Who is to end.
        to: Pid,
        /// Why; `None`: the payload says why.
        reason: Option<Term>,
        /// Trace token.
        token: Option<Term>,
    },
    /// UNLINK: the form before OTP 23.
    Unlink {
        /// Who.
        from: Pid,
        /// From whom.
        to: Pid,
    },
    /// UNLINK_ID: `from` takes the link down and waits for the answer.
    UnlinkId {
        /// What the answer names.
        id: u64,
        /// Who.
        from: Pid,
        /// From whom.
        to: Pid,
    },
    /// UNLINK_ID_ACK: the answer.
    UnlinkIdAck {
        /// Which request.
        id: u64,
        /// Who answers.
        from: Pid,
        /// Whom.
        to: Pid,
    },
    /// NODE_LINK. Nobody sends it.
    NodeLink,
    /// GROUP_LEADER: `from` becomes the group leader of `to`.
    GroupLeader {
        /// The group leader.
        from: Pid,
        /// Whose.
        to: Pid,
    },
    /// MONITOR_P: `from` wants to know when `to` ends.
    Monitor {
        /// Who watches.
        from: Pid,
        /// Who is watched.
        to: Process,
        /// Which monitor.
        reference: Reference,
    },
    /// DEMONITOR_P: `from` no longer wants to.
    Demonitor {
        /// Who watched.
        from: Pid,
        /// Who was watched.
        to: Process,
        /// Which monitor.
        reference: Reference,
    },
    /// MONITOR_P_EXIT, PAYLOAD_MONITOR_P_EXIT: `from`, which `to` watched, has ended or was not there.
    MonitorExit {
        /// Who ended, as it was named when the monitor was set.
        from: Process,
        /// Who watched.
        to: Pid,
        /// Which monitor.
        reference: Reference,
        /// Why; `None`: the payload says why.
        reason: Option<Term>,
    },
    /// SPAWN_REQUEST, SPAWN_REQUEST_TT: a process is to be started; the payload is the list of its arguments.
    SpawnRequest(Box<Spawn>),
    /// SPAWN_REPLY, SPAWN_REPLY_TT: it was started, or not.
    SpawnReply {
        /// Which request.
        request: Reference,
        /// Who wanted it.
        to: Pid,
        /// 1: linked, 2: monitored.
        flags: u32,
        /// The new process, or the atom of an error.
        result: Term,
        /// Trace token.
        token: Option<Term>,
    },
}

/// Why a term is no control term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ControlError {
    /// It is no tuple that begins with a small number.
    #[error("not a tuple that begins with the number of an operation")]
    NotOperation,
    /// No such operation.
    #[error("unknown operation {0}")]
    Unknown(u8),
    /// Its other elements do not fit.
    #[error("operation {0} with elements of the wrong number or type")]
    Shape(u8),
}

mod op {
    pub(super) const LINK: u8 = 1;
    pub(super) const SEND: u8 = 2;
    pub(super) const EXIT: u8 = 3;
    pub(super) const UNLINK: u8 = 4;
    pub(super) const NODE_LINK: u8 = 5;
    pub(super) const REG_SEND: u8 = 6;
    pub(super) const GROUP_LEADER: u8 = 7;
    pub(super) const EXIT2: u8 = 8;
    pub(super) const SEND_TT: u8 = 12;
    pub(super) const EXIT_TT: u8 = 13;
    pub(super) const REG_SEND_TT: u8 = 16;
    pub(super) const EXIT2_TT: u8 = 18;
    pub(super) const MONITOR_P: u8 = 19;
    pub(super) const DEMONITOR_P: u8 = 20;
    pub(super) const MONITOR_P_EXIT: u8 = 21;
    pub(super) const SEND_SENDER: u8 = 22;
    pub(super) const SEND_SENDER_TT: u8 = 23;
    pub(super) const PAYLOAD_EXIT: u8 = 24;
    pub(super) const PAYLOAD_EXIT_TT: u8 = 25;
    pub(super) const PAYLOAD_EXIT2: u8 = 26;
    pub(super) const PAYLOAD_EXIT2_TT: u8 = 27;
    pub(super) const PAYLOAD_MONITOR_P_EXIT: u8 = 28;
    pub(super) const SPAWN_REQUEST: u8 = 29;
    pub(super) const SPAWN_REQUEST_TT: u8 = 30;
    pub(super) const SPAWN_REPLY: u8 = 31;
    pub(super) const SPAWN_REPLY_TT: u8 = 32;
    pub(super) const ALIAS_SEND: u8 = 33;
    pub(super) const ALIAS_SEND_TT: u8 = 34;
    pub(super) const UNLINK_ID: u8 = 35;
    pub(super) const UNLINK_ID_ACK: u8 = 36;
}

impl Control {
    /// Whether a second term belongs to it.
    pub fn has_payload(&self) -> bool {
        match self {
            Self::Send { .. } | Self::SendSender { .. } | Self::RegSend { .. } | Self::AliasSend { .. } => true,
            Self::Exit { reason, .. } | Self::Exit2 { reason, .. } | Self::MonitorExit { reason, .. } => {
                reason.is_none()
            }
            Self::SpawnRequest(_) => true,
            _ => false,
        }
    }

    /// Reads a control term.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn from_term(term: Term) -> Result<Self, ControlError> {
        let Term::Tuple(elements) = term else {
            return Err(ControlError::NotOperation);
        };
        let mut elements = elements.into_iter();
        let number = elements.next().and_then(|number| u8::try_from(number.as_i64()?).ok());
        let number = number.ok_or(ControlError::NotOperation)?;
        let mut fields = Fields {
            elements,
            unknown: false,
        };
        match fields.control(number) {
            Some(control) if fields.elements.len() == 0 => Ok(control),
            None if fields.unknown => Err(ControlError::Unknown(number)),
            _ => Err(ControlError::Shape(number)),
        }
    }

    /// The term to be sent.
    pub fn to_term(&self) -> Term {
        let (number, token, fields) = self.fields();
        let number = [Term::Int(number.into())];
        Term::Tuple(number.into_iter().chain(fields).chain(token.cloned()).collect())
    }

    /// Number of the operation, trace token if it comes last, and the other elements.
    fn fields(&self) -> (u8, Option<&Term>, Vec<Term>) {
        let pid = |pid: &Pid| Term::Pid(pid.clone());
        let reference = |reference: &Reference| Term::from(reference.clone());
        // Where cookies were once.
        let unused = || Term::Atom(Atom::known(""));
        let traced = |plain, traced, token: &Option<Term>| if token.is_some() { traced } else { plain };
        match self {
            Self::Link { from, to } => (op::LINK, None, vec![pid(from), pid(to)]),
            Self::Send { to, token } => (
                traced(op::SEND, op::SEND_TT, token),
                token.as_ref(),
                vec![unused(), pid(to)],
            ),
            Self::SendSender { from, to, token } => {
                let number = traced(op::SEND_SENDER, op::SEND_SENDER_TT, token);
                (number, token.as_ref(), vec![pid(from), pid(to)])
            }
            Self::RegSend { from, to, token } => {
                let number = traced(op::REG_SEND, op::REG_SEND_TT, token);
                (
                    number,
                    token.as_ref(),
                    vec![pid(from), unused(), Term::Atom(to.clone())],
                )
            }
            Self::AliasSend { from, alias, token } => {
                let number = traced(op::ALIAS_SEND, op::ALIAS_SEND_TT, token);
                (number, token.as_ref(), vec![pid(from), reference(alias)])
            }
            Self::Exit {
                from,
                to,
                reason,
                token,
            } => {
                let numbers = [op::EXIT, op::EXIT_TT, op::PAYLOAD_EXIT, op::PAYLOAD_EXIT_TT];
                exit_fields(numbers, from, to, reason.as_ref(), token.as_ref())
            }
            Self::Exit2 {
                from,
                to,
                reason,
                token,
            } => {
                let numbers = [op::EXIT2, op::EXIT2_TT, op::PAYLOAD_EXIT2, op::PAYLOAD_EXIT2_TT];
                exit_fields(numbers, from, to, reason.as_ref(), token.as_ref())
            }
            Self::Unlink { from, to } => (op::UNLINK, None, vec![pid(from), pid(to)]),
            Self::UnlinkId { id, from, to } => (op::UNLINK_ID, None, vec![Term::from(*id), pid(from), pid(to)]),
            Self::UnlinkIdAck { id, from, to } => (op::UNLINK_ID_ACK, None, vec![Term::from(*id), pid(from), pid(to)]),
            Self::NodeLink => (op::NODE_LINK, None, Vec::new()),
            Self::GroupLeader { from, to } => (op::GROUP_LEADER, None, vec![pid(from), pid(to)]),
            Self::Monitor {
                from,
                to,
                reference: monitor,
            } => (op::MONITOR_P, None, vec![pid(from), to.to_term(), reference(monitor)]),
            Self::Demonitor {
                from,
                to,
                reference: monitor,
            } => (op::DEMONITOR_P, None, vec![pid(from), to.to_term(), reference(monitor)]),
            Self::MonitorExit {
                from,
                to,
                reference: monitor,
                reason,
            } => {
                let number = if reason.is_some() {
                    op::MONITOR_P_EXIT
                } else {
                    op::PAYLOAD_MONITOR_P_EXIT
                };
                let mut fields = vec![from.to_term(), pid(to), reference(monitor)];
                fields.extend(reason.clone());
                (number, None, fields)
            }
            Self::SpawnRequest(spawn) => {
                let function = [
                    spawn.module.clone().into(),
                    spawn.function.clone().into(),
                    Term::Int(spawn.arity.into()),
                ];
                let mut fields = vec![reference(&spawn.request), pid(&spawn.from), pid(&spawn.group_leader)];
                fields.extend([function.into(), spawn.options.clone()]);
                (
                    traced(op::SPAWN_REQUEST, op::SPAWN_REQUEST_TT, &spawn.token),
                    spawn.token.as_ref(),
                    fields,
                )
            }
            Self::SpawnReply {
                request,
                to,
                flags,
                result,
                token,
            } => {
                let fields = vec![reference(request), pid(to), Term::from(*flags), result.clone()];
                (
                    traced(op::SPAWN_REPLY, op::SPAWN_REPLY_TT, token),
                    token.as_ref(),
                    fields,
                )
            }
        }
    }
}

/// The numbers: plain, with a trace token, with the reason in the payload, with both.
fn exit_fields<'a>(
    [plain, traced, payload, payload_traced]: [u8; 4],
    from: &Pid,
    to: &Pid,
    reason: Option<&Term>,
    token: Option<&'a Term>,
) -> (u8, Option<&'a Term>, Vec<Term>) {
    let mut fields = vec![Term::Pid(from.clone()), Term::Pid(to.clone())];
    match (reason, token) {
        (Some(reason), None) => {
            fields.push(reason.clone());
            (plain, None, fields)
        }
        // The one place where the token is not the last element.
        (Some(reason), Some(token)) => {
            fields.extend([token.clone(), reason.clone()]);
            (traced, None, fields)
        }
        (None, None) => (payload, None, fields),
        (None, Some(token)) => (payload_traced, Some(token), fields),
    }
}

impl Process {
    fn to_term(&self) -> Term {
        match self {
            Self::Pid(pid) => Term::Pid(pid.clone()),
            Self::Name(name) => Term::Atom(name.clone()),
        }
    }
}

impl From<Pid> for Process {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<Atom> for Process {
    fn from(name: Atom) -> Self {
        Self::Name(name)
    }
}

/// The elements of a control term behind its number.
struct Fields {
    elements: std::vec::IntoIter<Term>,
    /// The number is that of no operation.
    unknown: bool,
}

impl Fields {
    fn control(&mut self, number: u8) -> Option<Control> {
        Some(match number {
            op::LINK => Control::Link {
                from: self.pid()?,
                to: self.pid()?,
            },
            op::SEND | op::SEND_TT => {
                self.term()?;
                Control::Send {
                    to: self.pid()?,
                    token: self.token(number == op::SEND_TT)?,
                }
            }
            op::SEND_SENDER | op::SEND_SENDER_TT => Control::SendSender {
                from: self.pid()?,
                to: self.pid()?,
                token: self.token(number == op::SEND_SENDER_TT)?,
            },
            op::REG_SEND | op::REG_SEND_TT => {
                let from = self.pid()?;
                self.term()?;
                Control::RegSend {
                    from,
                    to: self.atom()?,
                    token: self.token(number == op::REG_SEND_TT)?,
                }
            }
            op::ALIAS_SEND | op::ALIAS_SEND_TT => Control::AliasSend {
                from: self.pid()?,
                alias: self.reference()?,
                token: self.token(number == op::ALIAS_SEND_TT)?,
            },
            op::EXIT | op::EXIT_TT | op::PAYLOAD_EXIT | op::PAYLOAD_EXIT_TT => {
                let (from, to) = (self.pid()?, self.pid()?);
                let token = self.token(matches!(number, op::EXIT_TT | op::PAYLOAD_EXIT_TT))?;
                Control::Exit {
                    from,
                    to,
                    token,
                    reason: self.token(matches!(number, op::EXIT | op::EXIT_TT))?,
                }
            }
            op::EXIT2 | op::EXIT2_TT | op::PAYLOAD_EXIT2 | op::PAYLOAD_EXIT2_TT => {
                let (from, to) = (self.pid()?, self.pid()?);
                let token = self.token(matches!(number, op::EXIT2_TT | op::PAYLOAD_EXIT2_TT))?;
                Control::Exit2 {
                    from,
                    to,
                    token,
                    reason: self.token(matches!(number, op::EXIT2 | op::EXIT2_TT))?,
                }
            }
            op::UNLINK => Control::Unlink {
                from: self.pid()?,
                to: self.pid()?,
            },
            op::UNLINK_ID => Control::UnlinkId {
                id: self.uint()?,
                from: self.pid()?,
                to: self.pid()?,
            },
            op::UNLINK_ID_ACK => Control::UnlinkIdAck {
                id: self.uint()?,
                from: self.pid()?,
                to: self.pid()?,
            },
            op::NODE_LINK => Control::NodeLink,
            op::GROUP_LEADER => Control::GroupLeader {
                from: self.pid()?,
                to: self.pid()?,
            },
            op::MONITOR_P => Control::Monitor {
                from: self.pid()?,
                to: self.process()?,
                reference: self.reference()?,
            },
            op::DEMONITOR_P => Control::Demonitor {
                from: self.pid()?,
                to: self.process()?,
                reference: self.reference()?,
            },
            op::MONITOR_P_EXIT | op::PAYLOAD_MONITOR_P_EXIT => Control::MonitorExit {
                from: self.process()?,
                to: self.pid()?,
                reference: self.reference()?,
                reason: self.token(number == op::MONITOR_P_EXIT)?,
            },
            op::SPAWN_REQUEST | op::SPAWN_REQUEST_TT => self.spawn(number == op::SPAWN_REQUEST_TT)?,
            op::SPAWN_REPLY | op::SPAWN_REPLY_TT => Control::SpawnReply {
                request: self.reference()?,
                to: self.pid()?,
                flags: self.uint()?.try_into().ok()?,
                result: self.term()?,
                token: self.token(number == op::SPAWN_REPLY_TT)?,
            },
            _ => {
                self.unknown = true;
                return None;
            }
        })
    }

    fn spawn(&mut self, traced: bool) -> Option<Control> {
        let (request, from, group_leader) = (self.reference()?, self.pid()?, self.pid()?);
        let Term::Tuple(function) = self.term()? else {
            return None;
        };
        let [Term::Atom(module), Term::Atom(function), arity] = &function[..] else {
            return None;
        };
        Some(Control::SpawnRequest(Box::new(Spawn {
            request,
            from,
            group_leader,
            module: module.clone(),
            function: function.clone(),
            arity: arity.as_i64()?.try_into().ok()?,
            options: self.term()?,
            token: self.token(traced)?,
        })))
    }

    fn term(&mut self) -> Option<Term> {
        self.elements.next()
    }

    /// An element that is there in some forms.
    #[expect(clippy::option_option, reason = "missing where it has to be, or not to be there")]
    fn token(&mut self, present: bool) -> Option<Option<Term>> {
        if present { self.term().map(Some) } else { Some(None) }
    }

    fn pid(&mut self) -> Option<Pid> {
        match self.term()? {
            Term::Pid(pid) => Some(pid),
            _ => None,
        }
    }

    fn atom(&mut self) -> Option<Atom> {
        match self.term()? {
            Term::Atom(atom) => Some(atom),
            _ => None,
        }
    }

    fn process(&mut self) -> Option<Process> {
        match self.term()? {
            Term::Pid(pid) => Some(Process::Pid(pid)),
            Term::Atom(name) => Some(Process::Name(name)),
            _ => None,
        }
    }

    fn reference(&mut self) -> Option<Reference> {
        match self.term()? {
            Term::Reference(reference) => Some(*reference),
            _ => None,
        }
    }

    fn uint(&mut self) -> Option<u64> {
        self.term()?.as_u64()
    }
}
