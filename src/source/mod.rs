//! Postgres as the source behind the mappings: describing tables, loading rows, applying batches of writes.
//!
//! Must not know: caches, queues, clients.

mod apply;
mod backoff;
mod describe;
mod error;
mod load;
pub mod migrate;
mod params;
mod postgres;
mod sql;

use std::sync::Arc;

use crate::mapping::{Bound, MappingId, MappingSet};

pub use apply::Change;
pub use backoff::{Backoff, spread};
pub use error::SourceError;
pub use load::LoadedRow;
pub use postgres::{Postgres, PostgresOptions};

/// The mappings of a proxy, held against a database: what rows are loaded from and written to.
#[derive(Debug)]
pub struct Source {
    postgres: Postgres,
    set: MappingSet,
    plans: Vec<Plan>,
}

/// How one mapping is loaded and written.
#[derive(Debug)]
struct Plan {
    bound: Arc<Bound>,
    load: load::LoadPlan,
}

/// Why a source cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The database could not be asked.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Mappings and database do not fit; one message per mistake, each with its cure.
    #[error("{}", .0.join("\n"))]
    Misfits(Vec<String>),
}

impl Source {
    /// Holds every mapping of `set` against the database. All mistakes are reported together.
    pub async fn open(postgres: Postgres, set: MappingSet) -> Result<Self, OpenError> {
        let mut plans = Vec::with_capacity(set.len());
        let mut misfits = Vec::new();
        for mapping in set.iter() {
            match describe::plan(&postgres, mapping).await? {
                Ok(plan) => plans.push(plan),
                Err(problems) => misfits.extend(problems.iter().map(ToString::to_string)),
            }
        }
        if misfits.is_empty() { Ok(Self { postgres, set, plans }) } else { Err(OpenError::Misfits(misfits)) }
    }

    /// The connections.
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// The mappings.
    pub fn mappings(&self) -> &MappingSet {
        &self.set
    }

    /// A mapping with its table.
    pub fn bound(&self, mapping: MappingId) -> Option<&Arc<Bound>> {
        self.plans.get(usize::from(mapping)).map(|plan| &plan.bound)
    }

    fn plan(&self, mapping: MappingId) -> Result<&Plan, SourceError> {
        self.plans.get(usize::from(mapping)).ok_or_else(|| SourceError::Schema {
            message: format!("there is no mapping number {mapping}"),
            code: "42704".into(),
        })
    }
}
