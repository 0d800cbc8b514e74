//! `GET /api/v1/writeback`: what waits for the database, and whether more is taken.
//!
//! Must not know: queues. Whoever may use the facade may ask.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::{Map, Value as Json, json};

use super::error::ApiError;
use super::facade;
use super::routes::{Answer, Call, json_answer};
use crate::mapping::{Durability, Mapping, WriteMode};
use crate::source::Source;
use crate::writeback::{Condition, Depth, WriteBehind};

/// Its path.
pub const PATH: &str = "/api/v1/writeback";

/// What is asked about writes.
pub struct Writeback {
    /// The database.
    pub source: Arc<Source>,
    /// The queues.
    pub writes: WriteBehind,
}

/// For those who may ask.
pub(super) fn admitted(call: &Call) -> Result<&Writeback, ApiError> {
    facade::admit(call)?;
    call.state.writeback.as_ref().ok_or_else(|| ApiError::NotFound("no mapping is configured".into()))
}

/// What waits, by mapping and lane, and how the journal stands.
pub async fn show(call: Call) -> Answer {
    let asked = admitted(&call)?;
    let Writeback { source, writes } = asked;
    if call.head.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(ApiError::Malformed(format!("{PATH} takes no parameters")));
    }
    let (mut mappings, mut sum, mut worst) = (Map::new(), Depth::default(), (Condition::Healthy, None));
    for mapping in source.mappings().iter().filter(|mapping| mapping.write != WriteMode::None) {
        let state = writes.condition(mapping.id);
        let mut shown = depth(writes.depth(mapping.id));
        sum = sum.and(writes.depth(mapping.id));
        shown.extend(of_mapping(asked, mapping, &state));
        mappings.insert(mapping.name.clone(), Json::Object(shown));
        if state.0 > worst.0 {
            worst = state;
        }
    }
    let journal = writes.journal().map(|journal| {
        json!({
            "entries": journal.entries, "bytes": journal.bytes, "oldest_seconds": seconds(journal.oldest),
            "waiting_for_disk": journal.inbox, "synced": journal.synced, "segments": journal.segments,
            "poisoned": journal.poisoned.as_deref(), "no_space": journal.no_space.as_deref(),
        })
    });
    let mut body = depth(sum);
    let more = [
        ("state", json!(worst.0.label())),
        ("reason", json!(worst.1)),
        ("pressure", json!(thousandths(writes.pressure()))),
        ("journal", json!(journal)),
        ("mappings", Json::Object(mappings)),
    ];
    body.extend(more.map(|(name, value)| (name.to_owned(), value)));
    Ok(json_answer(StatusCode::OK, &Json::Object(body)))
}

fn of_mapping(
    Writeback { source, writes }: &Writeback,
    mapping: &Mapping,
    (condition, reason): &(Condition, Option<String>),
) -> [(String, Json); 6] {
    let durability = match mapping.durability {
        Durability::Journal => "journal",
        Durability::Memory => "memory",
        Durability::Database => "database",
    };
    let lanes = writes.lane_depths(mapping.id).into_iter().map(|lane| Json::Object(depth(lane))).collect();
    [
        ("durability", json!(durability)),
        ("state", json!(condition.label())),
        ("reason", json!(reason)),
        ("retrying", json!(writes.retrying(mapping.id))),
        ("dead_letters", json!(source.known_dead_letters(mapping.id))),
        ("lanes", lanes),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

fn depth(depth: Depth) -> Map<String, Json> {
    let members = [
        ("rows", json!(depth.rows)),
        ("bytes", json!(depth.bytes)),
        ("oldest_seconds", seconds(depth.oldest)),
    ];
    members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn seconds(time: Option<Duration>) -> Json {
    json!(time.map(|time| thousandths(time.as_secs_f64())))
}

fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
