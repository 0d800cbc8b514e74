//! Counters that a route of the configuration asks for, under names of its own.
//!
//! Must not know: routes.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

/// Values of a label that are counted each by itself; all further ones are counted as [`OTHERS`].
const LABEL_VALUES: usize = 1000;
const OTHERS: &str = "other";

/// Hits and misses of a route, by one of its parameters, and the rows of its hits.
pub struct Tally {
    hits: Option<IntCounterVec>,
    misses: Option<IntCounterVec>,
    rows: Option<IntCounter>,
    by: Option<String>,
    seen: Mutex<HashSet<String>>,
}

impl Tally {
    /// Registers the counters that have a name: of hits, of misses (both by the label `by`, where there is one), of rows.
    ///
    /// # Errors
    /// A name that is none, or that is taken.
    pub fn register(
        registry: &Registry,
        [hits, misses, rows]: [Option<&str>; 3],
        by: Option<&str>,
    ) -> prometheus::Result<Self> {
        let labels: Vec<&str> = by.into_iter().collect();
        let family = |name: Option<&str>, help: &str| {
            let Some(name) = name else { return Ok(None) };
            let family = IntCounterVec::new(Opts::new(name, help), &labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(Some(family))
        };
        let rows = rows
            .map(|name| {
                let counter = IntCounter::new(name, "Rows of answers that needed no database.")?;
                registry.register(Box::new(counter.clone()))?;
                Ok::<_, prometheus::Error>(counter)
            })
            .transpose()?;
        Ok(Self {
            hits: family(hits, "Answers that needed no database.")?,
            misses: family(misses, "Answers that needed the database.")?,
            rows,
            by: by.map(str::to_owned),
            seen: Mutex::default(),
        })
    }

    /// The parameter by which is counted.
    pub fn by(&self) -> Option<&str> {
        self.by.as_deref()
    }

    /// Counts an answer with so many rows; `value` is that of the parameter.
    pub fn count(&self, hit: bool, rows: usize, value: &str) {
        let value = self.bounded(value);
        let labels: Vec<&str> = self.by.iter().map(|_| value).collect();
        if let Some(family) = if hit { &self.hits } else { &self.misses } {
            family.with_label_values(&labels).inc();
        }
        if let Some(counter) = self.rows.as_ref().filter(|_| hit) {
            counter.inc_by(rows as u64);
        }
    }

    /// A client must not be able to make ever more series.
    fn bounded<'v>(&self, value: &'v str) -> &'v str {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(value) {
            return value;
        }
        if seen.len() >= LABEL_VALUES {
            return OTHERS;
        }
        seen.insert(value.to_owned());
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let registry = Registry::new();
        let tally =
            Tally::register(&registry, [Some("h_total"), None, Some("r_total")], Some("user_id")).unwrap();
        for user in 0..LABEL_VALUES + 50 {
            tally.count(true, 2, &user.to_string());
        }
        let families = registry.gather();
        let hits = families.iter().find(|family| family.name() == "h_total").unwrap();
        assert_eq!(hits.get_metric().len(), LABEL_VALUES + 1);
        let rows = families.iter().find(|family| family.name() == "r_total").unwrap();
        assert_eq!(rows.get_metric()[0].get_counter().get_value(), 2.0 * (LABEL_VALUES + 50) as f64);
        assert!(
            Tally::register(&registry, [Some("h_total"), None, None], None).is_err(),
            "the name is taken"
        );
    }
}
