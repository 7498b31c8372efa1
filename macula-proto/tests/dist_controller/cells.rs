//! What each cell must do: after each event what is done, or what an operation returns and does, and in which states. `-` is nothing;
//! names of groups stand for their states, `!` takes one out.

use crate::{cells_operations::OPERATIONS, cells_streams::STREAMS};

/// An event, what may come of it, and in which states.
pub(crate) type Row = (&'static str, &'static [(&'static str, &'static str)]);

pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    CONTROL.iter().chain(STREAMS).chain(OPERATIONS)
}

/// Of the connection and the control stream.
const CONTROL: &[Row] = &[
    (
        "Connected",
        &[
            (
                "open c, open d0, open d1, open d2, open d3, write c, > handshaking",
                "connecting !s-connecting",
            ),
            ("> handshaking", "connecting !c-connecting"),
            ("-", "shaking up leaving words over"),
        ],
    ),
    (
        "Opened c",
        &[("write c", "connecting shaking up leaving words"), ("-", "over")],
    ),
    ("Opened d0", &[("-", "connecting shaking up leaving words over")]),
    (
        "Opened d3",
        &[
            (
                "-",
                "connecting shaking up !c-backlog !c-in-flight !s-unopened-taken c-finished words over",
            ),
            ("write d3", "c-backlog c-in-flight s-unopened-taken leaving !c-finished"),
        ],
    ),
    (
        "Arrived",
        &[
            ("-", "connecting shaking words over"),
            (
                "theirs2 priority 128, tell 2 theirs2 Accepted",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
            ("theirs2 abort refused", "s-unopened s-unopened-taken s-undrainable"),
        ],
    ),
    (
        "tick",
        &[
            ("-", "connecting shaking words over"),
            ("peer tick, ping, write c", "up !c-tick-half !c-silent leaving"),
            ("peer tick", "c-tick-half c-silent"),
        ],
    ),
    ("half a tick", &[("-", "connecting shaking up leaving words over")]),
    (
        "zero x",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake zero bytes that are not a tick",
                "shaking !c-asked !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "x",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake no handshake message begins with 0x78",
                "shaking !c-asked !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "N",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: challenge",
                "c-opening c-named c-proved",
            ),
            ("write c", "c-let-in"),
            ("ask about n@h", "s-waiting"),
            (
                "close protocol, down handshake a handshake message out of order: name",
                "s-alive s-pausing s-challenged s-old s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "N own",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: challenge",
                "c-opening c-named c-proved",
            ),
            ("close not_allowed, down handshake the peer is m@h, not n@h", "c-let-in"),
            ("write c, > leaving", "s-waiting"),
            (
                "close protocol, down handshake a handshake message out of order: name",
                "s-alive s-pausing s-challenged s-old s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "N weak",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: challenge",
                "c-opening c-named c-proved",
            ),
            (
                "close not_allowed, down handshake the peer lacks EXTENDED_REFERENCES|FUN_TAGS|NEW_FUN_TAGS|\
            EXTENDED_PIDS_PORTS|EXPORT_PTR_TAG|BIT_BINARIES|NEW_FLOATS|UTF8_ATOMS|MAP_TAG|BIG_CREATION|\
            HANDSHAKE_23",
                "c-let-in",
            ),
            ("write c, > leaving", "s-waiting"),
            (
                "close protocol, down handshake a handshake message out of order: name",
                "s-alive s-pausing s-challenged s-old s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "n",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message of the old form without a length",
                "c-opening c-named c-let-in c-proved",
            ),
            ("ask about n@h", "s-waiting"),
            (
                "close protocol, down handshake a handshake message out of order: old_name",
                "s-alive s-pausing s-challenged s-old s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "ok",
        &[
            ("-", "connecting c-opening c-named c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "c-let-in c-proved",
            ),
            (
                "close protocol, down handshake an unknown status",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "ok_simultaneous",
        &[
            ("-", "connecting c-opening c-named c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "c-let-in c-proved",
            ),
            (
                "close protocol, down handshake an unknown status",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "nok",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close refused, down handshake the peer's own dial stays",
                "c-opening c-named",
            ),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "c-let-in c-proved",
            ),
            (
                "close protocol, down handshake an unknown status",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "not_allowed",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close not_allowed, down handshake the peer does not allow it",
                "c-opening c-named",
            ),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "c-let-in c-proved",
            ),
            (
                "close protocol, down handshake an unknown status",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "alive",
        &[
            ("-", "connecting c-asked s-called words over"),
            ("ask whether wanted", "c-opening c-named"),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "c-let-in c-proved",
            ),
            (
                "close protocol, down handshake an unknown status",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "named",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "c-opening c-named c-let-in c-proved",
            ),
            (
                "close protocol, down handshake an unknown status",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "true",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake an unknown status",
                "c-opening c-named c-let-in c-proved",
            ),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "s-waiting s-pausing s-challenged s-old s-early",
            ),
            ("write c", "s-alive"),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "false",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake an unknown status",
                "c-opening c-named c-let-in c-proved",
            ),
            (
                "close protocol, down handshake a handshake message out of order: status",
                "s-waiting s-pausing s-challenged s-old s-early",
            ),
            (
                "close refused, down handshake the earlier connection is alive",
                "s-alive",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "complement",
        &[
            ("-", "connecting c-asked s-called s-old words over"),
            (
                "close protocol, down handshake no handshake message begins with 0x63",
                "c-opening c-named c-let-in c-proved",
            ),
            (
                "close protocol, down handshake a handshake message out of order: complement",
                "s-waiting s-alive s-pausing s-challenged s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "reply",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake no handshake message begins with 0x72",
                "c-opening c-named c-let-in c-proved",
            ),
            (
                "close protocol, down handshake a handshake message out of order: reply",
                "s-waiting s-alive s-old",
            ),
            (
                "close not_allowed, down handshake the peer has another cookie",
                "s-pausing",
            ),
            (
                "write c, up n@h, open d0, open d1, open d2, open d3, read",
                "s-challenged",
            ),
            (
                "write c, up n@h, open d0, open d1, open d2, open d3, messages, read",
                "s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "wrong reply",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake no handshake message begins with 0x72",
                "c-opening c-named c-let-in c-proved",
            ),
            (
                "close protocol, down handshake a handshake message out of order: reply",
                "s-waiting s-alive s-old",
            ),
            (
                "close not_allowed, down handshake the peer has another cookie",
                "s-pausing s-challenged s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "ack",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: ack",
                "c-opening c-named c-let-in",
            ),
            ("up n@h, read", "c-proved"),
            (
                "close protocol, down handshake no handshake message begins with 0x61",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "wrong ack",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: ack",
                "c-opening c-named c-let-in",
            ),
            (
                "close not_allowed, down handshake the peer has another cookie",
                "c-proved",
            ),
            (
                "close protocol, down handshake no handshake message begins with 0x61",
                "shaking !c-opening !c-named !c-asked !c-let-in !c-proved !s-called",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "last word and tick",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: ack",
                "c-opening c-named c-let-in",
            ),
            ("up n@h, peer tick, read", "c-proved"),
            (
                "close protocol, down handshake a handshake message out of order: reply",
                "s-waiting s-alive s-old",
            ),
            (
                "close not_allowed, down handshake the peer has another cookie",
                "s-pausing",
            ),
            (
                "write c, up n@h, open d0, open d1, open d2, open d3, peer tick, read",
                "s-challenged",
            ),
            (
                "write c, up n@h, open d0, open d1, open d2, open d3, messages, peer tick, read",
                "s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
    (
        "last word and x",
        &[
            ("-", "connecting c-asked s-called words over"),
            (
                "close protocol, down handshake a handshake message out of order: ack",
                "c-opening c-named c-let-in",
            ),
            (
                "up n@h, close protocol, down bytes on the control stream that are not ticks",
                "c-proved",
            ),
            (
                "close protocol, down handshake a handshake message out of order: reply",
                "s-waiting s-alive s-old",
            ),
            (
                "close not_allowed, down handshake the peer has another cookie",
                "s-pausing",
            ),
            (
                "write c, up n@h, open d0, open d1, open d2, open d3, close protocol, down bytes on the control \
            stream that are not ticks",
                "s-challenged",
            ),
            (
                "write c, up n@h, open d0, open d1, open d2, open d3, messages, close protocol, down bytes on \
            the control stream that are not ticks",
                "s-early",
            ),
            (
                "close protocol, down bytes on the control stream that are not ticks",
                "up leaving",
            ),
        ],
    ),
];
