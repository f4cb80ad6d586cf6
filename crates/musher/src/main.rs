//! musher: one executable, several roles.

use std::process::ExitCode;

mod keeper;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next().as_ref().and_then(|role| role.to_str()) {
        Some("keeper") => match keeper::KeeperArgs::parse(arguments) {
            Ok(args) => keeper::run(args),
            Err(error) => {
                eprintln!("musher keeper: {error}");
                ExitCode::FAILURE
            }
        },
        Some(_) | None => ExitCode::FAILURE,
    }
}
