//! The binary: reads the command line, loads the settings, does what is asked, and says by its
//! exit code how it went.
//!
//! Nothing is decided here that another program could want to decide.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use bootstrap::cli::bench::BenchCommand;
use bootstrap::cli::{
    Cli, Command, ConfigCommand, Connect, Health, SchemaFormat, SettingsArgs, Token,
};
use bootstrap::commands::publish::{Connection, PublishArgs};
use bootstrap::commands::subscribe::SubscribeArgs;
use bootstrap::commands::{self, explain::ExplainError, token_create::TokenCreateError};
use bootstrap::exit::Exit;
use bootstrap::settings::tokens::chain;
use bootstrap::settings::{Loaded, environment_of_process, load};
use bootstrap::{log, serve};
use clap::{CommandFactory, Parser};
use client_tungstenite::Token as ClientToken;
use secrecy::ExposeSecret;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let args = cli.settings.clone();
    match run(&args, &cli.into_command()) {
        Ok(()) => Exit::Success.into(),
        Err(exit) => exit.into(),
    }
}

fn run(args: &SettingsArgs, command: &Command) -> Result<(), Exit> {
    let out = &mut io::stdout().lock();
    match command {
        Command::Serve => {
            let given = args.given(environment_of_process());
            let loaded = load(&given).map_err(|error| failed(Exit::Settings, &error))?;
            serve::execute(&loaded, &given).map_err(|error| failed(error.exit(), &error))
        }
        Command::Version { json: false } => written(commands::version::execute(out)),
        Command::Version { json: true } => written(commands::version::as_json(out)),
        Command::Completions { shell } => {
            written(commands::completions::execute(*shell, Cli::command(), out))
        }
        Command::Man { dir } => {
            written(commands::man::execute(Cli::command(), dir.as_deref(), out))
        }
        Command::Schema { format, write } => written(schema(*format, write.as_deref(), out)),
        Command::Health(args_of_health) => health(args, args_of_health, out),
        Command::Bench(bench) => measure(args, &bench.command, out),
        Command::Config(command) => config(args, *command, out),
        Command::Token(command) => token(args, command, out),
        Command::Explain(args_of_question) => {
            let settings = loaded(args)?.settings;
            let answer = commands::explain::execute(args_of_question, &settings, log::now(), out);
            match run_on_own_runtime(answer)? {
                Ok(true) => Ok(()),
                // The answer itself says why.
                Ok(false) => Err(Exit::Failure),
                Err(error) => Err(failed(exit_of_question(&error), &chain(&error))),
            }
        }
        Command::Subscribe(args) => {
            let connection = connection(&args.connect);
            let args = SubscribeArgs {
                connection,
                rooms: args.rooms.clone(),
                patterns: args.patterns.clone(),
                filter: args.filter.clone(),
                since: args.since.clone(),
                presence: args.presence,
                count: args.count,
            };
            wait_for(commands::subscribe::run(args, out))
        }
        Command::Publish(args) => {
            let args = PublishArgs {
                connection: connection(&args.connect),
                room: args.room.clone(),
                data: args.data.clone(),
                msg_id: args.msg_id.clone(),
                tags: args.tags.clone(),
            };
            wait_for(commands::publish::run(args, out))
        }
    }
}

fn config(args: &SettingsArgs, command: ConfigCommand, out: &mut dyn Write) -> Result<(), Exit> {
    written(match command {
        ConfigCommand::Check => commands::config::check(&loaded(args)?, out),
        ConfigCommand::Print => commands::config::print(&loaded(args)?, out),
        ConfigCommand::Default => commands::config::default(out),
        ConfigCommand::Docs => commands::config::docs(out),
    })
}

