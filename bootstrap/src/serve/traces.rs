//! Traces: whether they are taken, and where they go.
//!
//! A build without the feature `otel` refuses to be told of a collector rather than to ignore it.

use tokio::runtime::Handle;

use super::ServeError;
use crate::log::TraceLayer;
use crate::settings::Traces as Settings;

#[cfg(feature = "otel")]
pub(super) struct Traces(Option<telemetry_otlp::Traces>);

#[cfg(feature = "otel")]
impl Traces {
    /// Begins to take traces, if a collector is named.
    pub(super) fn start(settings: &Settings, runtime: &Handle) -> Result<Self, ServeError> {
        let Some(endpoint) = &settings.endpoint else { return Ok(Self(None)) };
        let config = telemetry_otlp::Config {
            endpoint: endpoint.clone(),
            sampled: f64::from(settings.sampled_per_million) / 1e6,
            runtime: runtime.clone(),
        };
        let traces = telemetry_otlp::Traces::start(config);
        traces
            .map(|traces| Self(Some(traces)))
            .map_err(|e| super::part(&e, crate::exit::Exit::Settings))
    }

    /// What takes the spans of commands.
    pub(super) fn layer(&self) -> Option<TraceLayer> {
        use tracing_subscriber::Layer;
        use tracing_subscriber::filter::filter_fn;

        let only_commands = filter_fn(|meta| meta.target() == application::traces::TARGET);
        self.0.as_ref().map(|traces| traces.layer().with_filter(only_commands).boxed())
    }

    /// Sends what is left. The runtime must still be there.
    pub(super) fn finish(&self) {
        if let Some(traces) = &self.0 {
            traces.finish();
        }
    }
}

#[cfg(not(feature = "otel"))]
pub(super) struct Traces;

#[cfg(not(feature = "otel"))]
impl Traces {
    pub(super) fn start(settings: &Settings, _: &Handle) -> Result<Self, ServeError> {
        if settings.endpoint.is_some() {
            let text = "traces.endpoint is set, but this build takes no traces (feature otel)";
            return Err(ServeError::Part(text.to_owned(), crate::exit::Exit::Settings));
        }
        Ok(Self)
    }

    pub(super) const fn layer(&self) -> Option<TraceLayer> {
        None
    }

    pub(super) const fn finish(&self) {}
}
