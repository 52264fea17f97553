//! Data with a color: `ColorCell`.

mod support;

use std::cell::RefCell;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use isochrome_runtime::{CellGuard, Color, ColorCell, Runtime, spawn, yield_now};
use support::{Occupied, OnDrop, foreign_block_on, keep_for_ever, message, poll_once, runtime};

mod workers {
    crate::support::on_workers!(
        steps_from_everywhere_lose_nothing,
        a_borrow_under_the_color,
        a_borrow_under_another_color_or_none_is_an_error,
        a_second_borrow_is_an_error,
        a_step_that_meets_a_borrow_panics,
        a_step_within_a_step_panics,
        a_forgotten_guard_keeps_all_others_out,
        a_guard_that_left_the_color_keeps_others_out,
        a_guard_across_an_await_keeps_others_out,
        a_panic_ends_the_borrow,
        into_inner_needs_the_last_handle,
        the_last_handle_drops_the_value_under_its_color,
        the_value_is_dropped_after_the_end,
        a_queued_step_owns_a_handle,
        a_forgotten_step_happens,
        a_runtime_inside_a_step_has_another_color,
        the_cell_of_another_runtime,
    );
}

/// Adds one, if this runs under the cell's color.
fn at_once(cell: &ColorCell<usize>) -> bool {
    match cell.get() {
        Ok(mut value) => {
            *value += 1;
            true
        }
        Err(e) => {
            assert!(e.is_outside(), "{e}");
            false
        }
    }
}

fn steps_from_everywhere_lose_nothing(workers: usize) {
    const EACH: usize = 300;
    let rt = runtime(workers);
    let cell = rt.handle().color().cell(0);
    let threads: Vec<_> = (0..2)
        .map(|_| {
            let cell = cell.clone();
            thread::spawn(move || {
                for _ in 0..EACH {
                    foreign_block_on(cell.with(|n| *n += 1));
                }
            })
        })
        .collect();
    rt.block_on(async {
        let tasks: Vec<_> = (0..64)
            .map(|i| {
                let cell = cell.clone();
                let color = match i % 3 {
                    0 => Color::DEFAULT,
                    1 => cell.color(),
                    _ => Color::new(),
                };
                color.spawn(async move {
                    for n in 0..EACH {
                        if !at_once(&cell) {
                            cell.with(|n| *n += 1).await;
                        }
                        if n % 16 == 0 {
                            yield_now().await;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    for thread in threads {
        while !thread.is_finished() {
            rt.block_on(yield_now());
        }
        thread.join().unwrap();
    }
    assert_eq!(cell.into_inner().unwrap(), 66 * EACH);
}

fn a_borrow_under_the_color(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let mine = Color::DEFAULT.cell(vec![1]);
        mine.get().unwrap().push(2);
        assert_eq!(*mine.get().unwrap(), [1, 2]);
        let color = Color::new();
        let (cell, inner) = (color.cell(1), color.cell(10));
        assert_eq!(cell.color(), color);
        let own = cell.clone();
        let task = color.spawn(async move { *own.get().unwrap() += 1 });
        task.await.unwrap();
        // Another cell of the color, inside a step.
        let step = cell.with(move |n| *n + *inner.get().unwrap());
        assert_eq!(step.await, 12);
    });
}

fn a_borrow_under_another_color_or_none_is_an_error(workers: usize) {
    let rt = runtime(workers);
    let cell = rt.handle().color_of(7).cell(1);
    let line = format!("{}:{}", file!(), line!() - 1);
    let none = cell.get().unwrap_err();
    assert!(none.is_outside() && !none.is_borrowed());
    let text = none.to_string();
    for part in ["Color(7)", "no color", &line] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    assert_eq!(std::io::Error::from(none).to_string(), text);
    rt.block_on(async {
        let task = Color::of(8).spawn(async move { cell.get().unwrap_err().to_string() });
        let text = task.await.unwrap();
        for part in ["Color(7)", "Color(8)", &line] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    });
    // On a foreign thread a step has the word, and no worker that says so.
    let cell = rt.handle().color().cell(1);
    let inner = cell.clone();
    let step = foreign_block_on(cell.color().run(move || inner.get().is_err()));
    assert!(step);
}

fn a_second_borrow_is_an_error(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let cell = Color::DEFAULT.cell(1);
        let guard = cell.get().unwrap();
        let line = format!("{}:{}", file!(), line!() - 1);
        let error = cell.get().unwrap_err();
        assert!(error.is_borrowed() && !error.is_outside());
        assert!(error.to_string().contains(&line), "{error}");
        assert!(error.to_string().contains("Color(default)"), "{error}");
        drop(guard);
        *cell.get().unwrap() += 1;
        assert_eq!(*cell.get().unwrap(), 2);
    });
}

fn panics(f: impl FnOnce()) -> String {
    message(catch_unwind(AssertUnwindSafe(f)).unwrap_err())
}

fn a_step_that_meets_a_borrow_panics(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let cell = Color::DEFAULT.cell(1);
        let guard = cell.get().unwrap();
        let text = panics(|| assert!(poll_once(&mut pin!(cell.with(|n| *n += 1))).is_pending()));
        assert!(text.contains("borrowed already"), "{text}");
        drop(guard);
        assert_eq!(cell.with(|n| *n).await, 1);
    });
}

fn a_step_within_a_step_panics(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        for color in [Color::new(), Color::DEFAULT] {
            let cell = color.cell(1);
            let inner = cell.clone();
            let text = cell.with(move |n| {
                *n += 1;
                assert!(inner.get().unwrap_err().is_borrowed());
                panics(|| assert!(poll_once(&mut pin!(inner.with(|n| *n += 1))).is_pending()))
            });
            let text = text.await;
            assert!(text.contains("borrowed already"), "{text}");
            assert_eq!(cell.with(|n| *n).await, 2);
        }
    });
    // On a foreign thread the inner step finds the color taken, and waits.
    let cell = rt.handle().color().cell(1);
    let inner = cell.clone();
    let step = cell.with(move |_| poll_once(&mut pin!(inner.with(|n| *n += 1))).is_pending());
    assert!(foreign_block_on(step));
}

