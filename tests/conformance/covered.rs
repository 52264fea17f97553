//! Which calls are tested where.

use std::fs;
use std::path::{Path, PathBuf};

/// The sources of the network surface, and the tests that make their calls.
/// Those of this suite come first: they hold the call against std. What has no
/// row here is tested as the row's other tests say, and std has nothing like it
/// (leases, owned buffers, poll forms, batches, descriptors that travel).
const TABLE: &[(&str, &[&str])] = &[
    ("addr.rs", &["names.rs", "tcp.rs"]),
    (
        "borrowed.rs",
        &["conformance/tcp.rs", "conformance/unix.rs", "poll_write.rs"],
    ),
    ("connect.rs", &["tcp_connect.rs"]),
    ("custom.rs", &["conformance/polls.rs", "custom.rs"]),
    (
        "datagram.rs",
        &[
            "conformance/polls.rs",
            "conformance/readiness.rs",
            "udp.rs",
            "clones.rs",
        ],
    ),
    ("inherited.rs", &["handed_over.rs"]),
    (
        "listener.rs",
        &[
            "conformance/tcp.rs",
            "conformance/unix.rs",
            "accept.rs",
            "clones.rs",
            "tcp.rs",
        ],
    ),
    ("options.rs", &["conformance/tcp.rs", "tcp_options.rs"]),
    (
        "pipe/ends.rs",
        &[
            "conformance/polls.rs",
            "conformance/pipes.rs",
            "conformance/readiness.rs",
            "clones.rs",
            "pipe.rs",
        ],
    ),
    ("pipe/open.rs", &["conformance/pipes.rs", "pipe.rs"]),
    ("feed.rs", &["feed.rs"]),
    ("process.rs", &["process.rs"]),
    ("readiness.rs", &["conformance/readiness.rs"]),
    (
        "reading.rs",
        &[
            "conformance/polls.rs",
            "conformance/tcp.rs",
            "conformance/unix.rs",
            "tcp_stream.rs",
        ],
    ),
    ("socket.rs", &["conformance/tcp.rs", "tcp_options.rs"]),
    ("split.rs", &["tcp_stream.rs", "transfer.rs"]),
    (
        "stream.rs",
        &[
            "conformance/polls.rs",
            "conformance/tcp.rs",
            "conformance/unix.rs",
            "clones.rs",
            "tcp_stream.rs",
            "unix_stream.rs",
        ],
    ),
    ("tcp.rs", &["conformance/tcp.rs", "tcp.rs", "into_std.rs"]),
    ("transfer.rs", &["conformance/polls.rs", "fs_transfer.rs"]),
    (
        "udp/message.rs",
        &[
            "conformance/polls.rs",
            "conformance/udp.rs",
            "udp_messages.rs",
        ],
    ),
    (
        "udp/mod.rs",
        &["conformance/polls.rs", "conformance/udp.rs", "udp.rs"],
    ),
    (
        "udp/options.rs",
        &["conformance/udp.rs", "udp.rs", "udp_messages.rs"],
    ),
    ("unix/bind.rs", &["unix_stream.rs", "unix_messages.rs"]),
    ("unix/cred.rs", &["unix_peer.rs"]),
    (
        "unix/datagram.rs",
        &[
            "conformance/polls.rs",
            "conformance/unix.rs",
            "unix_messages.rs",
            "unix_fds.rs",
        ],
    ),
    (
        "unix/seqpacket.rs",
        &[
            "conformance/unix.rs",
            "unix_messages.rs",
            "unix_fds.rs",
            "into_std.rs",
        ],
    ),
    (
        "unix/stream.rs",
        &[
            "conformance/unix.rs",
            "unix_stream.rs",
            "unix_fds.rs",
            "into_std.rs",
        ],
    ),
];

/// Of the crate, but no part of the network surface, or without calls of their
/// own.
const ELSEWHERE: &[&str] = &["fs/", "serve/", "sys/", "control.rs", "pressure.rs"];

