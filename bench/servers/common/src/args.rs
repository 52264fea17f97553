//! The command line, without a library: it would show in the counts of a
//! short run.

use std::net::SocketAddr;
use std::process::exit;

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Every byte comes back as it is.
    Echo,
    /// See [`Delimited`](crate::Delimited).
    Delimited,
}

/// What a server can do. The first of each is what it does if not told.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// The names for `--variant`; empty if there is but one.
    pub variants: &'static [&'static str],
    /// What `--protocol` may say.
    pub protocols: &'static [Protocol],
    /// Whether `--workers` may be more than 1.
    pub parallel: bool,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Args {
    /// Where to listen.
    pub addr: SocketAddr,
    /// One of [`Spec::variants`], or empty if there are none.
    pub variant: &'static str,
    /// At least one, if said.
    pub workers: Option<usize>,
    /// One of [`Spec::protocols`].
    pub protocol: Protocol,
}

impl Args {
    /// Reads the command line, and raises the descriptor limit, as each server
    /// does first. Does not return if there is a mistake.
    pub fn parse(spec: Spec) -> Args {
        crate::raise_descriptor_limit();
        match Args::read(spec, std::env::args().skip(1)) {
            Ok(args) => args,
            Err(why) => {
                eprintln!("{why}\n{}", usage(spec));
                exit(2);
            }
        }
    }

    /// How many workers; 1 if not said.
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or(1)
    }

    fn read(spec: Spec, mut words: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut args = Args {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            variant: spec.variants.first().copied().unwrap_or(""),
            workers: None,
            protocol: spec.protocols.first().copied().unwrap_or(Protocol::Echo),
        };
        while let Some(flag) = words.next() {
            let value = words.next().ok_or(format!("{flag}: a value is missing"))?;
            let wrong = || format!("{flag} {value}: not here");
            match flag.as_str() {
                "--addr" => args.addr = value.parse().map_err(|_| wrong())?,
                "--variant" => {
                    let known = spec.variants.iter().find(|v| **v == value);
                    args.variant = known.ok_or_else(wrong)?;
                }
                "--workers" => {
                    let n = value.parse().map_err(|_| wrong())?;
                    if n == 0 || (n > 1 && !spec.parallel) {
                        return Err(wrong());
                    }
                    args.workers = Some(n);
                }
                "--protocol" => {
                    let protocol = match value.as_str() {
                        "echo" => Protocol::Echo,
                        "delimited" => Protocol::Delimited,
                        _ => return Err(wrong()),
                    };
                    if !spec.protocols.contains(&protocol) {
                        return Err(wrong());
                    }
                    args.protocol = protocol;
                }
                _ => return Err(format!("{flag}: unknown")),
            }
        }
        Ok(args)
    }
}

fn usage(spec: Spec) -> String {
    let mut text = String::from("usage: --addr IP:PORT");
    if !spec.variants.is_empty() {
        text += &format!(" [--variant {}]", spec.variants.join("|"));
    }
    text += if spec.parallel {
        " [--workers N]"
    } else {
        " [--workers 1]"
    };
    let protocols: Vec<String> = spec
        .protocols
        .iter()
        .map(|p| format!("{p:?}").to_lowercase())
        .collect();
    text + &format!(" [--protocol {}]", protocols.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: Spec = Spec {
        variants: &["a", "b"],
        protocols: &[Protocol::Echo],
        parallel: false,
    };

    fn read(line: &str) -> Result<Args, String> {
        Args::read(SPEC, line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let args = read("").unwrap();
        assert_eq!(args.variant, "a");
        assert_eq!(args.workers(), 1);
        assert_eq!(args.protocol, Protocol::Echo);
    }

    #[test]
    fn what_is_said_counts() {
        let args = read("--addr 127.0.0.1:7 --variant b --workers 1 --protocol echo").unwrap();
        assert_eq!(args.addr.port(), 7);
        assert_eq!(args.variant, "b");
    }

    #[test]
    fn what_the_server_cannot_do_is_refused() {
        for line in [
            "--variant c",
            "--workers 2",
            "--workers 0",
            "--protocol delimited",
            "--protocol x",
            "--addr x",
            "--addr",
            "--what ever",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
