//! The text format of Prometheus, read as strictly as these tests need.

use std::collections::{BTreeMap, BTreeSet};

/// One series and its value.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// A page of metrics.
#[derive(Debug)]
pub(super) struct Exposition {
    /// Family -> type.
    pub(super) types: BTreeMap<String, String>,
    pub(super) series: Vec<Series>,
}

impl Exposition {
    /// Panics at a line that is none of the format's.
    pub(super) fn read(text: &str) -> Self {
        let mut page = Self {
            types: BTreeMap::new(),
            series: Vec::new(),
        };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let before = page.types.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} comes twice");
            } else if !line.starts_with("# HELP ") {
                page.series.push(series(line));
            }
        }
        page
    }

    /// The sum over all series of this name with these labels.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.with(name, labels).map(|series| series.value).sum()
    }

    /// True if there is such a series.
    pub(super) fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.with(name, labels).next().is_some()
    }

    fn with<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(move |series| {
            let is = |(label, value): &(&str, &str)| {
                series.labels.get(*label).map(String::as_str) == Some(*value)
            };
            series.name == name && labels.iter().all(is)
        })
    }

    /// Every name that a query may use.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.series.iter().map(|series| &*series.name).collect()
    }

    /// One line per family: its name, type and labels.
    pub(super) fn shape(&self) -> String {
        let mut lines = String::new();
        for (family, kind) in &self.types {
            let own = |series: &&Series| {
                let rest = series.name.strip_prefix(family.as_str());
                rest.is_some_and(|rest| ["", "_bucket", "_sum", "_count"].contains(&rest))
            };
            let labels: BTreeSet<&str> = self
                .series
                .iter()
                .filter(own)
                .flat_map(|series| series.labels.keys().map(String::as_str))
                .collect();
            let labels: Vec<_> = labels.into_iter().collect();
            lines += &format!("{family} {kind} {{{}}}\n", labels.join(", "));
        }
        lines
    }
}

fn series(line: &str) -> Series {
    let (head, value) = line.rsplit_once(' ').unwrap();
    let (name, labels) = match head.split_once('{') {
        None => (head, BTreeMap::new()),
        Some((name, labels)) => {
            let labels = labels.strip_suffix("\"}").expect(line);
            // No value in these tests holds a quote.
            let pairs = labels.split("\",").map(|pair| {
                let (label, value) = pair.split_once("=\"").expect(line);
                (label.to_owned(), value.to_owned())
            });
            (name, pairs.collect())
        }
    };
    Series {
        name: name.to_owned(),
        labels,
        value: value.parse().expect(line),
    }
}
