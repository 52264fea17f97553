//! What is asked of the runtime and of std answers the same.

use std::fmt::Debug;
use std::io;

/// Both answer the same value, or the same error.
#[track_caller]
pub(crate) fn same<T: Debug + PartialEq<U>, U: Debug>(ours: io::Result<T>, std: io::Result<U>) {
    match (ours, std) {
        (Ok(ours), Ok(std)) => assert_eq!(ours, std),
        (Err(ours), Err(std)) => same_errors(&ours, &std),
        (ours, std) => panic!("{ours:?}, but std: {std:?}"),
    }
}

/// Both fail, and in the same way.
#[track_caller]
pub(crate) fn same_error<T: Debug, U: Debug>(ours: io::Result<T>, std: io::Result<U>) {
    match (ours, std) {
        (Err(ours), Err(std)) => same_errors(&ours, &std),
        (ours, std) => panic!("{ours:?}, but std: {std:?}, and both should fail"),
    }
}

/// Both succeed, or both fail in the same way.
#[track_caller]
pub(crate) fn alike<T: Debug, U: Debug>(ours: io::Result<T>, std: io::Result<U>) {
    same(ours.map(drop), std.map(drop));
}

#[track_caller]
fn same_errors(ours: &io::Error, std: &io::Error) {
    assert_eq!(ours.kind(), std.kind(), "{ours}, but std: {std}");
    // Where ours says more, the number is gone.
    if ours.get_ref().is_none() {
        assert_eq!(ours.raw_os_error(), std.raw_os_error(), "{ours}, {std}");
    }
}
