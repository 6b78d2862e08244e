//! The command line: what can be written, and what it says about settings.
//!
//! It only reads arguments. It must never open a file, start anything or know a default of a
//! setting.

pub mod bench;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use domain::filter::Filter;
use domain::id::{Role, UserId};
use domain::principal::{Action, RoomPattern};
use domain::protocol::selective::parse_filter;
use domain::room::RoomId;
use domain::tags::Tags;
use secrecy::SecretString;

use crate::settings::{FlagValue, Given, Profile};

/// Where the debugging commands connect when no address is given.
pub const URL_DEFAULT: &str = "ws://127.0.0.1:8000/ws/v2/connect";

const AFTER_HELP: &str = "\
Examples:
  roomkeeper                                     start a server for trying things out
  roomkeeper subscribe public:lobby              then watch a room,
  roomkeeper publish public:lobby '\"hello\"'      and say something in it
  roomkeeper token create --user ada             make a token for a user
  roomkeeper --profile production --config /etc/roomkeeper.toml

Every setting can stand in a file, in the environment as ROOMKEEPER_SECTION__KEY, or in --set;
docs/configuration.md lists them, and `roomkeeper config print` shows those that count.

Exit codes: 0 done, 1 failed while running, 2 wrong usage, 74 address in use or input/output,
77 not permitted, 78 wrong settings.";

/// The whole command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "roomkeeper",
    version,
    about = "A self-hosted real-time server: rooms over WebSocket.",
    after_help = AFTER_HELP,
    disable_version_flag = true
)]
pub struct Cli {
    /// What is said about settings.
    #[command(flatten)]
    pub settings: SettingsArgs,
    /// Print the version and end.
    #[arg(short = 'V', long)]
    pub version: bool,
    /// What to do; serving when nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

impl Cli {
    /// What to do.
    #[must_use]
    pub fn into_command(self) -> Command {
        if self.version {
            Command::Version { json: false }
        } else {
            self.command.unwrap_or(Command::Serve)
        }
    }
}

/// A profile as a word of the command line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ProfileWord {
    /// A machine of one's own: a first message needs no token
    Development,
    /// A network: refuses to start when something is not safe
    Production,
    /// Tests and load tests: nothing on disk, high limits
    Testing,
}

impl From<ProfileWord> for Profile {
    fn from(word: ProfileWord) -> Self {
        match word {
            ProfileWord::Development => Self::Development,
            ProfileWord::Production => Self::Production,
            ProfileWord::Testing => Self::Testing,
        }
    }
}

