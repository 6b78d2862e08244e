//! The log: one line per event on standard error, for people or for machines, and the security
//! log, which may have a file of its own.
//!
//! Whatever a client may have written is escaped and shortened, so that no event can forge a
//! second line, colour a terminal or fill a disk. Nothing goes to standard output.

pub mod panics;
pub mod sink;
pub mod text;

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use application::security::TARGET;
use domain::time::Wall;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layered, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::settings::{Log, LogFormat};
use sink::Sink;
use text::{Bounded, escape, escape_json};

/// The longest value of a field, in bytes before it is escaped.
pub const FIELD_BYTES_MAX: usize = 256;
/// The longest message, in bytes before it is escaped. Messages are written in this code; only
/// what they quote can be long.
pub const MESSAGE_BYTES_MAX: usize = 1_024;

/// What a Postgres remarks beside its answers, as the driver says it: nobody here can do anything about it, and one that
/// remarks without an end would fill the log.
const POSTGRES_NOTICES: &str = "sqlx::postgres::notice";

/// Takes the spans of commands, if traces are taken.
pub type TraceLayer = Box<dyn Layer<Registry> + Send + Sync>;
/// What lies below the filter of the lines.
type Below = Layered<Option<TraceLayer>, Registry>;

/// Starts the log for the whole process.
///
/// # Errors
/// The filter cannot be read, the file of the security log cannot be opened, or a log was started
/// before.
pub fn init(settings: &Log, colour: bool, traces: Option<TraceLayer>) -> Result<LogFilter, String> {
    let filter = EnvFilter::try_new(&settings.filter).map_err(|error| error.to_string())?;
    let (filter, handle) = reload::Layer::new(filter);
    let main = Sink::standard_error().map_err(|error| error.to_string())?;
    let own_file = settings.security_file.as_deref().map(|path| {
        let opened = Sink::file(path);
        opened.map_err(|error| format!("log.security_file = {}: {error}", path.display()))
    });
    let own_file = own_file.transpose()?;
    let is_split = own_file.is_some();
    // What has a file of its own is not written twice, and is written whatever the filter says.
    let layer = EventLog { format: settings.format, colour, writer: main.clone() };
    // Without these hints every event of every part would be asked about, whatever its level.
    let rest = filter_fn(move |meta| is_for_main(meta.target(), is_split))
        .with_max_level_hint(LevelFilter::TRACE);
    let guards = own_file.clone().map(|writer| {
        let layer = EventLog { format: LogFormat::Json, colour: false, writer };
        let only = filter_fn(|meta| meta.target() == TARGET);
        layer.with_filter(only.with_max_level_hint(LevelFilter::WARN))
    });
    tracing_subscriber::registry()
        .with(traces)
        .with(layer.with_filter(filter.and(rest)))
        .with(guards)
        .try_init()
        .map_err(|error| error.to_string())?;
    panics::log();
    let sinks = std::iter::once(main).chain(own_file).collect();
    SINKS.set(sinks).map_err(|_| "a log was started before".to_owned())?;
    Ok(LogFilter(handle))
}

/// Whether lines of this target belong into the main log, as far as the filter wants them. The security log may have a
/// file of its own.
fn is_for_main(target: &str, is_split: bool) -> bool {
    match target {
        TARGET => !is_split,
        POSTGRES_NOTICES => false,
        _ => true,
    }
}

/// The filter of a log that runs.
#[derive(Clone)]
pub struct LogFilter(reload::Handle<EnvFilter, Below>);

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFilter")
    }
}

