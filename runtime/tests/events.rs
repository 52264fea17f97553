//! With the feature `tracing`: reports are events, once each, and nothing else
//! is.

#![cfg(feature = "tracing")]

#[allow(unused_imports, unused_macros, reason = "one test on one worker")]
mod support;

use std::fmt::{Debug, Write};
use std::sync::mpsc;
use std::time::Duration;

use isochrome_runtime::Builder;
use support::World;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, dispatcher};

/// Sends each event as a line.
struct Lines(mpsc::Sender<String>);

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn event(&self, event: &Event<'_>) {
        assert_eq!(*event.metadata().level(), Level::WARN);
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        self.0.send(line.0).unwrap();
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        unreachable!("there are no spans")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[test]
fn reports_are_events() {
    let _watch = support::watchdog("reports_are_events");
    let (send, receive) = mpsc::channel();
    dispatcher::set_global_default(dispatcher::Dispatch::new(Lines(send))).unwrap();
    let builder = Builder::new().workers(1);
    let rt = World::new().build(builder.clone().long_poll(Duration::from_millis(1)));
    let color = rt.handle().color_named("slow");
    // It is hot as well: one poll fills the window.
    let task = color.spawn(async { std::thread::sleep(Duration::from_millis(1_100)) });
    let here = format!("{}:{}:", file!(), line!() - 1);
    rt.block_on(task).unwrap();
    let hot = receive.recv().unwrap();
    assert!(hot.starts_with("isochrome message=hot color"), "{hot}");
    assert!(
        hot.contains(" color=\"slow\"") && hot.contains(" share="),
        "{hot}"
    );
    let wanted = format!("spawned_at={here}");
    let long = receive.iter().find(|line| line.contains(&wanted)).unwrap();
    assert!(long.starts_with("isochrome message=long poll"), "{long}");
    assert!(
        long.contains(" color=\"slow\"") && long.contains(" took=1.1"),
        "{long}"
    );

    // Nobody asked for these.
    let rt = World::new().build(builder);
    let task = rt
        .handle()
        .color()
        .spawn(async { std::thread::sleep(Duration::from_millis(5)) });
    rt.block_on(task).unwrap();
    drop(rt);
    assert_eq!(
        receive
            .try_iter()
            .filter(|line| !line.contains(&here))
            .count(),
        0
    );
}
