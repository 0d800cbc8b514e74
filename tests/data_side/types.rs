//! Every type of Postgres goes in and comes out exactly, for arbitrary values.

use dsproxy::mapping::{MappingSpec, Row, WriteMode};
use dsproxy::source::{Change, LoadFrom, Source};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::value::RawValue;

use crate::pg::Pg;

const TABLE: &str = "create type mood as enum ('sad', 'so-so', 'it''s \"ok\"'); create domain positive as bigint check (value > 0); \
    create table t (id bigint primary key, i2 smallint, i4 int, i8 bigint, n numeric, np numeric(30,10), f8 double precision, \
    b bool, s text, v varchar(40), u uuid, y bytea, d date, tm time, ts timestamp, tz timestamptz, iv interval, j json, jb jsonb, \
    m mood, p positive, ip inet, ia bigint[], sa text[], ua uuid[], na numeric[], da date[], ja jsonb[], nested text[][], ma mood[])";

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>().prop_filter("Postgres stores no NUL", |c| *c != '\0'), 0..12)
        .prop_map(|chars| chars.into_iter().collect())
}

fn uuid() -> impl Strategy<Value = String> {
    any::<u128>().prop_map(|n| {
        let hex = format!("{n:032x}");
        format!("\"{}-{}-{}-{}-{}\"", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    })
}

fn date() -> impl Strategy<Value = String> {
    (1..9999_u32, 1..13_u32, 1..29_u32).prop_map(|(y, m, d)| format!("\"{y:04}-{m:02}-{d:02}\""))
}

fn clock() -> impl Strategy<Value = String> {
    (0..24_u32, 0..60_u32, 0..60_u32, 0..1_000_000_u32).prop_map(|(h, m, s, us)| match us {
        0 => format!("{h:02}:{m:02}:{s:02}"),
        us => format!("{h:02}:{m:02}:{s:02}.{us:06}").trim_end_matches('0').to_owned(),
    })
}

fn stamp(zone: &'static str) -> impl Strategy<Value = String> {
    (date(), clock()).prop_map(move |(d, c)| format!("\"{}T{c}{zone}\"", d.trim_matches('"')))
}

/// A numeric of any length, as Postgres writes it.
fn numeric() -> impl Strategy<Value = String> {
    ("-?[1-9][0-9]{0,40}", proptest::option::of("[0-9]{1,30}")).prop_map(|(whole, part)| match part {
        Some(part) => format!("{whole}.{part}"),
        None => whole,
    })
}

fn array(of: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    proptest::collection::vec(prop_oneof![4 => of, 1 => Just("null".to_owned())], 0..4)
        .prop_map(|items| format!("[{}]", items.join(",")))
}

fn mood() -> impl Strategy<Value = String> {
    prop_oneof![Just("sad"), Just("so-so"), Just("it's \"ok\"")].prop_map(quoted)
}

/// A JSON object of every column; each value as Postgres writes it back, or null.
fn row() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let strings = || text().prop_map(|text| quoted(&text));
    let number = |n: i64| n.to_string();
    let columns: Vec<(&'static str, BoxedStrategy<String>)> = vec![
        ("i2", any::<i16>().prop_map(|n| n.to_string()).boxed()),
        ("i4", any::<i32>().prop_map(|n| n.to_string()).boxed()),
        ("i8", any::<i64>().prop_map(number).boxed()),
        ("n", numeric().boxed()),
        ("np", ("-?[1-9][0-9]{0,19}", "[0-9]{10}").prop_map(|(a, b)| format!("{a}.{b}")).boxed()),
        ("b", any::<bool>().prop_map(|b| b.to_string()).boxed()),
        ("s", strings().boxed()),
        ("v", strings().boxed()),
        ("u", uuid().boxed()),
        (
            "y",
            proptest::collection::vec(any::<u8>(), 0..9)
                .prop_map(|bytes| {
                    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
                    format!("\"\\\\x{hex}\"")
                })
                .boxed(),
        ),
        ("d", date().boxed()),
        ("tm", clock().prop_map(|c| format!("\"{c}\"")).boxed()),
        ("ts", stamp("").boxed()),
        ("tz", stamp("+00:00").boxed()),
        ("iv", (1..100_u32, 1..24_u32).prop_map(|(d, h)| format!("\"P{d}DT{h}H\"")).boxed()),
        ("j", strings().prop_map(|s| format!("{{\"a\" : [1.50, {s}]}}")).boxed()),
        ("m", mood().boxed()),
        ("p", (1..i64::MAX).prop_map(number).boxed()),
        ("ip", any::<[u8; 4]>().prop_map(|[a, b, c, d]| format!("\"{a}.{b}.{c}.{d}\"")).boxed()),
        ("ia", array(any::<i64>().prop_map(number)).boxed()),
        ("sa", array(strings()).boxed()),
        ("ua", array(uuid()).boxed()),
        ("na", array(numeric()).boxed()),
        ("da", array(date()).boxed()),
        ("nested", (strings(), strings()).prop_map(|(a, b)| format!("[[{a},{b}],[{b},null]]")).boxed()),
        ("ma", array(mood()).boxed()),
    ];
    let columns: Vec<_> = columns
        .into_iter()
        .map(|(name, value)| {
            prop_oneof![6 => value, 1 => Just("null".to_owned()).boxed()].prop_map(move |v| (name, v))
        })
        .collect();
    columns
}