impl LogFilter {
    /// Filters by other words from now on.
    ///
    /// # Errors
    /// They cannot be read, or the log has ended.
    pub fn set(&self, filter: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Where the lines of this process go.
static SINKS: OnceLock<Vec<Sink>> = OnceLock::new();
/// How long the end of the process waits for its last lines.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

/// Waits a moment until the last lines are written. For the end of the process.
pub fn finish() {
    for sink in SINKS.get().into_iter().flatten() {
        // Nobody is left to tell.
        let _ = sink.finish(LAST_LINES_TIMEOUT);
    }
}

/// How many lines were lost because nobody took them.
#[must_use]
pub fn lines_lost() -> u64 {
    SINKS.get().into_iter().flatten().map(Sink::lost).sum()
}

/// Whether standard error takes colours: a terminal, and `NO_COLOR` is not set.
#[must_use]
pub fn takes_colour() -> bool {
    use std::io::IsTerminal;
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Writes each event as one line.
#[derive(Debug)]
pub struct EventLog<W> {
    /// For people or for machines.
    pub format: LogFormat,
    /// Whether the level is coloured.
    pub colour: bool,
    /// Where the lines go.
    pub writer: W,
}

/// The fields of an event or a span, shortened but not escaped.
#[derive(Debug, Default)]
struct Fields {
    message: String,
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match self.values.iter_mut().find(|(name, _)| *name == field.name()) {
            Some((_, known)) => *known = value,
            None => self.values.push((field.name(), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let is_message = field.name() == "message";
        let mut text = Bounded::new(if is_message { MESSAGE_BYTES_MAX } else { FIELD_BYTES_MAX });
        // Bounded takes everything; an error is the value's own, and then what came is shown.
        let _ = write!(text, "{value:?}");
        if is_message {
            self.message = text.finish();
        } else {
            self.put(field, Value::String(text.finish()));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = Bounded::new(FIELD_BYTES_MAX);
        let _ = write!(text, "{value}");
        let mut source = value.source();
        while let Some(error) = source {
            let _ = write!(text, ": {error}");
            source = error.source();
        }
        self.put(field, Value::String(text.finish()));
    }
}

impl<S, W> Layer<S> for EventLog<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut spans: Vec<(&'static str, Vec<(&'static str, Value)>)> = Vec::new();
        for span in context.event_scope(event).into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let values = extensions.get::<Fields>().map(|f| f.values.clone());
            spans.push((span.name(), values.unwrap_or_default()));
        }
        let meta = event.metadata();
        let line = Line { at: now(), level: *meta.level(), target: meta.target(), fields, spans };
        let text = match self.format {
            LogFormat::Text => line.for_people(self.colour),
            LogFormat::Json => line.for_machines(),
        };
        // A log that cannot be written must not stop the server, and there is no one to tell.
        let _ = self.writer.make_writer_for(meta).write_all(text.as_bytes());
    }
}

struct Line {
    at: Wall,
    level: Level,
    target: &'static str,
    fields: Fields,
    spans: Vec<(&'static str, Vec<(&'static str, Value)>)>,
}

impl Line {
    fn for_people(&self, colour: bool) -> String {
        let mut line = format!("{} ", self.at);
        // Writing to a String cannot fail.
        let _ = match colour.then(|| colour_of(self.level)) {
            Some(code) => write!(line, "\u{1b}[{code}m{:>5}\u{1b}[0m ", self.level.as_str()),
            None => write!(line, "{:>5} ", self.level.as_str()),
        };
        let _ = write!(line, "{}: {}", self.target, escape(&self.fields.message));
        for (name, value) in &self.fields.values {
            let _ = write!(line, " {name}={}", plain(value));
        }
        for (span, values) in &self.spans {
            let _ = write!(line, " {span}{{");
            for (i, (name, value)) in values.iter().enumerate() {
                let gap = if i > 0 { " " } else { "" };
                let _ = write!(line, "{gap}{name}={}", plain(value));
            }
            line.push('}');
        }
        line.push('\n');
        line
    }

    fn for_machines(&self) -> String {
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), self.at.to_string().into());
        object.insert("level".to_owned(), self.level.as_str().to_lowercase().into());
        object.insert("target".to_owned(), self.target.into());
        object.insert("message".to_owned(), self.fields.message.clone().into());
        for (name, value) in &self.fields.values {
            let taken = object.contains_key(*name) || *name == "spans";
            let name = if taken { format!("field_{name}") } else { (*name).to_owned() };
            object.insert(name, value.clone());
        }
        if !self.spans.is_empty() {
            let spans = self.spans.iter().map(|(span, values)| {
                let mut inner: Map<String, Value> =
                    values.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
                inner.insert("span".to_owned(), (*span).into());
                Value::Object(inner)
            });
            object.insert("spans".to_owned(), spans.collect());
        }
        let mut line = escape_json(&Value::Object(object).to_string());
        line.push('\n');
        line
    }
}

/// A value for people: quoted where it would not read as one word.
fn plain(value: &Value) -> String {
    let Value::String(text) = value else { return value.to_string() };
    let one_word = !text.is_empty() && !text.contains([' ', '"', '=', '{', '}', '\\']);
    if one_word { escape(text) } else { format!("\"{}\"", escape(text).replace('"', "\\\"")) }
}

const fn colour_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The time of the system's clock.
#[must_use]
pub fn now() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
#[path = "log/tests.rs"]
mod tests;
