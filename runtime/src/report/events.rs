//! Reports as events of the crate `tracing`.

use super::Report;

pub(super) fn emit(report: &Report) {
    match report {
        Report::HotColor {
            name,
            made_at,
            share,
            window,
            worker,
        } => tracing::warn!(
            target: "isochrome",
            color = &**name,
            made_at = %made_at,
            share,
            window = ?window,
            worker,
            "hot color",
        ),
        Report::LongPoll {
            spawned_at,
            color,
            took,
            worker,
            unreported,
        } => tracing::warn!(
            target: "isochrome",
            spawned_at = %spawned_at,
            color = color.as_deref(),
            took = ?took,
            worker,
            unreported,
            "long poll",
        ),
        Report::AcceptStalled {
            listener,
            errno,
            since,
            shed,
        } => tracing::warn!(
            target: "isochrome",
            listener = &**listener,
            errno,
            since = ?since,
            shed,
            "accept stalled",
        ),
        Report::AcceptResumed {
            listener,
            after,
            shed,
        } => tracing::warn!(
            target: "isochrome",
            listener = &**listener,
            after = ?after,
            shed,
            "accept resumed",
        ),
    }
}