/// The names of the public functions of a source, and of its options.
fn calls(source: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for line in source.lines().map(str::trim_start) {
        let line = line.strip_prefix("pub ").unwrap_or_else(|| {
            // An option: its setter, its getter, its type.
            if let Some((set, rest)) = line.split_once(", ") {
                let get = rest.split_once(": ").map(|(get, _)| get);
                if set.starts_with("set_") && set.strip_prefix("set_") == get {
                    found.extend([set, &set["set_".len()..]]);
                }
            }
            ""
        });
        let line = ["const ", "async "]
            .iter()
            .fold(line, |line, word| line.strip_prefix(word).unwrap_or(line));
        if let Some(rest) = line.strip_prefix("fn ") {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            found.extend(end.map(|end| &rest[..end]));
        }
    }
    found
}

fn sources(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).expect("the sources are there") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

#[test]
fn every_public_call_is_made_by_a_test() {
    // Files that it reads are no descriptors of others.
    let _alone = crate::common::alone();
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    let net = house.join("net/src");
    let read =
        |path: PathBuf| fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
    let mut missing = Vec::new();
    let mut files = Vec::new();
    sources(&net, &mut files);
    for file in files {
        let name = file.strip_prefix(&net).expect("it is below").to_str();
        let name = name.expect("a name in UTF-8").to_owned();
        if ELSEWHERE
            .iter()
            .any(|elsewhere| name.starts_with(elsewhere))
        {
            continue;
        }
        let source = read(file);
        let calls = calls(&source);
        let row = TABLE.iter().find(|(source, _)| *source == name);
        let tests = row.map_or(&[][..], |(_, tests)| tests);
        let tests: Vec<_> = tests
            .iter()
            .map(|test| read(house.join("tests").join(test)))
            .collect();
        for call in calls {
            let made = [
                format!(".{call}("),
                format!("::{call}("),
                format!(" {call}("),
            ];
            let is_made = |test: &String| made.iter().any(|made| test.contains(made));
            if !tests.iter().any(is_made) {
                missing.push(format!("{name}: {call}"));
            }
        }
    }
    assert!(missing.is_empty(), "no test of its row makes: {missing:#?}");
}

/// Traits and types that the table of the surface names beside calls, and what
/// is the runtime's.
const NO_CALLS: &[&str] = &["&", "Arc", "Async", "TcpSocket", "TryFrom", "timeout"];

#[test]
fn the_table_of_the_surface_names_what_is_there() {
    let _alone = crate::common::alone();
    let house = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&house.join("net/src"), &mut files);
    let sources: Vec<_> = files
        .iter()
        .map(|file| fs::read_to_string(file).expect("a source"))
        .collect();
    let there: Vec<_> = sources.iter().flat_map(|source| calls(source)).collect();
    let table = fs::read_to_string(house.join("docs/surface.md")).expect("the table");
    let mut named = 0;
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let columns: Vec<_> = line.split(" | ").collect();
        let [theirs, ours] = columns[..] else {
            panic!("not two columns: {line}");
        };
        // Where it is the same, what it is called there.
        let cells = match ours.starts_with("the same") {
            true => [theirs, ours],
            false => [ours, ""],
        };
        for name in cells
            .iter()
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        {
            let name = name.rsplit("::").next().expect("a name");
            let known = NO_CALLS.contains(&name) || there.contains(&name);
            assert!(known, "`{name}` is not there: {line}");
            named += 1;
        }
    }
    assert!(named > 100, "the table has been read");
}

#[test]
fn calls_are_found() {
    let source = "
        pub fn one(&self) {}
        pub async fn two<T>(&self) {}
        pub(crate) fn three() {}
        pub const fn four() {}
        set_five, five: bool,
        set_six(seven, eight: u8)
    ";
    assert_eq!(calls(source), ["one", "two", "four", "set_five", "five"]);
}
