//! musher: a process manager and cluster supervisor.

#[allow(dead_code, reason = "the command line is the caller")]
mod client;
mod daemon;
mod dump;
#[allow(dead_code, reason = "the command line is the caller")]
mod ecosystem;
mod keeper;
#[allow(dead_code, reason = "the command line is the caller")]
mod logfile;
mod paths;

fn main() -> std::process::ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next().as_deref().and_then(|a| a.to_str()) {
        Some("keeper") => match keeper::KeeperArgs::parse(args) {
            Ok(args) => keeper::run(args),
            Err(_) => std::process::ExitCode::FAILURE,
        },
        Some("daemon") => {
            let rest: Vec<String> = args.filter_map(|a| a.into_string().ok()).collect();
            let home = rest[1].clone();
            let paths = paths::Paths::find(paths::Style::Musher, |n| {
                if n == "MUSHER_HOME" {
                    Some(home.clone().into())
                } else {
                    std::env::var_os(n)
                }
            });
            daemon::run(paths, rest.get(3).and_then(|n| n.parse().ok()))
        }
        _ => std::process::ExitCode::FAILURE,
    }
}