async fn load(source: &Source, ids: &[u64]) -> Vec<String> {
    let keys: Vec<String> = ids.iter().map(|id| format!("t:{id}")).collect();
    let found: Vec<_> = keys.iter().map(|key| source.mappings().find(key.as_bytes()).unwrap().1).collect();
    let rows = source.load(0, &found, LoadFrom::Primary).await.unwrap();
    rows.into_iter().map(|row| String::from_utf8(row.unwrap().unwrap().value.to_vec()).unwrap()).collect()
}

/// Members of a JSON object with their texts as they stand there.
fn members(json: &str) -> std::collections::BTreeMap<String, Box<RawValue>> {
    serde_json::from_str(json).unwrap()
}

#[tokio::test]
async fn arbitrary_values_of_every_type_make_the_round_trip() {
    let pg = Pg::start();
    pg.execute(TABLE).await;
    let spec = MappingSpec { write: WriteMode::Behind, ..MappingSpec::new("t", "t:{id}", "t", "bigint") };
    let source = pg.source(vec![spec]).await;
    let mut runner = TestRunner::new(Config::default());
    let rows: Vec<_> = (0..200).map(|_| row().new_tree(&mut runner).unwrap().current()).collect();
    let mut changes = Vec::new();
    for (id, row) in rows.iter().enumerate() {
        let members: Vec<String> =
            row.iter().map(|(name, value)| format!("{}:{value}", quoted(name))).collect();
        let body = format!("{{{}}}", members.join(","));
        let key = format!("t:{id}");
        let (_, found) = source.mappings().find(key.as_bytes()).unwrap();
        let row = Row::parse(source.bound(0).unwrap(), found.ids(), body.as_bytes());
        changes.push(Change::Put(row.unwrap_or_else(|error| panic!("{error}: {body}"))));
    }
    source.apply(0, &changes.iter().collect::<Vec<_>>()).await.unwrap();
    let ids: Vec<u64> = (0..rows.len() as u64).collect();
    let loaded = load(&source, &ids).await;
    for (row, loaded) in rows.iter().zip(&loaded) {
        let came = members(loaded);
        for (name, value) in row {
            let same = came[*name].get() == value
                // Texts may be escaped in other ways; they are equal when they read equally.
                || (value.contains('"')
                    && serde_json::from_str::<serde_json::Value>(value).unwrap()
                        == serde_json::from_str::<serde_json::Value>(came[*name].get()).unwrap());
            assert!(same, "{name}: {value} came back as {}", came[*name].get());
        }
    }
    // What was read can be written again, and reads the same: a client may GET, change a member, and SET.
    let again: Vec<Change> = loaded
        .iter()
        .enumerate()
        .map(|(id, body)| {
            let key = format!("t:{id}");
            let (_, found) = source.mappings().find(key.as_bytes()).unwrap();
            Change::Put(Row::parse(source.bound(0).unwrap(), found.ids(), body.as_bytes()).unwrap())
        })
        .collect();
    pg.execute("truncate t").await;
    source.apply(0, &again.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(load(&source, &ids).await, loaded);
}
