//! One metric as text: name, help, kind and values.
//!
//! Labels come from closed sets only: rows of enums and numbers of workers.

use std::fmt;

use application::metrics::{Distribution, Histogram, Row};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Writes metrics one behind the other.
pub(crate) struct Writer<'a>(pub(crate) DescriptorEncoder<'a>);

impl Writer<'_> {
    /// A number that only grows; its name is shown with `_total` behind it.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)
    }

    /// Seconds that only grow; the name is shown with `_total` behind it.
    pub(crate) fn seconds(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode_counter::<NoLabelSet, f64, u64>(&value, None)
    }

    /// The same by a row of a closed set.
    pub(crate) fn counters<R: Row>(
        &mut self,
        (name, help, label): (&str, &str, &str),
        value: impl Fn(R) -> u64,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for row in R::ROWS {
            let labels = [(label, row.label())];
            let mut metric = metric.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, u64, u64>(&value(*row), None)?;
        }
        Ok(())
    }

    /// A number that comes and goes.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value)
    }

    /// The same by a row of a closed set.
    pub(crate) fn gauges<R: Row>(
        &mut self,
        (name, help, label): (&str, &str, &str),
        value: impl Fn(R) -> u64,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for row in R::ROWS {
            let labels = [(label, row.label())];
            metric.encode_family(&labels)?.encode_gauge(&(value(*row) as f64))?;
        }
        Ok(())
    }

    /// The same by worker.
    pub(crate) fn by_worker(
        &mut self,
        (name, help): (&str, &str),
        values: impl Iterator<Item = f64>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (worker, value) in values.enumerate() {
            let labels = [("worker", worker as u64)];
            metric.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// Something that is always 1 and says more in its labels.
    pub(crate) fn info(
        &mut self,
        (name, help): (&str, &str),
        labels: &[(&str, &str)],
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_family(&labels)?.encode_gauge(&1_u64)
    }

    /// Durations in seconds.
    pub(crate) fn histogram(&mut self, name: &str, help: &str, seen: &Distribution) -> fmt::Result {
        let bounds = Histogram::BOUNDS_US.iter().map(|us| *us as f64 / 1e6);
        let bounds = bounds.chain(std::iter::once(f64::INFINITY));
        let buckets: Vec<(f64, u64)> = bounds.zip(seen.buckets).collect();
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let sum = seen.sum_us as f64 / 1e6;
        metric.encode_histogram::<NoLabelSet>(sum, seen.count(), &buckets, None)
    }
}
