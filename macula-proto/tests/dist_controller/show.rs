//! Actions as short text, so that a table of them can be read.

use macula_proto::dist::{
    controller::{Action, EndReason, LinkState, Purpose},
    streams::{Side, StreamClass},
    user,
};

use crate::rig::user_stream;

fn purpose(purpose: Purpose) -> String {
    match purpose {
        Purpose::Control => "c".to_owned(),
        Purpose::Data(slot) => format!("d{}", slot.index()),
    }
}

fn stream(id: u64, side: Side) -> String {
    let StreamClass::User(owner) = StreamClass::of(id) else {
        return format!("#{id}");
    };
    let number = (id - user_stream(owner, 0)) / 4;
    let whose = if owner == side { "mine" } else { "theirs" };
    format!("{whose}{}", number + 1)
}

fn end(reason: &EndReason) -> String {
    match reason {
        EndReason::Handshake(failure) => format!("handshake {failure}"),
        other => other.to_string(),
    }
}

fn user(action: &user::Action, side: Side) -> String {
    use user::Action;
    match action {
        Action::Prioritise { stream: id, priority } => format!("{} priority {}", stream(*id, side), priority.get()),
        Action::Finish(id) => format!("{} finish", stream(*id, side)),
        Action::Stop { stream: id, code } => format!("{} stop {code}", stream(*id, side)),
        Action::Abandon { stream: id, code } => format!("{} abandon {code}", stream(*id, side)),
        Action::Abort { stream: id, code } => format!("{} abort {code}", stream(*id, side)),
        Action::Tell {
            owner,
            stream: id,
            event,
        } => format!("tell {} {} {event:?}", owner.0, stream(*id, side)),
    }
}

fn action(action: &Action, side: Side) -> String {
    match action {
        Action::Open(what) => format!("open {}", purpose(*what)),
        Action::Writable(what) => format!("write {}", purpose(*what)),
        Action::Finish(what) => format!("finish {}", purpose(*what)),
        Action::Read => "read".to_owned(),
        Action::Ping => "ping".to_owned(),
        Action::AskStanding { peer } => format!("ask about {peer}"),
        Action::AskWanted => "ask whether wanted".to_owned(),
        Action::Up(established) => format!("up {}", established.peer),
        Action::PeerTick => "peer tick".to_owned(),
        Action::Congested => "congested".to_owned(),
        Action::SendReady => "ready".to_owned(),
        Action::Messages => "messages".to_owned(),
        Action::User(action) => user(action, side),
        Action::Close { code, .. } => format!("close {code}"),
        Action::Down(reason) => format!("down {}", end(reason)),
    }
}

/// What came of an event or an operation.
pub(crate) fn cell(result: Option<String>, actions: &[Action], side: Side, change: (LinkState, LinkState)) -> String {
    let mut words: Vec<String> = result.into_iter().collect();
    words.extend(actions.iter().map(|it| action(it, side)));
    let told = actions.iter().any(|it| matches!(it, Action::Down(_) | Action::Up(_)));
    if change.0 != change.1 && !told {
        words.push(format!("> {:?}", change.1).to_lowercase());
    }
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(", ")
    }
}
