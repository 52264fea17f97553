//! Where it is done.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Result;
use isochrome::fs::File;
use isochrome::{Builder, DriverChoice, Runtime, spawn};
use isochrome_runtime::Descriptor;
use isochrome_runtime::op::{FileOp, Inline, Port, Yield};

use crate::cases::{Case, Files, Offsets, Page, What, by_std, operation};

pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// How it does a case, if it does.
    pub(crate) step: fn(&Case) -> Option<Step>,
    driver: DriverChoice,
    depth: usize,
}

/// How one operation is done.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Step {
    /// By std, on this thread.
    Std,
    /// By the driver, or the pool where there is no ring; not on the spot.
    Driver,
    /// As a `File` does it.
    File,
}

pub(crate) const WAYS: [Way; 8] = [
    way("std", |_| Some(Step::Std), DriverChoice::Reactor, 1),
    way("ring", |_| Some(Step::Driver), DriverChoice::Proactor, 1),
    way(
        "ring x32",
        |_| Some(Step::Driver),
        DriverChoice::Proactor,
        32,
    ),
    way("pool", |_| Some(Step::Driver), DriverChoice::Reactor, 1),
    way(
        "pool x32",
        |_| Some(Step::Driver),
        DriverChoice::Reactor,
        32,
    ),
    way("File, proactor", file, DriverChoice::Proactor, 1),
    way("File, proactor x32", file, DriverChoice::Proactor, 32),
    way("File, reactor x32", file, DriverChoice::Reactor, 32),
];

fn file(case: &Case) -> Option<Step> {
    matches!(case.what, What::Read | What::Write).then_some(Step::File)
}

const fn way(
    name: &'static str,
    step: fn(&Case) -> Option<Step>,
    driver: DriverChoice,
    depth: usize,
) -> Way {
    Way {
        name,
        step,
        driver,
        depth,
    }
}

pub(crate) struct Houses {
    reactor: Runtime,
    proactor: Runtime,
}

impl Houses {
    pub(crate) fn build() -> Result<Houses> {
        let build = |driver| Builder::new().driver(driver).workers(1).build();
        Ok(Houses {
            reactor: build(DriverChoice::Reactor)?,
            proactor: build(DriverChoice::Proactor)?,
        })
    }

    pub(crate) fn run(&self, way: &Way, case: &Case, step: Step, files: &Files) {
        let path = Arc::new(files.path().to_owned());
        if step == Step::Std {
            let (file, mut page) = (files.file(case.place), Page::new());
            let mut offsets = Offsets(1);
            for _ in 0..case.count {
                by_std(case.what, file, &mut page, offsets.next(), &path);
            }
            return;
        }
        let runtime = match way.driver {
            DriverChoice::Proactor => &self.proactor,
            _ => &self.reactor,
        };
        let copy = || files.file(case.place).try_clone().expect("a descriptor");
        runtime.block_on(async {
            let mut tasks = Vec::new();
            let shared = Arc::new(File::from_std(copy()).expect("a file"));
            let fd = OwnedFd::from(copy());
            let runtime = runtime.handle().clone();
            let descriptor = match case.what {
                What::OpenAndClose => Descriptor::working_directory(&runtime),
                _ => Descriptor::blocking(fd, &runtime).expect("a descriptor"),
            };
            for i in 0..way.depth {
                let (what, count) = (case.what, case.count / way.depth);
                let (shared, path) = (shared.clone(), path.clone());
                let port = Port::new(descriptor.clone());
                let mut offsets = Offsets(i as u64 + 1);
                tasks.push(spawn(async move {
                    for _ in 0..count {
                        let (page, at) = (Page::new(), offsets.next());
                        if step == Step::File {
                            match what {
                                What::Read => drop(shared.read_at(page, at).await.0.unwrap()),
                                _ => drop(shared.write_at(page, at).await.0.unwrap()),
                            }
                            continue;
                        }
                        let op = operation(what, page, at, Inline::Never, &path);
                        let (completion, _) = port.file(op).await;
                        if let Yield::File(fd) = completion.expect("the operation") {
                            port.file(FileOp::Close(Some(fd))).await.0.expect("a close");
                        }
                    }
                }));
            }
            for task in tasks {
                task.await.expect("a task");
            }
        });
    }
}