/// The flags that say something about settings; each command takes them.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings")]
pub struct SettingsArgs {
    /// Which set of values lies over the built-in defaults [default: development]
    #[arg(long, global = true, value_enum, value_name = "PROFILE")]
    pub profile: Option<ProfileWord>,
    /// Where to listen; port 0 picks a free one [default: 127.0.0.1:8000]
    #[arg(long, global = true, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// A TOML file with settings; may be repeated, later files win
    #[arg(short, long, global = true, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// Where files are kept [default: ./data; nothing in testing]
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<String>,
    /// Any setting, like limits.message_bytes_max=1000; may be repeated
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

impl SettingsArgs {
    /// What these flags and the environment give.
    #[must_use]
    pub fn given(&self, environment: BTreeMap<String, String>) -> Given {
        let mut flags: Vec<FlagValue> = Vec::new();
        let mut add = |flag, key: &str, value: &str| {
            flags.push(FlagValue { flag, key: key.to_owned(), value: value.to_owned() });
        };
        for (key, value) in &self.set {
            add("--set", key, value);
        }
        if let Some(profile) = self.profile {
            add("--profile", "profile", Profile::from(profile).word());
        }
        if let Some(listen) = &self.listen {
            add("--listen", "server.listen", listen);
        }
        if let Some(dir) = &self.data_dir {
            add("--data-dir", "server.data_dir", dir);
        }
        Given { files: self.config.clone(), environment, flags }
    }
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Serve; the same as no command at all
    Serve,
    /// Subscribe to rooms and print their messages, one JSON value a line
    Subscribe(Subscribe),
    /// Publish one message in a room and print its acknowledgement
    Publish(Publish),
    /// Work with tokens
    #[command(subcommand)]
    Token(Token),
    /// Say whether a token may do a thing in a room, and which rule decides
    ///
    /// It takes the same settings and keys as the server. Exit code 0 means allowed, 1 denied.
    Explain(Explain),
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running server whether it is ready; ends with 1 when it is not
    Health(Health),
    /// Measure a server: many connections from this machine, and a report
    Bench(bench::Bench),
    /// Print what a shell needs to complete this command's words
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one page for each command
    Man {
        /// Write the pages as files into this directory, which must exist
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// Print the protocol for machines, or write all three forms of it as files
    Schema {
        /// The form
        #[arg(value_enum, required_unless_present = "write", conflicts_with = "write")]
        format: Option<SchemaFormat>,
        /// Write all forms as files into this directory, which must exist
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
    /// Print the version
    Version {
        /// As JSON, with the commit, the features, the compiler and the protocols
        #[arg(long)]
        json: bool,
    },
}

/// A form in which `roomkeeper schema` says the protocol.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum SchemaFormat {
    /// JSON Schema, draft 2020-12
    Json,
    /// TypeScript types and tables
    Typescript,
    /// AsyncAPI 3.0
    Asyncapi,
}

/// `roomkeeper health`.
#[derive(Args, Clone, Debug)]
pub struct Health {
    /// What to ask, like http://127.0.0.1:8000/readyz [default: /readyz where the settings say
    /// that the server of this machine listens]; over https:// the server must show the
    /// certificate of server.tls.cert_file
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// How long to wait for the answer: 500ms, 3s or 1m
    #[arg(long, default_value = "3s", value_parser = short_duration)]
    pub timeout: Duration,
}

/// How a debugging command connects.
#[derive(Args, Clone, Debug)]
pub struct Connect {
    /// The server's address
    #[arg(long, env = "ROOMKEEPER_URL", default_value = URL_DEFAULT)]
    pub url: String,
    /// The token to connect with; none connects as nobody
    #[arg(long, env = "ROOMKEEPER_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,
    /// A PEM file with certificates of authorities to trust for wss://, beside the system's
    #[arg(long, env = "ROOMKEEPER_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// `roomkeeper subscribe`.
#[derive(Args, Clone, Debug)]
pub struct Subscribe {
    /// The rooms, like public:lobby
    #[arg(required_unless_present = "patterns", value_name = "ROOM")]
    pub rooms: Vec<String>,
    /// Follow all rooms of a pattern, like 'game:zone/*', from now on; may be repeated
    ///
    /// The namespace has to offer it (namespaces.*.patterns). What comes while there is no connection is
    /// not printed later: a pattern has no log.
    #[arg(long = "pattern", value_name = "PATTERN", value_parser = prefix)]
    pub patterns: Vec<RoomPattern>,
    /// Print only messages whose tags fit a condition, like '{"eq":{"lang":"de"}}'; in each ROOM
    #[arg(long, value_name = "CONDITION", requires = "rooms", value_parser = filter)]
    pub filter: Option<Filter>,
    /// Begin behind this position, as epoch:offset; only with one room
    #[arg(long, value_name = "EPOCH:OFFSET")]
    pub since: Option<String>,
    /// Print who comes and goes, too
    #[arg(long)]
    pub presence: bool,
    /// End after this many messages
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// How to connect.
    #[command(flatten)]
    pub connect: Connect,
}

/// `roomkeeper publish`.
#[derive(Args, Clone, Debug)]
pub struct Publish {
    /// The room, like public:lobby
    pub room: String,
    /// The message, as JSON; a text has quotes of its own: '"hello"'
    #[arg(value_parser = json)]
    pub data: String,
    /// The message's id, so that publishing it again does not repeat it
    #[arg(long)]
    pub msg_id: Option<String>,
    /// A tag of the message, by which members with a filter choose, like lang=de; may be repeated
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    pub tags: Vec<(String, String)>,
    /// How to connect.
    #[command(flatten)]
    pub connect: Connect,
}

/// `roomkeeper token`.
#[derive(Clone, Debug, Subcommand)]
pub enum Token {
    /// Make a token with auth.hmac_secret and print it
    ///
    /// In development the secret is the one that `serve` made up, so both have to be started with
    /// the same data directory. The token is signed with HS256.
    Create(TokenCreate),
    /// Show what a token says, which key it would be checked with, and what is wrong with it
    ///
    /// Ends with 1 when the server would not accept it. The signature is never shown in full.
    Inspect(TokenInspect),
}

/// `roomkeeper token inspect`.
#[derive(Args, Clone, Debug)]
pub struct TokenInspect {
    /// The token; - reads it from standard input, where other users of the machine don't see it
    #[arg(env = "ROOMKEEPER_TOKEN", hide_env_values = true)]
    pub token: SecretString,
}

/// `roomkeeper token create`.
#[derive(Args, Clone, Debug)]
pub struct TokenCreate {
    /// The user's id (sub)
    #[arg(long, value_parser = user)]
    pub user: UserId,
    /// What the user is called
    #[arg(long)]
    pub name: Option<String>,
    /// A role of the user; may be repeated
    #[arg(long = "role", value_name = "ROLE", value_parser = role)]
    pub roles: Vec<Role>,
    /// What the user may do in which rooms, like 'chat:guild/*=subscribe,publish'; may be repeated
    ///
    /// The actions are subscribe, publish, presence, history and moderate.
    #[arg(long = "room", value_name = "PATTERN=ACTIONS", value_parser = room_grant)]
    pub rooms: Vec<RoomGrant>,
    /// How long the token is valid: 30s, 15m, 1h or 7d
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub ttl: Duration,
    /// Make a token that counts once, for one connection; it must end within a day
    #[arg(long)]
    pub once: bool,
}

/// What a token allows in the rooms of one pattern.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RoomGrant {
    /// The pattern as it is written; it is a valid one.
    pub pattern: String,
    /// The actions.
    pub allow: Vec<Action>,
}

/// `roomkeeper explain`.
#[derive(Args, Clone, Debug)]
pub struct Explain {
    /// What to do: subscribe, publish, presence, history or moderate
    #[arg(value_parser = action)]
    pub action: Action,
    /// Where, like chat:guild/7
    #[arg(value_parser = room)]
    pub room: RoomId,
    /// The token; none asks for somebody without one
    #[arg(long, env = "ROOMKEEPER_TOKEN", hide_env_values = true)]
    pub token: Option<SecretString>,
}

/// `roomkeeper config`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read and check all settings as a start would, and say what is wrong
    Check,
    /// Print all settings that count with their sources; secrets are hidden
    Print,
    /// Print the built-in value of every setting with what it means, as a file to start from
    Default,
    /// Print every setting with its range, its built-in value and what a reload does, in Markdown
    Docs,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    // A quoted part of a key may hold `=`, which room names may.
    let mut quoted = false;
    let at = text.find(|c| {
        quoted ^= c == '"';
        c == '=' && !quoted
    });
    let (key, value) =
        at.map(|at| (&text[..at], &text[at + 1..])).ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn json(text: &str) -> Result<String, String> {
    serde_json::from_str::<&serde_json::value::RawValue>(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("not JSON ({error}); a text has quotes of its own: '\"hello\"'"))
}

fn prefix(text: &str) -> Result<RoomPattern, String> {
    let pattern = RoomPattern::parse(text).ok().filter(RoomPattern::is_prefix);
    pattern.ok_or_else(|| "write it as NAMESPACE:BEGINNING*, like 'game:zone/*'".to_owned())
}

fn filter(text: &str) -> Result<Filter, String> {
    parse_filter(text).map_err(|rejected| {
        format!("{}; write it like '{{\"eq\":{{\"lang\":\"de\"}}}}'", rejected.message)
    })
}

fn tag(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Tags::build([(name, value)]).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.to_owned()))
}

fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|error| error.to_string())
}

fn action(text: &str) -> Result<Action, String> {
    let words = Action::ALL.map(Action::word).join(", ");
    Action::parse(text).ok_or_else(|| format!("one of {words}"))
}

fn room(text: &str) -> Result<RoomId, String> {
    RoomId::parse(text).map_err(|error| error.to_string())
}

fn role(text: &str) -> Result<Role, String> {
    Role::parse(text).map_err(|error| error.to_string())
}

fn room_grant(text: &str) -> Result<RoomGrant, String> {
    // The pattern itself may hold `=`; an action never does.
    let (pattern, actions) = text.rsplit_once('=').ok_or("write it as PATTERN=ACTION,ACTION")?;
    RoomPattern::parse(pattern).map_err(|error| error.to_string())?;
    let allow = actions.split(',').map(|word| {
        Action::parse(word.trim()).ok_or_else(|| {
            format!("{word:?} is not one of subscribe, publish, presence, history, moderate")
        })
    });
    Ok(RoomGrant { pattern: pattern.to_owned(), allow: allow.collect::<Result<_, _>>()? })
}

fn short_duration(text: &str) -> Result<Duration, String> {
    let allowed = "write it as a number above 0 with a unit, like 500ms, 3s or 1m, at most 1h";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| allowed)?;
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => return Err(allowed.to_owned()),
    };
    let ms = number.checked_mul(unit_ms).filter(|ms| (1..=3_600_000).contains(ms));
    ms.map(Duration::from_millis).ok_or_else(|| allowed.to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let allowed = "write it as a number above 0 with a unit, like 30s, 15m, 1h or 7d";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| allowed)?;
    let unit_s = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(allowed.to_owned()),
    };
    let seconds = number.checked_mul(unit_s).filter(|s| (1..=10 * 365 * 86_400).contains(s));
    seconds.map(Duration::from_secs).ok_or_else(|| format!("{allowed}, at most 3650d"))
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
