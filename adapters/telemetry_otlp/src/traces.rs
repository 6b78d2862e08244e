//! The way from a command's span to the collector: sampling, batches, the end.

use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use thiserror::Error;
use tokio::runtime::Handle;

use crate::client::Client;
use crate::layer::CommandLayer;

/// How traces are taken and where they go.
#[derive(Clone, Debug)]
pub struct Config {
    /// The collector's address for traces, like `http://127.0.0.1:4318/v1/traces`. Without TLS: a
    /// collector stands beside the server.
    pub endpoint: String,
    /// Which part of the commands that come without a trace is sampled, from 0 to 1. Who comes
    /// with one has decided already.
    pub sampled: f64,
    /// What runs the requests to the collector.
    pub runtime: Handle,
}

/// Why traces can't be taken.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The exporter does not accept the address.
    #[error("the collector's address can't be used")]
    Endpoint(#[source] opentelemetry_otlp::ExporterBuildError),
}

/// Running traces.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
}

/// How long one batch may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the end may take.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

impl Traces {
    /// Begins to take them.
    ///
    /// # Errors
    /// [`BuildError`] when the address can't be used. Whether anybody listens there is not asked.
    pub fn start(config: Config) -> Result<Self, BuildError> {
        let Config { endpoint, sampled, runtime } = config;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(runtime, EXPORT_TIMEOUT))
            .with_endpoint(endpoint)
            .with_timeout(EXPORT_TIMEOUT)
            .build()
            .map_err(BuildError::Endpoint)?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sampled)));
        let provider = SdkTracerProvider::builder()
            .with_resource(Resource::builder().with_service_name("roomkeeper").build())
            .with_sampler(sampler)
            .with_batch_exporter(exporter)
            .build();
        Ok(Self { provider })
    }

    /// What makes OpenTelemetry's spans of the application's, to be put into the subscriber.
    #[must_use]
    pub fn layer(&self) -> CommandLayer {
        CommandLayer::new(self.provider.tracer("roomkeeper"))
    }

    /// Sends what is left, for a moment at most. Blocks: call it where waiting is allowed, while
    /// the runtime still runs.
    pub fn finish(&self) {
        // A collector that is away has lost more than these.
        let _ = self.provider.shutdown_with_timeout(LAST_EXPORT_TIMEOUT);
    }
}
