//! A page of metrics as it is put together: one call per family, each with all of its series.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as HistogramValue, LabelPair, Metric, MetricFamily,
    MetricType,
};

use crate::driver::metrics::Histogram;

/// A page under construction.
#[derive(Debug, Default)]
pub(super) struct Page {
    families: Vec<MetricFamily>,
}

/// A family's name and help, and where its values are found.
pub(super) type Row<F> = (&'static str, &'static str, F);

/// Names and values of one series' labels.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

impl Page {
    /// A family of values that go up and down.
    pub(super) fn gauge<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let metric = |(labels, value): (Labels<'_>, f64)| {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            let mut metric = labelled(&labels);
            metric.set_gauge(gauge);
            metric
        };
        let metrics = series.into_iter().map(metric).collect();
        self.add(name, help, MetricType::GAUGE, metrics);
    }

    /// A gauge without labels.
    pub(super) fn single(&mut self, name: &str, help: &str, value: f64) {
        self.gauge(name, help, [(Vec::new(), value)]);
    }

    /// A family of values that only go up while the process lives.
    pub(super) fn counter<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, f64)>,
    ) {
        let metric = |(labels, value): (Labels<'_>, f64)| {
            let mut counter = Counter::default();
            counter.set_value(value);
            let mut metric = labelled(&labels);
            metric.set_counter(counter);
            metric
        };
        let metrics = series.into_iter().map(metric).collect();
        self.add(name, help, MetricType::COUNTER, metrics);
    }

    /// A family of histograms.
    pub(super) fn histogram<'a>(
        &mut self,
        name: &str,
        help: &str,
        series: impl IntoIterator<Item = (Labels<'a>, &'a Histogram)>,
    ) {
        let metric = |(labels, histogram): (Labels<'_>, &Histogram)| {
            let mut metric = labelled(&labels);
            metric.set_histogram(value_of(histogram));
            metric
        };
        let metrics = series.into_iter().map(metric).collect();
        self.add(name, help, MetricType::HISTOGRAM, metrics);
    }

    /// One series per word, 1 for the one that holds now.
    pub(super) fn states<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        words: &'static [&'static str],
        series: impl IntoIterator<Item = (Labels<'a>, Option<&'a str>)>,
    ) {
        let each = series.into_iter().flat_map(|(labels, now)| {
            words.iter().map(move |word| {
                let mut labels = labels.clone();
                labels.push((label, word));
                (labels, f64::from(now == Some(word)))
            })
        });
        self.gauge(name, help, each);
    }

    /// A family without series is left out: the format does not know any.
    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }

    pub(super) fn into_families(self) -> Vec<MetricFamily> {
        self.families
    }
}

fn labelled(labels: &[(&'static str, &str)]) -> Metric {
    let pair = |(name, value): &(&'static str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn value_of(histogram: &Histogram) -> HistogramValue {
    let bucket = |(bound, count): (f64, u64)| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut value = HistogramValue::default();
    value.set_bucket(histogram.cumulative().map(bucket).collect());
    value.set_sample_count(histogram.count());
    value.set_sample_sum(histogram.sum());
    value
}
