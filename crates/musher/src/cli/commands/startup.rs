//! `startup` and `unstartup`: the saved list at boot.
//!
//! The only commands that change the machine outside of the home, so
//! `--dry-run` shows all of it before. Doing either twice is doing it once.

use super::save;
use crate::cli::context::Context;
use crate::cli::output::Failure;
use crate::cli::verbs::Outcome;
use crate::files::{Durability, replace};
use crate::paths::{Paths, Style, program_name};
use crate::startup::{Argv, Facts, Init, Plan, shell_word};
use musher_os::user::{self, User};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// There while systemd is the machine's manager (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// Makes the saved list start at boot.
pub(in crate::cli) fn run(ctx: &mut Context) -> Outcome {
    let setting = Setting::find(ctx)?;
    let plan = setting.init.plan(&setting.facts)?;
    if ctx.parsed.has("dry-run") {
        show(ctx, &plan, &plan.enable);
        return Ok(0);
    }
    setting.check_rights(ctx)?;
    ctx.console
        .line(&format!("Platform {}", setting.init.name()));
    ctx.console.line("Template");
    ctx.console.line(&plan.text);
    let path = plan.path.display().to_string();
    ctx.console.line(&format!("Target path\n{path}"));
    ctx.console
        .say(&format!("Writing init configuration in {path}"));
    write(&plan).map_err(|error| Failure::Error(format!("could not write {path}: {error}")))?;
    ctx.console.say("Making script booting at startup...");
    for command in &plan.enable {
        if !execute(ctx, command) {
            let text = format!("{path} is written but not enabled");
            return Err(Failure::Error(text));
        }
    }
    tell_next_steps(ctx, &setting);
    Ok(0)
}

/// Takes back what `startup` did.
pub(in crate::cli) fn undo(ctx: &mut Context) -> Outcome {
    let setting = Setting::find(ctx)?;
    let plan = setting.init.plan(&setting.facts)?;
    let path = plan.path.display().to_string();
    if ctx.parsed.has("dry-run") {
        for command in &plan.disable {
            ctx.console.data(&format!("{}\n", shown(command)));
        }
        ctx.console
            .data(&format!("{}\n", shown(&["rm".to_owned(), path])));
        for command in &plan.forget {
            ctx.console.data(&format!("{}\n", shown(command)));
        }
        return Ok(0);
    }
    setting.check_rights(ctx)?;
    if !plan.path.exists() {
        ctx.console
            .say(&format!("{path} does not exist, nothing is removed"));
        ctx.console.say("Init file disabled.");
        return Ok(0);
    }
    // What fails must not keep the rest: the file goes in any case.
    let mut n_failed = 0;
    for command in &plan.disable {
        n_failed += u32::from(!execute(ctx, command));
    }
    match fs::remove_file(&plan.path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Failure::Error(format!("could not remove {path}: {error}")));
        }
        Ok(()) | Err(_) => (),
    }
    for command in &plan.forget {
        n_failed += u32::from(!execute(ctx, command));
    }
    ctx.console.say("Init file disabled.");
    Ok(u8::from(n_failed > 0))
}

/// What was asked for, on this machine.
struct Setting {
    init: Init,
    facts: Facts,
    program: String,
}

impl Setting {
    fn find(ctx: &mut Context) -> Result<Setting, Failure> {
        let init = init(ctx)?;
        let user = target_user(ctx)?;
        if !init.needs_root() && user.uid != user::effective_uid() {
            let text = format!(
                "a unit of {} is theirs to write: run this as {0}",
                user.name
            );
            return Err(Failure::Error(text));
        }
        let user_home = match ctx.parsed.value("hp") {
            Some(home) => std::path::absolute(home)?,
            None => user.home.clone(),
        };
        let home = home(ctx, &user, &user_home);
        let paths = Paths::find(ctx.console.style, |name| {
            (name == "MUSHER_HOME").then(|| home.clone().into())
        });
        let program = program(ctx)?;
        let service = match ctx.parsed.value("service-name") {
            Some(name) => name.to_owned(),
            None => default_service(ctx.console.style, &user),
        };
        let user_home = text("the user's home", user_home)?;
        let config_home = match ctx.var("XDG_CONFIG_HOME") {
            Some(directory) => directory.to_owned(),
            None => format!("{user_home}/.config"),
        };
        let facts = Facts {
            service,
            is_root: user.uid == 0,
            user: user.name,
            user_home,
            config_home,
            home: text("the home", home)?,
            path: search_path(ctx, &program),
            exe: program.clone(),
            waits_for_network: ctx.parsed.has("wait-ip"),
            kill_timeout_ms: save::longest_kill_timeout(&paths),
            is_booted: Path::new(BOOTED).exists(),
        };
        Ok(Setting {
            init,
            facts,
            program,
        })
    }

