use crate::cells::Row;

/// Of what else happens, and of operations.
pub(crate) const OPERATIONS: &[Row] = &[
    (
        "Standing new",
        &[
            ("-", "connecting shaking !s-called up leaving words over"),
            ("write c, write c", "s-called"),
        ],
    ),
    (
        "Standing dialling",
        &[
            ("-", "connecting shaking !s-called up leaving words over"),
            ("write c, write c", "s-called"),
        ],
    ),
    (
        "Standing connected",
        &[
            ("-", "connecting shaking !s-called up leaving words over"),
            ("write c", "s-called"),
        ],
    ),
    (
        "Standing replacing",
        &[
            ("-", "connecting shaking !s-called up leaving words over"),
            ("write c, > leaving", "s-called"),
        ],
    ),
    (
        "Standing forbidden",
        &[
            ("-", "connecting shaking !s-called up leaving words over"),
            ("write c, > leaving", "s-called"),
        ],
    ),
    (
        "Wanted",
        &[
            ("-", "connecting shaking !c-asked up leaving words over"),
            ("write c", "c-asked"),
        ],
    ),
    (
        "Wanted not",
        &[
            ("-", "connecting shaking !c-asked up leaving words over"),
            ("write c, > leaving", "c-asked"),
        ],
    ),
    (
        "Displaced",
        &[
            (
                "close displaced, down another connection with the same node took its place",
                "connecting shaking up leaving words",
            ),
            ("-", "over"),
        ],
    ),
    (
        "Lost",
        &[
            ("down gone", "connecting shaking up"),
            ("down closed", "leaving"),
            (
                "down handshake the earlier connection is alive",
                "words !s-words !s-words-sent",
            ),
            ("down handshake turned away: NotAllowed", "words !c-words !c-words-sent"),
            ("-", "over"),
        ],
    ),
    (
        "Tick",
        &[
            ("-", "connecting shaking words over"),
            ("ping, write c", "up !c-tick-half leaving"),
            ("ping", "c-tick-half"),
        ],
    ),
    (
        "Wakeup",
        &[
            ("-", "connecting shaking up !c-taken leaving words over"),
            ("ready", "c-taken"),
        ],
    ),
    (
        "Transport full",
        &[
            ("-", "connecting shaking c-backlog c-choked leaving words over"),
            ("congested", "up !c-backlog !c-choked !c-in-flight"),
            ("write d3, congested", "c-in-flight"),
        ],
    ),
    (
        "Transport empty",
        &[
            ("-", "connecting shaking up !c-choked !c-in-flight leaving words over"),
            ("ready", "c-choked"),
            ("write d3", "c-in-flight"),
        ],
    ),
    (
        "Transport in flight",
        &[
            ("-", "connecting shaking up !c-choked leaving words over"),
            ("ready", "c-choked"),
        ],
    ),
    (
        "Leave",
        &[
            ("close shutdown, down closed", "connecting shaking s-unopened"),
            (
                "finish d0, finish d1, finish d2, finish d3, > leaving",
                "up !c-backlog !c-in-flight !s-unopened !s-unopened-taken",
            ),
            ("> leaving", "c-backlog c-in-flight s-unopened-taken"),
            ("-", "leaving words over"),
        ],
    ),
    (
        "Close",
        &[
            ("close cancelled, down closed", "connecting shaking up leaving words"),
            ("-", "over"),
        ],
    ),
    ("Timeout early", &[("-", "connecting shaking up leaving words over")]),
    (
        "Timeout",
        &[
            ("-", "connecting up !c-idle !c-silent !c-parting over"),
            (
                "close timeout, down handshake the handshake timed out",
                "shaking !s-pausing",
            ),
            ("write c", "s-pausing"),
            ("ping, write c", "c-idle"),
            (
                "close timeout, down nothing was heard of the peer for the net tick time",
                "c-silent",
            ),
            ("close closed, down closed by the peer (closed)", "c-parting"),
            ("close shutdown, down closed", "leaving"),
            (
                "close refused, down handshake the earlier connection is alive",
                "words !s-words !s-words-sent",
            ),
            (
                "close refused, down handshake turned away: NotAllowed",
                "words !c-words !c-words-sent",
            ),
        ],
    ),
    (
        "poll c",
        &[
            (
                "nothing",
                "connecting shaking !c-opening up !c-tick-half leaving words !c-words !s-words over",
            ),
            ("N", "c-opening"),
            ("1 bytes", "c-tick-half"),
            ("s", "words !c-words-sent !s-words-sent"),
        ],
    ),
    (
        "poll d3",
        &[
            (
                "nothing",
                "connecting shaking up !c-backlog leaving !c-draining !s-draining words over",
            ),
            ("50 bytes", "c-backlog"),
            ("9 bytes", "leaving !c-finished !s-undrainable"),
        ],
    ),
    (
        "poll d3 for 5",
        &[
            (
                "nothing",
                "connecting shaking up !c-backlog leaving !c-draining !s-draining words over",
            ),
            ("5 bytes", "c-backlog leaving !c-finished !s-undrainable"),
        ],
    ),
    (
        "send",
        &[
            ("notup", "connecting shaking"),
            (
                "taken, write d3",
                "up !c-taken !c-backlog !c-choked !c-in-flight !s-unopened !s-unopened-taken",
            ),
            ("later", "c-taken"),
            ("congested", "c-backlog c-choked"),
            ("taken", "c-in-flight s-unopened s-unopened-taken"),
            ("failed", "leaving words over"),
        ],
    ),
    (
        "send nothing",
        &[
            ("notup", "connecting shaking"),
            ("empty", "up"),
            ("failed", "leaving words over"),
        ],
    ),
    (
        "send too long",
        &[
            ("notup", "connecting shaking"),
            ("too large", "up"),
            ("failed", "leaving words over"),
        ],
    ),
    (
        "next_message",
        &[
            (
                "nothing",
                "connecting shaking up !c-inbox leaving words over !c-over-inbox",
            ),
            ("hello, read", "c-inbox"),
            ("hello", "c-over-inbox"),
        ],
    ),
    (
        "user_opened",
        &[
            ("NotUp", "connecting shaking words over"),
            ("yes, mine2 priority 16", "up leaving"),
        ],
    ),
    (
        "user_opened theirs",
        &[("NotUp", "connecting shaking words over"), ("Unknown", "up leaving")],
    ),
    (
        "may_open",
        &[("NotUp", "connecting shaking words over"), ("yes", "up leaving")],
    ),
    ("accept", &[("yes", "connecting shaking up leaving words over")]),
    ("stop_accepting", &[("yes", "connecting shaking up leaving words over")]),
    (
        "may_send",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            ("yes", "up !s-unopened !s-unopened-taken leaving !s-undrainable"),
        ],
    ),
    (
        "may_read",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            ("yes", "up !s-unopened !s-unopened-taken leaving !s-undrainable"),
        ],
    ),
    (
        "finish",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "yes, mine1 finish",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    (
        "finish of another",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            ("NotOwner", "up !s-unopened !s-unopened-taken leaving !s-undrainable"),
        ],
    ),
    (
        "stop",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "yes, mine1 stop cancelled",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    (
        "abandon",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "yes, mine1 abandon cancelled",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    (
        "close",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "yes, mine1 finish, mine1 stop closed",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    (
        "reset",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "yes, mine1 abort cancelled",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    (
        "hand_over",
        &[
            (
                "Unknown",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "yes, tell 2 mine1 HandedOver",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    (
        "owner_gone",
        &[
            (
                "yes",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "yes, theirs1 abort cancelled, mine1 abort cancelled",
                "up !s-up !s-unopened !s-unopened-taken leaving !s-draining !s-undrainable",
            ),
            ("yes, mine1 abort cancelled, theirs1 abort cancelled", "s-up s-draining"),
        ],
    ),
    ("set_node", &[("z@h", "connecting shaking up leaving words over")]),
    (
        "rooms",
        &[
            (
                "c 65536, theirs 128, mine 0, users 0",
                "connecting shaking !s-early words",
            ),
            ("c 65536, theirs 0, mine 0, users 0", "s-early c-inbox"),
            ("c 65536, theirs 138, mine 0, users 0", "up !c-inbox leaving"),
            ("c 0, theirs 0, mine 0, users 0", "over"),
        ],
    ),
    (
        "view",
        &[
            ("connecting n@h 0 pending 0 streams", "connecting !s-connecting"),
            ("connecting nobody 0 pending 0 streams", "connecting !c-connecting"),
            ("handshaking n@h timed 0 pending 0 streams", "shaking !s-waiting"),
            ("handshaking nobody timed 0 pending 0 streams", "s-waiting"),
            (
                "up n@h established timed 0 pending 2 streams",
                "up !c-backlog !c-choked !c-in-flight !c-inbox !c-tick-half !s-unopened !s-unopened-taken",
            ),
            ("up n@h established congested timed 128 pending 2 streams", "c-backlog"),
            ("up n@h established congested timed 0 pending 2 streams", "c-choked"),
            ("up n@h established timed 9 pending 2 streams", "c-in-flight"),
            ("up n@h established messages timed 0 pending 2 streams", "c-inbox"),
            ("up n@h established tick waits timed 0 pending 2 streams", "c-tick-half"),
            ("up n@h established timed 0 pending 0 streams", "s-unopened"),
            ("up n@h established timed 9 pending 0 streams", "s-unopened-taken"),
            (
                "leaving n@h established timed 9 pending 2 streams",
                "leaving !c-finished !s-undrainable",
            ),
            ("leaving n@h established timed 0 pending 2 streams", "c-finished"),
            ("leaving n@h established timed 9 pending 0 streams", "s-undrainable"),
            ("leaving n@h timed 0 pending 0 streams", "words"),
            (
                "over n@h established 0 pending 0 streams",
                "over !c-failed !c-over-inbox",
            ),
            ("over n@h 0 pending 0 streams", "c-failed"),
            ("over n@h established messages 0 pending 0 streams", "c-over-inbox"),
        ],
    ),
];
