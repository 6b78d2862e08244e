//! From the application's spans of commands to OpenTelemetry's.
//!
//! Only spans of one target are looked at; everything else costs nothing. A span's parent is the trace
//! that the client named, if it named one.

use std::fmt::Debug;
use std::time::SystemTime;

use application::traces::{COMMAND, TARGET};
use domain::trace::TraceParent;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags,
    TraceId, TraceState, Tracer,
};
use opentelemetry::{Context as TraceContext, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// See the module's text.
#[derive(Debug)]
pub struct CommandLayer {
    tracer: SdkTracer,
}

impl CommandLayer {
    pub(crate) const fn new(tracer: SdkTracer) -> Self {
        Self { tracer }
    }
}

/// What a span of a command says of itself.
#[derive(Default)]
struct Fields {
    command: Option<String>,
    parent: Option<TraceParent>,
    error: Option<String>,
    others: Vec<KeyValue>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            COMMAND => self.command = Some(value.to_owned()),
            "traceparent" => self.parent = TraceParent::parse(value),
            "error" => self.error = Some(value.to_owned()),
            name => self.others.push(KeyValue::new(name, value.to_owned())),
        }
    }
}

impl<S> Layer<S> for CommandLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id).filter(|span| span.metadata().target() == TARGET) else {
            return;
        };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let parent = fields.parent.map_or_else(TraceContext::new, remote);
        let builder = SpanBuilder::from_name(fields.command.unwrap_or_default())
            .with_kind(SpanKind::Server)
            .with_start_time(SystemTime::now())
            .with_attributes(fields.others);
        let begun: Span = self.tracer.build_with_context(builder, &parent);
        span.extensions_mut().insert(begun);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(begun) = extensions.get_mut::<Span>() else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        if let Some(error) = fields.error {
            begun.set_status(Status::error(error));
        }
        begun.set_attributes(fields.others);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(mut begun) = span.extensions_mut().remove::<Span>() {
            begun.end();
        }
    }
}

/// The context of a trace that somebody else began.
fn remote(parent: TraceParent) -> TraceContext {
    let flags = if parent.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let trace = TraceId::from(parent.trace_id());
    let span = SpanId::from(parent.parent_id());
    let context = SpanContext::new(trace, span, flags, true, TraceState::default());
    TraceContext::new().with_remote_span_context(context)
}