    /// Refuses what only root may do, with the command to copy.
    fn check_rights(&self, ctx: &mut Context) -> Result<(), Failure> {
        if !self.init.needs_root() || user::effective_uid() == 0 {
            return Ok(());
        }
        ctx.console
            .say("To setup the Startup Script, copy/paste the following command:");
        let line = self.command_for_root(ctx);
        ctx.console.line(&line);
        Err(Failure::Told)
    }

    fn command_for_root(&self, ctx: &Context) -> String {
        let (facts, verb) = (&self.facts, ctx.parsed.verb.as_deref());
        let directory = Path::new(&self.program).parent().unwrap_or(Path::new("/"));
        let mut words = vec![
            "sudo env".to_owned(),
            // The shell's own, which is what the user sees working.
            format!(
                "PATH=$PATH:{}",
                shell_word(&directory.display().to_string())
            ),
        ];
        let default_home = Path::new(&facts.user_home).join(home_name(ctx.console.style));
        let is_default = Path::new(&facts.home) == default_home;
        if !is_default {
            words.push(format!("MUSHER_HOME={}", shell_word(&facts.home)));
        }
        words.extend([
            shell_word(&self.program),
            verb.unwrap_or("startup").to_owned(),
            self.init.name().to_owned(),
            format!("-u {}", shell_word(&facts.user)),
        ]);
        if is_default {
            words.push(format!("--hp {}", shell_word(&facts.user_home)));
        }
        if let Some(name) = ctx.parsed.value("service-name") {
            words.push(format!("--service-name {}", shell_word(name)));
        }
        if facts.waits_for_network {
            words.push("--wait-ip".to_owned());
        }
        words.join(" ")
    }
}

/// Returns the init system by the word given, else by what the machine has.
fn init(ctx: &mut Context) -> Result<Init, Failure> {
    if let Some(word) = ctx.parsed.operands.first() {
        return Init::of_word(word).ok_or_else(|| Failure::Helped {
            text: format!("the platform `{word}` is not in this version"),
            help: "one of systemd, systemd-user, openrc, upstart, systemv, launchd".to_owned(),
        });
    }
    let path = ctx.var("PATH").map(str::to_owned);
    let has = |program: &str| {
        musher_os::resolve_program(program, path.as_deref(), Path::new("/")).is_ok()
    };
    let init = Init::detect(has).ok_or_else(|| Failure::Helped {
        text: "Init system not found".to_owned(),
        help: "name it: `musher startup systemd`, openrc, upstart, systemv or launchd".to_owned(),
    })?;
    // As data it would be in the way of a file that is piped on.
    if !ctx.parsed.has("dry-run") {
        ctx.console
            .say(&format!("Init System found: {}", init.name()));
    }
    Ok(init)
}

fn target_user(ctx: &Context) -> Result<User, Failure> {
    let given = ctx
        .parsed
        .attributes
        .get("uid")
        .and_then(|uid| uid.as_str());
    Ok(match given {
        Some(name) => user::user(name)?,
        None => user::user(&user::effective_uid().to_string())?,
    })
}

