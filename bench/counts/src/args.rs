//! The command line.

pub const USAGE: &str = "\
usage: counts [--json] [--only WHAT] [--peer NAME] [--repeat N] [--idle N]
              [--no-build] [--profile SERVER | --profile RUNTIME/CASE]

  --json       a line of JSON a count, and no table
  --only WHAT  counts whose name has WHAT in it
  --peer NAME  servers and runtimes whose name has NAME in it
  --repeat N   how often a difference is taken (3)
  --idle N     how many idle connections there are (10000)
  --no-build   take the binaries as they are
  --profile    where the instructions of one round trip or operation are";

#[derive(Debug)]
pub struct Args {
    pub json: bool,
    pub only: Option<String>,
    pub peer: Option<String>,
    pub repeat: usize,
    pub idle: usize,
    pub build: bool,
    pub profile: Option<String>,
}

impl Args {
    pub fn parse() -> Result<Args, String> {
        let mut args = Args {
            json: false,
            only: None,
            peer: None,
            repeat: 3,
            idle: 10_000,
            build: true,
            profile: None,
        };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |text: String| match text.parse() {
                Ok(0) | Err(_) => Err(format!("{word}: `{text}` is no number above zero")),
                Ok(n) => Ok(n),
            };
            match word.as_str() {
                "--json" => args.json = true,
                "--no-build" => args.build = false,
                "--only" => args.only = Some(value()?),
                "--peer" => args.peer = Some(value()?),
                "--profile" => args.profile = Some(value()?),
                "--repeat" => args.repeat = number(value()?)?,
                "--idle" => args.idle = number(value()?)?,
                _ => return Err(format!("what about `{word}`?")),
            }
        }
        Ok(args)
    }

    pub fn wants(&self, what: &str) -> bool {
        self.only.as_ref().is_none_or(|only| what.contains(only))
    }

    pub fn wants_peer(&self, name: &str) -> bool {
        self.peer.as_ref().is_none_or(|peer| name.contains(peer))
    }
}
