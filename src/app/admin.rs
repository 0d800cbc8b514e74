//! Answers what clients ask of the proxy itself: `PROXY EXPLAIN`, `PROXY INVALIDATE`, `PROXY FLUSH`, `DBSIZE`.
//!
//! Must not know: clients.

use crate::cache::ReadThrough;
use crate::cluster::{Gateway, Origin};
use crate::core::{Admin, Question};
use crate::mapping::{Mapping, MappingId, RESERVED_PREFIX};
use crate::resp::{decode_reply, push_array_header, push_bulk, push_command, push_error, push_integer};
use crate::sidecar::{KEPT_MS, sidecar_key};
use crate::source::Source;
use crate::writeback::{Pending, WriteBehind};
use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// The back side of the proxy's own commands.
#[derive(Clone)]
pub(super) struct Desk {
    pub source: Arc<Source>,
    pub reads: ReadThrough,
    pub writes: WriteBehind,
    pub gateway: Gateway,
    pub runtime: Handle,
    /// How long `PROXY FLUSH` waits where it does not say.
    pub patience: Duration,
}

/// Longest time of a `PROXY FLUSH`.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// An error's text, beginning with its code.
type Refusal = String;

impl Admin for Desk {
    fn ask(&self, question: Question, protocol: u8, done: Box<dyn FnOnce(Vec<u8>) + Send>) {
        let desk = self.clone();
        self.runtime.spawn(async move {
            let mut reply = Vec::new();
            let answered = match question {
                Question::Explain { command, key, keys, slot, node } => {
                    desk.explain(command, &key, keys, (slot, &node), protocol, &mut reply).await
                }
                Question::Invalidate { pattern } => desk.invalidate(&pattern, &mut reply).await,
                Question::Flush { mapping, timeout, stopped } => {
                    let timeout = timeout.unwrap_or(desk.patience).min(LONGEST);
                    let Some(left) = desk.flush(mapping, timeout, stopped).await else { return };
                    push_integer(&mut reply, i64::try_from(left).unwrap_or(i64::MAX));
                    Ok(())
                }
                Question::Keys => desk.count_keys(&mut reply).await,
            };
            if let Err(text) = answered {
                reply.clear();
                push_error(&mut reply, text);
            }
            done(reply);
        });
    }
}

impl Desk {
    async fn call(&self, args: &[&[u8]]) -> Result<BytesFrame, Refusal> {
        let mut request = Vec::new();
        push_command(&mut request, args.iter().copied());
        let reply =
            self.gateway.call(Origin::Internal, request).await.map_err(|error| format!("ERR {error}"))?;
        match decode_reply(&reply) {
            Ok(BytesFrame::SimpleError { data, .. }) => Err(data.to_string()),
            Ok(frame) => Ok(frame),
            Err(error) => Err(format!("ERR a node's reply cannot be read: {error}")),
        }
    }

    /// How many writes are left; `None` when nobody wants to know any more.
    async fn flush(
        &self,
        mapping: Option<MappingId>,
        timeout: Duration,
        stopped: oneshot::Receiver<()>,
    ) -> Option<usize> {
        let mut wanted = true;
        let until = async {
            tokio::select! {
                () = tokio::time::sleep(timeout) => {}
                word = stopped => wanted = word.is_ok(),
            }
        };
        let left = self.writes.flush(mapping, until).await;
        wanted.then_some(left)
    }

    async fn invalidate(&self, pattern: &[u8], reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let done = self.reads.invalidate_pattern(pattern).await;
        if done.failed > 0 {
            return Err(format!(
                "ERR {} entries were dropped, but {} nodes or keys could not be reached: try again",
                done.dropped, done.failed
            ));
        }
        push_integer(reply, i64::try_from(done.dropped).unwrap_or(i64::MAX));
        Ok(())
    }

