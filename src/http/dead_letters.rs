//! `/api/v1/dlq`: shows, applies and removes writes that the database has refused.
//!
//! Must not know: SQL, how the cache hears of it. Whoever may use the facade may ask.

use std::collections::HashSet;

use hyper::StatusCode;
use serde_json::{Value as Json, json};

use super::error::ApiError;
use super::query::pairs;
use super::routes::{Answer, Call, json_answer};
use super::writeback::admitted;
use crate::cache::Outcome;
use crate::source::{DeadLetter, Letters, SourceError};

/// Its path.
pub const PATH: &str = "/api/v1/dlq";
/// Path of the replay.
pub const REPLAY: &str = "/api/v1/dlq/replay";

/// Dead letters that one request is about at most.
pub const MOST: u32 = 1000;

/// Of the number of a dead letter at most.
pub const DIGITS: usize = 18;

/// Which dead letters a request is about.
struct Asked {
    letters: Letters,
    limit: u32,
}

impl Asked {
    /// `?mapping=NAME&id=1&id=2&after=7&limit=100`, or `?which=WHICH` for what cannot be taken back: those of `allowed`, none
    /// but `id` more than once.
    fn of(call: &Call, allowed: &[&str]) -> Result<Self, ApiError> {
        let mut asked = Self { letters: Letters::default(), limit: MOST };
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in pairs(call.head.uri.query())? {
            let wrong =
                |expected: &str| ApiError::Malformed(format!("`{name}` is {value:?}: expected {expected}"));
            if !allowed.contains(&name.as_str()) {
                let expected = allowed.join("`, `");
                return Err(ApiError::Malformed(format!(
                    "unknown parameter {name:?}: expected `{expected}`"
                )));
            }
            if name != "id" && seen.contains(&name) {
                return Err(ApiError::Malformed(format!("the parameter `{name}` is given twice")));
            }
            let number = || value.parse::<i64>().ok().filter(|number| *number >= 0);
            match name.as_str() {
                "mapping" if value.is_empty() || value.contains('\0') => {
                    return Err(wrong("the name of a mapping"));
                }
                "mapping" => asked.letters.mapping = Some(value.clone()),
                "id" if asked.letters.ids.len() == MOST as usize => {
                    return Err(ApiError::Malformed(format!("more than {MOST} times `id`")));
                }
                "id" => asked.letters.ids.push(number().ok_or_else(|| wrong("a number of a dead letter"))?),
                "after" => {
                    asked.letters.after = number().ok_or_else(|| wrong("a number of a dead letter"))?
                }
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MOST).contains(limit));
                    asked.limit = limit.ok_or_else(|| wrong(&format!("1 to {MOST}")))?;
                }
                _ => {
                    let after = asked.letters.after;
                    asked.letters = which(&value)
                        .ok_or_else(|| wrong("`all`, `mapping:NAME`, or numbers as in `7,9`"))?;
                    asked.letters.after = after;
                }
            }
            seen.push(name);
        }
        Ok(asked)
    }

    /// As [`Asked::of`], with `which` and these.
    fn chosen(call: &Call, more: &[&str]) -> Result<Self, ApiError> {
        let named = pairs(call.head.uri.query())?.iter().any(|(name, _)| name == "which");
        if !named {
            let text = "the parameter `which` is missing: `all`, `mapping:NAME`, or numbers as in `7,9`";
            return Err(ApiError::Malformed(text.into()));
        }
        Self::of(call, &[&["which"], more].concat())
    }

    /// Where a next request goes on, if this one was not about all of them.
    fn next(&self, letters: &[DeadLetter]) -> Option<i64> {
        letters.last().filter(|_| letters.len() == self.limit as usize).map(|last| last.id)
    }
}