fn a_forgotten_guard_keeps_all_others_out(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let cell = Color::DEFAULT.cell(String::from("kept"));
        forget(cell.get().unwrap());
        assert!(cell.get().unwrap_err().is_borrowed());
        assert_eq!(cell.into_inner().unwrap(), "kept");
    });
}

fn a_guard_that_left_the_color_keeps_others_out(workers: usize) {
    thread_local! {
        static KEPT: RefCell<Vec<CellGuard<'static, usize>>> = const { RefCell::new(Vec::new()) };
    }
    let rt = runtime(workers);
    let color = rt.handle().color();
    let cell: &'static ColorCell<usize> = keep_for_ever(color.cell(1));
    rt.block_on(async {
        // Inline, so that it is this thread's.
        let keep = || KEPT.with_borrow_mut(|kept| kept.push(cell.get().unwrap()));
        assert!(poll_once(&mut pin!(color.run(keep))).is_ready());
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let step = || cell.with(|n| *n += 1);
                thread::spawn(move || panics(|| foreign_block_on(step())))
            })
            .collect();
        // The guard is as good as ever.
        KEPT.with_borrow_mut(|kept| *kept[0] += 1);
        let under = color.spawn(async move { cell.get().unwrap_err().is_borrowed() });
        assert!(under.await.unwrap());
        for thread in threads {
            while !thread.is_finished() {
                yield_now().await;
            }
            assert!(thread.join().unwrap().contains("borrowed already"));
        }
        KEPT.take().clear();
        assert_eq!(cell.with(|n| *n).await, 2);
    });
}

fn a_guard_across_an_await_keeps_others_out(workers: usize) {
    let rt = runtime(workers);
    rt.block_on(async {
        let cell = Color::DEFAULT.cell(0);
        let other = cell.clone();
        let mut guard = cell.get().unwrap();
        let task = spawn(async move { other.get().unwrap_err().is_borrowed() });
        assert!(task.await.unwrap());
        *guard += 1;
        drop(guard);
        assert_eq!(*cell.get().unwrap(), 1);
    });
}

fn a_panic_ends_the_borrow(workers: usize) {
    let rt = runtime(workers);
    let cell = rt.handle().color().cell(1);
    let text = panics(|| rt.block_on(cell.with(|_| panic!("oh"))));
    assert_eq!(text, "oh");
    assert_eq!(rt.block_on(cell.with(|n| *n)), 1);
}

fn into_inner_needs_the_last_handle(workers: usize) {
    let rt = runtime(workers);
    let cell = rt.handle().color().cell(vec![1]);
    let other = cell.clone();
    let cell = cell.into_inner().unwrap_err();
    let occupied = Occupied::new(&cell.color());
    drop(other);
    // The color is busy, but nobody else can reach the value.
    assert_eq!(cell.into_inner().unwrap(), [1]);
    drop(occupied);
}

type Drops = Arc<Mutex<Vec<Option<Color>>>>;

/// Notes the colors under which it is dropped.
fn noted(drops: &Drops) -> OnDrop<impl FnMut() + Send + use<>> {
    let drops = drops.clone();
    OnDrop(move || drops.lock().unwrap().push(Color::current()))
}

fn settle(rt: &Runtime, drops: &Drops, count: usize) {
    while drops.lock().unwrap().len() < count {
        rt.block_on(yield_now());
    }
}

