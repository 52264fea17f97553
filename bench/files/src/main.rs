//! What operations on files cost where: the ground for `FileOp`'s ways.
//!
//! ```text
//! cargo run --release -p files-bench -- [--rounds N] [--only NAME] [--disk FOLDER]
//! ```
//!
//! Every case runs in all its ways, one after another, round after round. Told
//! are medians over the rounds of what an operation takes: processor time of
//! the whole process, kernel threads that work for it included, and time.
//!
//! | module | what it holds |
//! |---|---|
//! | `cases` | what is done |
//! | `ways` | where: on the spot, by the ring, on the pool, as a `File` does it |

mod cases;
mod ways;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;

use cases::{CASES, Files};
use ways::{Houses, WAYS};

/// What operations on files cost where.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    /// Rounds of each case.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only cases whose name has this in it.
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Where on a disk the files are made.
    #[arg(long, value_name = "FOLDER", default_value = "target")]
    disk: PathBuf,
    /// Where in memory they are made.
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    memory: PathBuf,
}

/// Processor time and time.
#[derive(Clone, Copy)]
struct Cost {
    cpu: f64,
    wall: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let only = args.only.as_deref().unwrap_or("");
    let chosen: Vec<_> = CASES.iter().filter(|c| c.name.contains(only)).collect();
    if chosen.is_empty() {
        bail!("no case has that in its name");
    }
    let files = Files::make(&args.disk, &args.memory)?;
    let houses = Houses::build()?;
    let names: Vec<_> = WAYS.iter().map(|way| way.name).collect();
    println!("CPU us an operation (time us)\n");
    println!("| case | {} |", names.join(" | "));
    println!("|---|{}", "---|".repeat(names.len()));
    for case in chosen {
        let mut costs = vec![Vec::new(); WAYS.len()];
        for round in 0..=args.rounds {
            for (way, costs) in WAYS.iter().zip(&mut costs) {
                let Some(step) = (way.step)(case) else {
                    continue;
                };
                if let Some(prepare) = case.prepare {
                    prepare(&files);
                }
                let cost = measure(|| houses.run(way, case, step, &files));
                // The first is for the caches.
                if round > 0 {
                    costs.push(cost);
                }
            }
        }
        let cells: Vec<_> = costs.iter().map(|costs| cell(costs, case.count)).collect();
        println!("| {} | {} |", case.name, cells.join(" | "));
    }
    Ok(())
}

fn measure(f: impl FnOnce()) -> Cost {
    let (cpu, begun) = (cpu(), Instant::now());
    f();
    Cost {
        wall: begun.elapsed().as_secs_f64(),
        cpu: (self::cpu() - cpu).as_secs_f64(),
    }
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: it is written during the call.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn cell(costs: &[Cost], count: usize) -> String {
    if costs.is_empty() {
        return "-".to_owned();
    }
    let us = |of: fn(&Cost) -> f64| {
        let mut all: Vec<_> = costs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2] * 1e6 / count as f64
    };
    format!("{:.2} ({:.1})", us(|c| c.cpu), us(|c| c.wall))
}
