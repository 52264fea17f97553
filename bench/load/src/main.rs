//! `load --addr IP:PORT --connections 64 --pid PID`: prints a [`load::Report`]
//! as one line of JSON. Exit 0: done; 1: could not; 3: a wrong byte came back.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = load::Options::parse();
    let report = match load::run(&options) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("load: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    match serde_json::to_string(&report) {
        Ok(json) => println!("{json}"),
        Err(error) => {
            eprintln!("load: {error}");
            return ExitCode::FAILURE;
        }
    }
    if let Some(wrong) = &report.wrong {
        eprintln!("load: {wrong}");
        return ExitCode::from(3);
    }
    ExitCode::SUCCESS
}