/// `all`, `mapping:NAME`, or the numbers of some.
fn which(text: &str) -> Option<Letters> {
    let mut letters = Letters::default();
    match text.strip_prefix("mapping:") {
        Some(name) if name.is_empty() || name.contains('\0') => return None,
        Some(name) => letters.mapping = Some(name.to_owned()),
        None if text == "all" => {}
        None => {
            let digits =
                |id: &&str| (1..=DIGITS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
            let ids = text.split(',').map(|id| Some(id).filter(digits)?.parse().ok());
            letters.ids = ids.collect::<Option<Vec<i64>>>().filter(|ids| ids.len() <= MOST as usize)?;
        }
    }
    Some(letters)
}

fn failed(error: SourceError) -> ApiError {
    ApiError::Unavailable(error.to_string())
}

/// Oldest first.
pub async fn list(call: Call) -> Answer {
    let source = &admitted(&call)?.source;
    let asked = Asked::of(&call, &["mapping", "id", "after", "limit"])?;
    let letters = source.dead_letters(&asked.letters, asked.limit).await.map_err(failed)?;
    let shown: Vec<Json> = letters.iter().map(shown).collect();
    Ok(json_answer(StatusCode::OK, &json!({"dead_letters": shown, "next": asked.next(&letters)})))
}

/// A version has more digits than a number of JavaScript keeps: it is a text.
fn shown(letter: &DeadLetter) -> Json {
    let columns = letter.columns.as_deref().and_then(|columns| serde_json::from_str::<Json>(columns).ok());
    json!({
        "id": letter.id, "at": letter.at, "mapping": letter.mapping, "key": letter.key,
        "operation": letter.operation, "version": letter.version.to_string(), "columns": columns,
        "code": letter.code, "error": letter.error, "later": letter.later.map(|version| version.to_string()),
        "waits": letter.held,
    })
}

/// Applies them, unless newer writes of their keys were, and what waits behind them.
pub async fn replay(call: Call) -> Answer {
    admitted(&call)?;
    let asked = Asked::chosen(&call, &["after", "limit"])?;
    let Some(reads) = call.state.reads.clone() else {
        return Err(ApiError::NotFound("no mapping is configured".into()));
    };
    // A task of its own: a client that goes away does not end it halfway.
    let work = tokio::spawn(async move {
        let (mut applied, mut outrun, mut untold, mut refused) = (0, 0, 0, Vec::new());
        let letters = reads.dead_letters(&asked.letters, asked.limit).await.map_err(failed)?;
        let (mut waiting, mut over) = (0, HashSet::new());
        for letter in &letters {
            if over.contains(&letter.id) {
                continue;
            }
            match reads.replay(letter).await {
                Ok(replayed) => {
                    *(if replayed.applied { &mut applied } else { &mut outrun }) += 1;
                    untold += usize::from(!replayed.told);
                    over.extend(replayed.released.iter().map(|released| released.id));
                    for released in replayed.released {
                        match released.outcome {
                            Outcome::Applied => applied += 1,
                            Outcome::Outrun => outrun += 1,
                            Outcome::Refused(error) => {
                                refused.push(json!({"id": released.id, "error": error}))
                            }
                        }
                    }
                }
                Err(SourceError::Waits { .. }) => waiting += 1,
                Err(error @ SourceError::Unavailable { .. }) => return Err(failed(error)),
                Err(error) => refused.push(json!({"id": letter.id, "error": error.to_string()})),
            }
        }
        let next = asked.next(&letters);
        Ok(json!({
            "applied": applied, "outrun": outrun, "refused": refused, "waiting": waiting, "untold": untold, "next": next,
        }))
    });
    let body = work.await.map_err(|error| ApiError::Internal(error.to_string()))??;
    Ok(json_answer(StatusCode::OK, &body))
}

/// Removes them without applying them, and applies what waited behind them.
pub async fn discard(call: Call) -> Answer {
    admitted(&call)?;
    let asked = Asked::chosen(&call, &[])?;
    let Some(reads) = call.state.reads.clone() else {
        return Err(ApiError::NotFound("no mapping is configured".into()));
    };
    let work = tokio::spawn(async move { reads.drop_letters(&asked.letters).await });
    let work = work.await.map_err(|error| ApiError::Internal(error.to_string()))?;
    let (dropped, released) = work.map_err(failed)?;
    let of = |wanted: &Outcome| released.iter().filter(|it| it.outcome == *wanted).count();
    let refused = released.iter().filter_map(|it| match &it.outcome {
        Outcome::Refused(error) => Some(json!({"id": it.id, "error": error})),
        _ => None,
    });
    let refused: Vec<Json> = refused.collect();
    let body = json!({
        "dropped": dropped, "applied": of(&Outcome::Applied), "outrun": of(&Outcome::Outrun), "refused": refused,
    });
    Ok(json_answer(StatusCode::OK, &body))
}
