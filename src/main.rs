//! The `dsproxy` program.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Hidden: the process that owns the servers of a test run.
    if args.first().is_some_and(|verb| verb == "keep-stack") {
        return match dsproxy::embedded::keeper::run(&args[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(message) => {
                let _ = writeln!(std::io::stderr().lock(), "keep-stack: {message}");
                ExitCode::FAILURE
            }
        };
    }
    ExitCode::SUCCESS
}
