//! Nothing stands between the driver and the kernel. The twin of `faults`.

pub(crate) use crate::ring::Ring;
use crate::setup::Config;

/// The sizes of a worker's ring.
pub(crate) fn config() -> Config {
    Config::default()
}
