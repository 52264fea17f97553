//! The in-place machine of the delimited protocol against a reference that
//! is too simple to be wrong, over any split of any input.
//!
//! ```text
//! cargo +nightly fuzz run delimited -- -max_total_time=60
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../examples/echo_server/delimited.rs"]
mod delimited;

use delimited::Delimited;

/// The whole stream at once, into a buffer of its own.
fn reference(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    let mut rest = input.iter();
    while rest.any(|&b| b == b'^') {
        let message = rest.by_ref().take_while(|&&b| b != b'$');
        output.extend(message.map(|b| b.wrapping_add(1)));
    }
    output
}

/// What the machine answers when the input arrives in reads of these sizes (0
/// is a read of nothing), and what is left after them at once.
fn in_reads(input: &[u8], sizes: &[u8]) -> Vec<u8> {
    let mut machine = Delimited::default();
    let mut output = Vec::new();
    let mut rest = input.to_vec();
    let mut read = |bytes: &mut [u8]| {
        let len = machine.transform(bytes);
        assert!(len <= bytes.len(), "longer than its input");
        output.extend_from_slice(&bytes[..len]);
    };
    let mut rest = rest.as_mut_slice();
    for &size in sizes {
        let size = usize::from(size).min(rest.len());
        let (now, later) = rest.split_at_mut(size);
        read(now);
        rest = later;
    }
    read(rest);
    output
}

// The first byte says how many of the following are sizes of reads; all the
// others are input.
fuzz_target!(|data: &[u8]| {
    let Some((&splits, data)) = data.split_first() else {
        return;
    };
    let (sizes, input) = data.split_at(usize::from(splits).min(data.len()));
    assert_eq!(in_reads(input, sizes), reference(input));
    assert_eq!(in_reads(input, &vec![1; input.len()]), reference(input));
});
