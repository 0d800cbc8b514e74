//! `GET /api/v1/explain`.

use serde_json::{Value as Json, json};

use crate::bed::{Bed, user};

#[test]
fn explain_by_http() {
    let bed = Bed::start("");
    let ask = |cmd: &str| bed.proxy.get(&format!("/api/v1/explain?cmd={cmd}"));
    let said = |cmd: &str| {
        let answer = ask(cmd);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str::<Json>(&answer.body).unwrap()
    };
    let key = bed.key("user:7");
    let before = said(&format!("GET%20{key}"));
    assert_eq!(before["mapping"], json!("user"));
    assert_eq!(
        (&before["columns"], &before["key"], &before["state"]),
        (&json!({"id": "7"}), &json!(key), &json!("miss"))
    );
    assert!(before["slot"].as_u64().is_some_and(|slot| slot < 16384), "{before}");
    assert!(before["sql_of_a_miss"].as_str().is_some_and(|sql| sql.contains("users")), "{before}");
    // Nothing was run.
    assert_eq!((bed.direct(&["EXISTS", "@user:7"]).int(), bed.loads("user")), (0, 0.0));
    assert_eq!(bed.get("user:7"), user(7));
    let after = said(&format!("get+%22{key}%22"));
    assert_eq!(after["state"], json!("hit"));
    assert!(after["ttl_ms"].as_i64().is_some_and(|ms| (1..=120_000).contains(&ms)), "{after}");
    assert_eq!(said("GET%20%22else%20where%22")["mapping"], json!("none: plain Redis"));

    for (cmd, says) in [
        ("", "empty"),
        ("%20", "expected a command"),
        ("NOSUCH%20x", "unknown command"),
        ("GET", "wrong number"),
        ("PING", "names no key"),
        ("GET%20%22x", "quotes"),
        ("GET%20%00", "cmd"),
        ("GET%20%FF", "UTF-8"),
        ("GET%20x&cmd=GET%20y", "twice"),
        ("GET%20x&other=1", "other"),
    ] {
        let answer = ask(cmd);
        assert_eq!(answer.status, 400, "{cmd}: {}", answer.body);
        assert!(answer.head.contains("application/problem+json"), "{cmd}: {}", answer.head);
        assert!(answer.body.contains(says), "{cmd}: {}", answer.body);
    }
    assert_eq!(bed.proxy.post("/api/v1/explain", "").status, 405);
    let document: Json = serde_json::from_str(&bed.proxy.get("/openapi.json").body).unwrap();
    let described = &document["paths"]["/api/v1/explain"]["get"];
    assert_eq!(described["parameters"][0]["name"], json!("cmd"));
    assert!(
        described["responses"]["200"].is_object() && described["responses"]["400"].is_object(),
        "{described}"
    );
}

#[test]
fn explain_is_for_those_who_may_read_keys() {
    let bed = Bed::start(
        "[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\nfacade = \"bearer\"\n[auth]\ntokens = \"sesame\"\n",
    );
    let ask = |headers: &str| bed.proxy.http("GET", "/api/v1/explain?cmd=GET%20x", headers, "").status;
    assert_eq!((ask(""), ask("authorization: Bearer sesame\r\n")), (401, 200));
}
