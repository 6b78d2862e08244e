//! Sampled spans of commands to an OpenTelemetry collector, over OTLP/HTTP.
//!
//! There is one span per command that has to wait, and none per message delivered. It must never
//! make the server wait: what the collector does not take is lost.
//!
//! Reading order: [`Traces`], `layer` (from the application's spans to OpenTelemetry's), `client`
//! (how batches leave).

mod client;
mod layer;
mod traces;

pub use layer::CommandLayer;
pub use traces::{BuildError, Config, Traces};
