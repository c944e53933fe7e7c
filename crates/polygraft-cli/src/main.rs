//! `polygraft`: inspect, run, measure and convert bases and adapters.
//!
//! Results go to stdout, progress and reports to stderr. Exit status: 0 done, 1 failure, 2 usage.
#![forbid(unsafe_code)]

mod args;
mod backend;
mod cmd;
mod error;
mod files;
mod load;
mod progress;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::parse();
    match cmd::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("polygraft: error [{}]: {error}", error.code());
            ExitCode::from(if error.is_usage() { 2 } else { 1 })
        }
    }
}