    /// All keys, and less those of our own, which a scan finds: each step holds up a node as little as a `SCAN` does.
    async fn count_keys(&self, reply: &mut Vec<u8>) -> Result<(), Refusal> {
        let all = integer(&self.call(&[b"DBSIZE"]).await?);
        let pattern = format!("{RESERVED_PREFIX}*");
        // A scan may tell a key twice.
        let mut own: HashSet<Bytes> = HashSet::new();
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let page =
                self.call(&[b"SCAN", &cursor, b"MATCH", pattern.as_bytes(), b"COUNT", b"1000"]).await?;
            let BytesFrame::Array { data, .. } = page else {
                return Err("ERR a scan was answered strangely".into());
            };
            let [BytesFrame::BlobString { data: next, .. }, BytesFrame::Array { data: keys, .. }] = &data[..]
            else {
                return Err("ERR a scan was answered strangely".into());
            };
            own.extend(keys.iter().filter_map(text));
            if &next[..] == b"0" {
                break;
            }
            cursor = next.clone();
        }
        push_integer(reply, (all.unwrap_or_default() - own.len() as i64).max(0));
        Ok(())
    }

    async fn explain(
        &self,
        command: &str,
        key: &[u8],
        keys: usize,
        (slot, node): (u16, &str),
        protocol: u8,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let mut said: Vec<(&str, String)> = vec![
            ("command", command.to_owned()),
            ("key", String::from_utf8_lossy(key).into_owned()),
            ("slot", slot.to_string()),
            ("node", node.to_owned()),
        ];
        if keys > 1 {
            said.push(("other_keys", (keys - 1).to_string()));
        }
        let mappings = self.source.mappings();
        match mappings.find(key) {
            None => said.push(("mapping", "none: plain Redis".to_owned())),
            Some((id, found)) => {
                let Some(mapping) = mappings.get(id) else { return Ok(()) };
                said.push(("mapping", mapping.name.clone()));
                for ((name, _), value) in mapping.template.placeholders().zip(found.ids()) {
                    said.push(("column", format!("{name} = {value}")));
                }
                said.extend(self.state(mapping, key).await?);
                let sql = self.source.load_sql(id).unwrap_or_else(|| "unknown".to_owned());
                said.push(("sql_of_a_miss", sql));
            }
        }
        match protocol {
            3 => reply.extend_from_slice(format!("%{}\r\n", said.len()).as_bytes()),
            _ => push_array_header(reply, said.len() * 2),
        }
        for (name, text) in said {
            push_bulk(reply, name.as_bytes());
            push_bulk(reply, text.as_bytes());
        }
        Ok(())
    }

    /// The fields of a sidecar; or, of a lease in its short form, the time that is left (ms).
    async fn sidecar(&self, key: &[u8]) -> Result<(HashMap<String, String>, Option<i64>), Refusal> {
        let name = sidecar_key(key);
        match self.call(&[b"HGETALL", &name]).await {
            Ok(found) => Ok((fields(found), None)),
            Err(refusal) if refusal.starts_with("WRONGTYPE") => {
                let left = integer(&self.call(&[b"PTTL", &name]).await?).unwrap_or_default() - KEPT_MS as i64;
                Ok((HashMap::new(), Some(left).filter(|left| *left > 0)))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// What the cluster and the queue hold for a key.
    async fn state(&self, mapping: &Mapping, key: &[u8]) -> Result<Vec<(&'static str, String)>, Refusal> {
        let (sidecar, short_lease) = self.sidecar(key).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64;
        let left = |field: &str| {
            sidecar.get(field)?.parse::<i64>().ok().map(|end| end - now).filter(|left| *left > 0)
        };
        let lease = short_lease.or_else(|| left("le"));
        let kind = self.call(&[b"TYPE", key]).await?;
        let present = !matches!(&kind, BytesFrame::SimpleString { data, .. } if &data[..] == b"none");
        let queued = self.writes.pending(mapping.id, key).map(|pending| match pending {
            Pending::Deleted => "a deletion waits for the database",
            _ => "a write waits for the database",
        });
        let state = match (queued, sidecar.get("d").map(String::as_str), present) {
            (Some(_), ..) => "dirty",
            (None, Some("x"), _) => "deleted, not yet in the database",
            (None, Some(_), _) => "dirty (of another proxy)",
            (None, None, true) => "hit",
            _ if left("n").is_some() => "negative: it is known that there is no row",
            _ if lease.is_some() => "being loaded",
            _ => "miss",
        };
        let mut said = vec![("state", state.to_owned())];
        said.extend(queued.map(|text| ("queued", text.to_owned())));
        if present {
            let ttl = integer(&self.call(&[b"PTTL", key]).await?).unwrap_or(-1);
            said.push(("ttl_ms", if ttl < 0 { "none".to_owned() } else { ttl.to_string() }));
        }
        let ends = [
            ("negative_ms", left("n")),
            ("lease_ms", lease),
            ("tombstone_ms", left("t")),
            ("write_through_ms", left("we")),
        ];
        said.extend(ends.into_iter().filter_map(|(name, ms)| Some((name, ms?.to_string()))));
        said.extend(sidecar.get("v").map(|version| ("version", version.clone())));
        said.extend(sidecar.get("g").map(|generation| ("generation", generation.clone())));
        Ok(said)
    }
}

fn integer(frame: &BytesFrame) -> Option<i64> {
    match frame {
        BytesFrame::Number { data, .. } => Some(*data),
        _ => None,
    }
}

fn text(frame: &BytesFrame) -> Option<Bytes> {
    match frame {
        BytesFrame::BlobString { data, .. } => Some(data.clone()),
        _ => None,
    }
}

/// A flat array of names and values.
fn fields(frame: BytesFrame) -> HashMap<String, String> {
    let BytesFrame::Array { data, .. } = frame else { return HashMap::new() };
    let texts: Vec<String> =
        data.iter().filter_map(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
    texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}