fn the_last_handle_drops_the_value_under_its_color(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let drops = Drops::default();
    rt.block_on(async {
        let cell = color.cell(noted(&drops));
        drop(cell.clone());
        assert!(drops.lock().unwrap().is_empty());
        // Idle: at once.
        drop(cell);
        assert_eq!(*drops.lock().unwrap(), [Some(color.clone())]);
    });
    let cell = color.cell(noted(&drops));
    let occupied = Occupied::new(&color);
    drop(cell);
    assert_eq!(drops.lock().unwrap().len(), 1, "the color is busy");
    drop(occupied);
    settle(&rt, &drops, 2);
    // A pinned color, from another thread.
    let cell = rt.block_on(async { Color::DEFAULT.cell(noted(&drops)) });
    thread::spawn(move || drop(cell)).join().unwrap();
    settle(&rt, &drops, 3);
    assert_eq!(
        *drops.lock().unwrap(),
        [Some(color.clone()), Some(color), Some(Color::DEFAULT)]
    );
}

fn the_value_is_dropped_after_the_end(workers: usize) {
    let rt = runtime(workers);
    let color = rt.handle().color();
    let drops = Drops::default();
    let cells = [color.cell(noted(&drops)), color.cell(noted(&drops))];
    let pinned = rt.block_on(async { Color::DEFAULT.cell(noted(&drops)) });
    let queued = color.cell(noted(&drops));
    let occupied = Occupied::new(&color);
    drop(queued);
    let ended = thread::scope(|scope| {
        // The end waits for what is queued, and that for the step.
        scope.spawn(move || drop(occupied));
        drop(rt);
        drops.lock().unwrap().len()
    });
    assert_eq!(ended, 1, "dropped once, before the end");
    let [idle, busy] = cells;
    drop(idle);
    let occupied = Occupied::new(&color);
    drop(busy);
    drop(occupied);
    drop(pinned);
    assert_eq!(drops.lock().unwrap().len(), 4);
}

fn a_queued_step_owns_a_handle(workers: usize) {
    let rt = runtime(workers);
    let drops = Drops::default();
    let cell = rt.handle().color().cell(noted(&drops));
    let occupied = Occupied::new(&cell.color());
    let step = cell.clone();
    let mut step = Box::pin(async move { step.with(|_| ()).await });
    assert_eq!(poll_once(&mut step), Poll::Pending);
    drop(step);
    let cell = cell.into_inner().err().expect("the queue has a handle");
    drop(cell);
    assert!(drops.lock().unwrap().is_empty());
    drop(occupied);
    settle(&rt, &drops, 1);
    assert!(drops.lock().unwrap()[0].is_some(), "under its color");
}

fn a_forgotten_step_happens(workers: usize) {
    let rt = runtime(workers);
    let count = Arc::new(AtomicUsize::new(0));
    let cell = rt.handle().color().cell(());
    let occupied = Occupied::new(&cell.color());
    let (own, counted) = (cell.clone(), count.clone());
    let step = async move {
        own.with(move |()| counted.fetch_add(1, Ordering::SeqCst))
            .await
    };
    let mut step = Box::pin(step);
    assert_eq!(poll_once(&mut step), Poll::Pending);
    keep_for_ever(step);
    drop(occupied);
    rt.block_on(async {
        cell.with(|()| ()).await;
        while count.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
    });
}

fn a_runtime_inside_a_step_has_another_color(workers: usize) {
    let rt = runtime(workers);
    let cell = rt.handle().color().cell(1);
    let inner = cell.clone();
    let step = cell.with(move |n| {
        let nested = runtime(1);
        nested.block_on(async {
            assert_eq!(Color::current(), Some(Color::DEFAULT));
            assert!(inner.get().unwrap_err().is_outside());
            // It waits for a step that waits for it; nobody blocks in it.
            assert!(poll_once(&mut pin!(inner.with(|n| *n += 1))).is_pending());
        });
        *n += 1;
    });
    rt.block_on(step);
    assert_eq!(rt.block_on(cell.with(|n| *n)), 2);
}

fn the_cell_of_another_runtime(workers: usize) {
    let (rt, far) = (runtime(workers), runtime(workers));
    let cell = far.handle().color().cell(0);
    let pinned = far.block_on(async { Color::DEFAULT.cell(0) });
    rt.block_on(async {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let cell = cell.clone();
                Color::new().spawn(async move {
                    for _ in 0..50 {
                        cell.with(|n| *n += 1).await;
                        yield_now().await;
                    }
                })
            })
            .collect();
        // Steps of one's default color are queued, never inline elsewhere; also
        // where this runtime's worker 0 looks like that one.
        assert!(poll_once(&mut pin!(pinned.with(|n| *n += 1))).is_pending());
        assert!(pinned.get().unwrap_err().is_outside());
        for task in tasks {
            while !task.is_finished() {
                far.block_on(yield_now());
                yield_now().await;
            }
            task.await.unwrap();
        }
    });
    assert_eq!(far.block_on(cell.with(|n| *n)), 400);
    assert_eq!(far.block_on(pinned.with(|n| *n)), 0);
}
