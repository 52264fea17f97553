//! Command-line values.

use std::io;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::ValueEnum;
use isochrome::{Builder, DriverChoice, Runtime};

/// What carries out the I/O.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Driver {
    /// The proactor if it works here, else the reactor
    Auto,
    /// epoll
    Reactor,
    /// io_uring
    Proactor,
}

impl From<Driver> for DriverChoice {
    fn from(driver: Driver) -> DriverChoice {
        match driver {
            Driver::Auto => DriverChoice::Auto,
            Driver::Reactor => DriverChoice::Reactor,
            Driver::Proactor => DriverChoice::Proactor,
        }
    }
}

/// The runtime asked for. A machine that does not say how many cores it has
/// counts as one.
pub(crate) fn runtime(driver: Driver, workers: Option<u16>) -> io::Result<Runtime> {
    let workers = match workers {
        Some(n) => usize::from(n),
        None => available_parallelism().map_or(1, usize::from),
    };
    Builder::new()
        .workers(workers)
        .driver(driver.into())
        .build()
}

/// A span of time above zero, in seconds, with or without a fraction.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.parse().map_err(|e| format!("{e}"))?;
    match Duration::try_from_secs_f64(number) {
        Ok(span) if !span.is_zero() => Ok(span),
        Ok(_) => Err("must be more than 0".into()),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_fractions_and_bounds() {
        assert_eq!(seconds("2"), Ok(Duration::from_secs(2)));
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for wrong in ["0", "-1", "nan", "inf", "1e30", "soon", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
