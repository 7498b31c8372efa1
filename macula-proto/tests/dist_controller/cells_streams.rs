use crate::cells::Row;

/// Of data streams and streams of users.
pub(crate) const STREAMS: &[Row] = &[
    (
        "message",
        &[
            ("-", "connecting shaking c-inbox words over"),
            ("messages", "up !c-inbox leaving"),
        ],
    ),
    (
        "message on d0",
        &[
            ("-", "connecting shaking c-inbox words over"),
            ("messages", "up !c-inbox leaving"),
        ],
    ),
    (
        "half a message",
        &[
            ("-", "connecting shaking up !c-half leaving words over"),
            ("messages", "c-half"),
        ],
    ),
    (
        "data tick",
        &[
            ("-", "connecting shaking up !c-half leaving words over"),
            ("messages", "c-half"),
        ],
    ),
    (
        "message and too long",
        &[
            (
                "close limit, down a distribution message of 256 bytes exceeds the limit of 100",
                "connecting shaking c-inbox words",
            ),
            (
                "messages, close limit, down a distribution message of 256 bytes exceeds the limit of 100",
                "up !c-inbox !c-half leaving",
            ),
            (
                "messages, close limit, down a distribution message of 24641536 bytes exceeds the limit of 100",
                "c-half",
            ),
            ("-", "over"),
        ],
    ),
    (
        "bytes on my data stream",
        &[("-", "connecting shaking up leaving words over")],
    ),
    (
        "bytes on a user stream",
        &[("-", "connecting shaking up leaving words over")],
    ),
    ("bytes on #2", &[("-", "connecting shaking up leaving words over")]),
    (
        "Finished c",
        &[
            (
                "close closed, down handshake the connection was lost",
                "connecting shaking",
            ),
            ("-", "up leaving words over"),
        ],
    ),
    (
        "Finished theirs d3",
        &[("-", "connecting shaking up leaving words over")],
    ),
    ("Finished my d3", &[("-", "connecting shaking up leaving words over")]),
    ("Finished mine1", &[("-", "connecting shaking up leaving words over")]),
    ("Finished #2", &[("-", "connecting shaking up leaving words over")]),
    (
        "Reset c",
        &[
            (
                "close closed, down handshake the connection was lost",
                "connecting shaking",
            ),
            ("close closed, down the control stream has ended", "up"),
            ("-", "leaving words over"),
        ],
    ),
    (
        "Reset theirs d3",
        &[
            ("close closed, down data stream 3 ended", "connecting shaking up"),
            ("-", "leaving words over"),
        ],
    ),
    ("Reset my d3", &[("-", "connecting shaking up leaving words over")]),
    (
        "Reset mine1",
        &[
            (
                "-",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "tell 1 mine1 Reset(Code(cancelled))",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    ("Reset #2", &[("-", "connecting shaking up leaving words over")]),
    (
        "Stopped c",
        &[
            (
                "close closed, down handshake the connection was lost",
                "connecting shaking",
            ),
            ("close closed, down the control stream has ended", "up"),
            ("-", "leaving words !c-words-sent !s-words-sent over"),
            (
                "close refused, down handshake the earlier connection is alive",
                "c-words-sent",
            ),
            ("close refused, down handshake turned away: NotAllowed", "s-words-sent"),
        ],
    ),
    (
        "Stopped theirs d3",
        &[("-", "connecting shaking up leaving words over")],
    ),
    (
        "Stopped my d3",
        &[
            ("close closed, down data stream 3 ended", "connecting shaking up"),
            ("-", "leaving words over"),
        ],
    ),
    (
        "Stopped mine1",
        &[
            (
                "-",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "tell 1 mine1 Stopped(Code(cancelled))",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    ("Stopped #2", &[("-", "connecting shaking up leaving words over")]),
    (
        "Readable mine1",
        &[
            (
                "-",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "tell 1 mine1 Readable",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    ("Readable mine9", &[("-", "connecting shaking up leaving words over")]),
    (
        "Writable mine1",
        &[
            (
                "-",
                "connecting shaking s-unopened s-unopened-taken s-undrainable words over",
            ),
            (
                "tell 1 mine1 Writable",
                "up !s-unopened !s-unopened-taken leaving !s-undrainable",
            ),
        ],
    ),
    (
        "Delivered c",
        &[
            (
                "-",
                "connecting shaking up leaving words !c-words-sent !s-words-sent over",
            ),
            (
                "close refused, down handshake the earlier connection is alive",
                "c-words-sent",
            ),
            ("close refused, down handshake turned away: NotAllowed", "s-words-sent"),
        ],
    ),
    ("Delivered d3", &[("-", "connecting shaking up leaving words over")]),
    (
        "Delivered all",
        &[
            (
                "-",
                "connecting shaking up leaving !c-finished words !c-words-sent !s-words-sent over",
            ),
            ("close shutdown, down closed", "c-finished"),
            (
                "close refused, down handshake the earlier connection is alive",
                "c-words-sent",
            ),
            ("close refused, down handshake turned away: NotAllowed", "s-words-sent"),
        ],
    ),
    ("Delivered mine1", &[("-", "connecting shaking up leaving words over")]),
];