fn token(args: &SettingsArgs, command: &Token, out: &mut dyn Write) -> Result<(), Exit> {
    let settings = loaded(args)?.settings;
    match command {
        Token::Create(args) => commands::token_create::execute(args, &settings, log::now(), out)
            .map_err(|error| failed(exit_of(&error), &chain(&error))),
        Token::Inspect(args) => {
            let input = &mut io::stdin().lock();
            let inspected =
                commands::token_inspect::execute(args, &settings, log::now(), input, out);
            match run_on_own_runtime(inspected)? {
                Ok(true) => Ok(()),
                Ok(false) => Err(Exit::Failure),
                Err(error) => Err(failed(error.exit(), &chain(&error))),
            }
        }
    }
}

fn health(args: &SettingsArgs, health: &Health, out: &mut dyn Write) -> Result<(), Exit> {
    let (url, certificate) = match &health.url {
        Some(url) if !url.starts_with("https://") => (url.clone(), None),
        given => {
            let server = loaded(args)?.settings.server;
            let url = given.clone().unwrap_or_else(|| commands::health::url_of(&server));
            (url, server.tls.cert_file)
        }
    };
    let answer = commands::health::ask(&url, health.timeout, certificate.as_deref())
        .map_err(|error| failed(Exit::Failure, &format!("{url}: {}", chain(&error))))?;
    written(writeln!(out, "{answer}"))
}

/// The command line sees to it that there is one of the two.
fn schema(format: Option<SchemaFormat>, dir: Option<&Path>, out: &mut dyn Write) -> io::Result<()> {
    match (format, dir) {
        (Some(format), _) => commands::schema::print(format, out),
        (None, Some(dir)) => commands::schema::write(dir, out),
        (None, None) => Ok(()),
    }
}

fn measure(args: &SettingsArgs, command: &BenchCommand, out: &mut dyn Write) -> Result<(), Exit> {
    let settings = match commands::bench::wants_settings(command) {
        true => Some(loaded(args)?.settings),
        false => None,
    };
    let errors = &mut io::stderr();
    match commands::bench::execute(command, settings.as_ref(), log::now(), out, errors) {
        Ok(true) => Ok(()),
        // The report itself says why.
        Ok(false) => Err(Exit::Failure),
        Err(error) if error.is_usage() => Err(failed(Exit::Usage, &chain(&error))),
        Err(error) if error.is_settings() => Err(failed(Exit::Settings, &chain(&error))),
        Err(error) => Err(failed(Exit::Failure, &chain(&error))),
    }
}

fn connection(connect: &Connect) -> Connection {
    let token = connect.token.as_ref().map(|token| ClientToken::new(token.expose_secret()));
    let ca_file = connect.ca_file.clone();
    Connection { url: Some(connect.url.clone()), token, ca_file }
}

/// Runs a client command on a runtime of its own.
fn wait_for<E: std::error::Error>(
    command: impl Future<Output = Result<(), E>>,
) -> Result<(), Exit> {
    run_on_own_runtime(command)?.map_err(|error| failed(Exit::Failure, &chain(&error)))
}

fn run_on_own_runtime<T>(work: impl Future<Output = T>) -> Result<T, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed(Exit::Io, &error))?;
    Ok(runtime.block_on(work))
}

fn exit_of_question(error: &ExplainError) -> Exit {
    match error {
        ExplainError::Keys(_) => Exit::Settings,
        ExplainError::Io(error) => Exit::of_io(error),
    }
}

fn exit_of(error: &TokenCreateError) -> Exit {
    match error {
        TokenCreateError::NoSecret(_) | TokenCreateError::Algorithm => Exit::Settings,
        TokenCreateError::Mint(_) => Exit::Failure,
        TokenCreateError::Io(error) => Exit::of_io(error),
    }
}

fn loaded(args: &SettingsArgs) -> Result<Loaded, Exit> {
    load(&args.given(environment_of_process())).map_err(|error| failed(Exit::Settings, &error))
}

/// A reader that goes away, like `head`, is no failure.
fn written(result: io::Result<()>) -> Result<(), Exit> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(failed(Exit::Io, &error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failed(exit: Exit, error: &dyn Display) -> Exit {
    // Standard error may be closed; the exit code still tells.
    let _ = writeln!(io::stderr(), "roomkeeper: {error}");
    exit
}
