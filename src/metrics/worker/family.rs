//! Samples and families as Prometheus wants them.
//!
//! Must not know: what is counted.

use super::{BUCKETS, FIRST_BOUND_US, Merged};
use prometheus::core::Desc;
use prometheus::proto::{self, MetricFamily};
use std::collections::HashMap;

/// What a registry tells collectors apart by. One family stands for all of a collector, whose families depend on what
/// there is to show.
pub(in super::super) fn identity(family: &str) -> prometheus::Result<Desc> {
    Desc::new(family.to_owned(), family.to_owned(), Vec::new(), HashMap::new())
}

fn labels(pairs: &[(&str, &str)]) -> Vec<proto::LabelPair> {
    pairs
        .iter()
        .map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

pub(super) fn counter(pairs: &[(&str, &str)], value: u64) -> proto::Metric {
    count(pairs, value as f64)
}

pub(in super::super) fn count(pairs: &[(&str, &str)], value: f64) -> proto::Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    let mut metric = proto::Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

pub(in super::super) fn gauge(pairs: &[(&str, &str)], value: f64) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut metric = proto::Metric::from_label(labels(pairs));
    metric.set_gauge(gauge);
    metric
}

pub(super) fn histogram(pairs: &[(&str, &str)], merged: &Merged) -> proto::Metric {
    let mut histogram = proto::Histogram::default();
    let mut buckets = Vec::with_capacity(BUCKETS);
    let mut count = 0;
    for (index, n) in merged.buckets.iter().enumerate() {
        count += n;
        // The encoder adds the last bucket by itself, and spells its bound as Prometheus does: `+Inf`.
        if index + 1 < BUCKETS {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound((FIRST_BOUND_US << index) as f64 / 1e6);
            bucket.set_cumulative_count(count);
            buckets.push(bucket);
        }
    }
    histogram.set_bucket(buckets);
    histogram.set_sample_count(count);
    histogram.set_sample_sum(merged.sum_us as f64 / 1e6);
    let mut metric = proto::Metric::from_label(labels(pairs));
    metric.set_histogram(histogram);
    metric
}

pub(in super::super) fn family(
    name: &str,
    help: &str,
    samples: Vec<proto::Metric>,
    kind: proto::MetricType,
) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}