/// Returns the home: of `--hp`, else the caller's for the caller, or one that
/// variables name; else the user's own.
fn home(ctx: &Context, user: &User, user_home: &Path) -> PathBuf {
    let is_named = ctx.var("MUSHER_HOME").is_some() || ctx.var("PM2_HOME").is_some();
    let is_caller = user.uid == user::effective_uid();
    if ctx.parsed.has("hp") || !(is_named || is_caller) {
        return user_home.join(home_name(ctx.console.style));
    }
    ctx.paths.home.clone()
}

fn home_name(style: Style) -> &'static str {
    match style {
        Style::Musher => ".musher",
        Style::Pm2 => ".pm2",
    }
}

fn default_service(style: Style, user: &User) -> String {
    match style {
        Style::Musher => format!("musher-{}", user.name),
        Style::Pm2 => format!("pm2-{}", user.name),
    }
}

/// Returns the path the program was called by: a link that an upgrade moves
/// is what should be in the file, and `pm2` is to stay `pm2`.
fn program(ctx: &Context) -> Result<String, Failure> {
    let called = std::env::args().next().unwrap_or_default();
    let found =
        musher_os::resolve_program(&called, ctx.var("PATH"), Path::new(ctx.caller.cwd())).ok();
    let named = found.filter(|path| path.exists() && !program_name(&called).is_empty());
    let path = match named {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_exe()?,
    };
    text("the executable", path)
}

/// Returns the caller's `PATH` with the program's directory in it.
fn search_path(ctx: &Context, program: &str) -> String {
    let path = ctx
        .var("PATH")
        .unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let directory = program.rsplit_once('/').map_or("", |(head, _)| head);
    if directory.is_empty() || path.split(':').any(|entry| entry == directory) {
        return path.to_owned();
    }
    format!("{path}:{directory}")
}

fn text(what: &str, path: PathBuf) -> Result<String, Failure> {
    path.into_os_string().into_string().map_err(|path| {
        let path = path.to_string_lossy();
        Failure::Error(format!(
            "{what} {path} is not UTF-8, which a service file needs"
        ))
    })
}

fn show(ctx: &mut Context, plan: &Plan, commands: &[Argv]) {
    ctx.console
        .data(&format!("# {}\n{}", plan.path.display(), plan.text));
    for command in commands {
        ctx.console.data(&format!("# {}\n", shown(command)));
    }
}

fn shown(command: &[String]) -> String {
    let words: Vec<String> = command.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

fn write(plan: &Plan) -> io::Result<()> {
    if let Some(directory) = plan.path.parent() {
        fs::create_dir_all(directory)?;
    }
    replace(&plan.path, &plan.text, Durability::Disk)?;
    fs::set_permissions(&plan.path, fs::Permissions::from_mode(plan.mode))
}

/// Executes a command; returns whether it succeeded.
fn execute(ctx: &mut Context, command: &[String]) -> bool {
    ctx.console
        .say(&format!("[-] Executing: {}...", shown(command)));
    let (program, arguments) = command.split_first().expect("a plan has no empty command");
    match Command::new(program).args(arguments).status() {
        Ok(status) if status.success() => {
            ctx.console.say("[v] Command successfully executed.");
            true
        }
        Ok(status) => {
            ctx.console
                .error(&format!("[x] `{}`: {status}", shown(command)));
            false
        }
        Err(error) => {
            ctx.console
                .error(&format!("[x] `{}`: {error}", shown(command)));
            false
        }
    }
}

fn tell_next_steps(ctx: &mut Context, setting: &Setting) {
    let program = match ctx.console.style {
        Style::Musher => "musher",
        Style::Pm2 => "pm2",
    };
    ctx.console
        .line("+---------------------------------------+");
    ctx.console.say("Freeze a process list on reboot via:");
    ctx.console.line(&format!("$ {program} save\n"));
    ctx.console.say("Remove init script via:");
    let name = setting.init.name();
    ctx.console.line(&format!("$ {program} unstartup {name}"));
    if setting.init == Init::SystemdUser {
        ctx.console
            .say("Without a login it starts at boot only after:");
        ctx.console.line("$ loginctl enable-linger");
    }
}
