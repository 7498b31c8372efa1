//! Errors that were logged, by any crate.

use std::{
    cell::RefCell,
    fmt::{Debug, Write as _},
    sync::Once,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

thread_local! {
    static FIRST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Has errors noted from now on, by the thread that logs them.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Somebody else's subscriber stays: then errors are not counted.
        let _ = tracing::subscriber::set_global_default(Errors);
    });
}

/// The first error of this thread since the last call.
pub(super) fn take() -> Option<String> {
    FIRST.take()
}

struct Errors;

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(format!("{}:", event.metadata().target()));
        event.record(&mut text);
        FIRST.with_borrow_mut(|first| _ = first.get_or_insert(text.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // A string takes whatever is written.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
