//! Tokens of routes: who signed them, with what, for how long. Keys here protect nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value as Json, json};

use crate::support::{Http, Proxy, SharedStack};

const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
    MIIEuwIBADANBgkqhkiG9w0BAQEFAASCBKUwggShAgEAAoIBAQDa1jfK0K4pT0m2\n\
    epsma8PQB09Aa/8rEv/Fmt2r05qn2AtlrorpX8lz1gxxoAscf0J/Z1PDnkXD9yTn\n\
    zCtBGVQ0x44ZV9bmf7zGS8jGbUZ98/2kCJmGd1vvSnv4Axmg7m2U4eIn0LVUj4wd\n\
    kTm/4ljsJiKBK5MxgTGrnVl5H2v3+6CQpOeMwJNozJdhTtFnZ87dL7IZS0fpJUEG\n\
    7OkAmuqDO0LG6Viejgvg+8k7VA5EnSFOQotA2rJEsJV6ejDjBWmOfZaX3rpwwszD\n\
    gkt/5jQdnE/zKEMPCnFJwImChhwXW9Yl5g4GlZoJ4LGK/UYrpoA2FY+4UMjbez7U\n\
    guiikpMfAgMBAAECgf9Cvjh/faSMgc1Vo7j72Xq8ydQ5w11PHCjmKjXqYviL7bG0\n\
    c/2IPmPiNXqNfa/JGx4s7jn0QaH87vOR26Ie867U6K7p5nMuv/qW4eUsVPEW2BRY\n\
    s+T0ATndxIZyV4hXAAUYi7UdrALNKWJe3pub4dGwLsBuVHdFaHVNjri1d6wgFR93\n\
    JDxfYXWFbrZ5Covi+xf6FwEXEYK9gGk+Q8nptKmGOAPmP51m0sh2p838cWtg4JEB\n\
    P7EVvsnQTEDRcOZa+HJ+1OnbdaBKpvg6jz6agHGLr3+iRVEndK89/oCFWsRP1nSM\n\
    VrEYkT4Ym4ihz+yZqlqaCuSIdCifqix5n6xwV7kCgYEA8q4Np1MIeyTRecW5wCRm\n\
    17yqe01AdD2UkDBMxarGgYpXSgK+Xlig6KVCRC/Q5hjrn+aQ6/aVpZTgWHiXFR+B\n\
    0HWeQgVEze5qBJ9q0+esAIj4mqnS0CFneSbMAPerNC89tr64mqogChrVKKw75Xqt\n\
    tB7vefin3GH+woNNpwC5+GsCgYEA5tkj2nuX7tj8OiynWb3BvTS7sC8Dg+BQ+jZw\n\
    sbDvOP1L0pS81cUY7IsdB3RIgSKBY6gbNIoLHFpk2h4Ka5mlqLMza86RvpzE7y0d\n\
    Is6pRELWSqf+qwFaoQr1Jqoyc6DzRI/Jo2l/ioQ42HgNw8OrNye3WCAvszFOeUeq\n\
    4JysDR0CgYAkvKaCevZgte0kEwOQi7Ip3HyuV753Gk9gGH+2uKh+ObQHFy08WQxa\n\
    y5Ghgt+LxZ/9v8iWf+idfVEM84xjfTaImRWRBv0oc3wHIR7p3ztRhWqk9ypbqYLh\n\
    ezcMunFnX/Nms658c16QSQmVs6UJky2yg7Ba9YJrwUXwqjHaIykD6wKBgFPFHDOe\n\
    ggXUi8L4jUoNiA6G4k0O4nGqpvgFZWO11zmRAUDLZLMWMPM1kDUyR1VFFjr5t9Wa\n\
    +mkxjENyf0mImgrb7J8EePL4pKY+csI8yEPTFTxGNi4L8b1a4pdDT8eR8nVA0GUS\n\
    VYwIazBycFxH1wvOx8Oc+nJGRDnSffnAINcpAoGBAJHGGJFS9FRhRj2xqMn3fSHK\n\
    /7lj8KYXrxJqcBq4nAvL8e5VxecBOaCNIbfzirpOJ9tvOQUqdq3Ar5T0LWGSJYtN\n\
    Z49vipsLsUjv2d5u00QnlT0eA/opS0xfzgZDE7tIQ/zVrhHD+Irgsu3MlsutO+HS\n\
    W0ySx6OvlKbEvLvf0Wkc\n\
    -----END PRIVATE KEY-----\n";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
    MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2tY3ytCuKU9JtnqbJmvD\n\
    0AdPQGv/KxL/xZrdq9Oap9gLZa6K6V/Jc9YMcaALHH9Cf2dTw55Fw/ck58wrQRlU\n\
    NMeOGVfW5n+8xkvIxm1GffP9pAiZhndb70p7+AMZoO5tlOHiJ9C1VI+MHZE5v+JY\n\
    7CYigSuTMYExq51ZeR9r9/ugkKTnjMCTaMyXYU7RZ2fO3S+yGUtH6SVBBuzpAJrq\n\
    gztCxulYno4L4PvJO1QORJ0hTkKLQNqyRLCVenow4wVpjn2Wl966cMLMw4JLf+Y0\n\
    HZxP8yhDDwpxScCJgoYcF1vWJeYOBpWaCeCxiv1GK6aANhWPuFDI23s+1ILoopKT\n\
    HwIDAQAB\n\
    -----END PUBLIC KEY-----\n";
const SECRET: &str = "0123456789abcdef0123456789abcdef";

const ROUTE: &str = "[[route]]\nname = \"me\"\npath = \"/me\"\nauth = \"bearer\"\nsql = \"select $sub as sub\"\n\
    params = { sub = { from = \"claim\" } }\n";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Json {
    json!({"sub": "7", "exp": now() + 60})
}

fn signed(algorithm: Algorithm, claims: &Json, key: &EncodingKey) -> String {
    encode(&Header::new(algorithm), claims, key).unwrap()
}

fn ask(proxy: &Proxy, token: &str) -> Http {
    proxy.http("GET", "/me", &format!("Authorization: Bearer {token}\r\n"), "")
}

#[track_caller]
fn refused(proxy: &Proxy, token: &str, reason: &str) {
    let answer = ask(proxy, token);
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"), "{answer:?}");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(reason) && !detail.contains(token), "{detail}");
}

#[test]
fn a_public_key_verifies_what_its_private_key_has_signed_and_nothing_else() {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    let dir = tempfile::tempdir().unwrap();
    let pem = dir.path().join("jwt.pub.pem");
    std::fs::write(&pem, PUBLIC).unwrap();
    let config =
        format!("[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\n[auth]\njwt_public_key = {pem:?}\n{ROUTE}");
    let proxy = Proxy::for_nodes(stack.redis_nodes(), Some(db.url()), &config);
    let rsa = EncodingKey::from_rsa_pem(PRIVATE.as_bytes()).unwrap();
    let good = signed(Algorithm::RS256, &claims(), &rsa);
    assert_eq!((ask(&proxy, &good).status, ask(&proxy, &good).json()), (200, json!({"sub": "7"})));

    // The key that everybody knows, taken for a secret.
    for known in [PUBLIC, PUBLIC.trim_end(), &PUBLIC.replace('\n', "\r\n")] {
        let forged = signed(Algorithm::HS256, &claims(), &EncodingKey::from_secret(known.as_bytes()));
        refused(&proxy, &forged, "not accepted");
    }
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    // {"alg":"none"}, {"alg":"HS256"}, {"alg":"RS256"} with nothing behind it.
    for forged in [
        format!("eyJhbGciOiJub25lIn0.{body}."),
        format!("eyJhbGciOiJub25lIn0.{body}.{signature}"),
        format!("eyJhbGciOiJIUzI1NiJ9.{body}.{signature}"),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        format!("{head}.eyJzdWIiOiI4IiwiZXhwIjo5OTk5OTk5OTk5fQ.{signature}"),
        "..".to_owned(),
        "a.b.c".to_owned(),
        "x".repeat(20_000),
    ] {
        refused(&proxy, &forged, "not accepted");
    }
    refused(&proxy, &signed(Algorithm::RS512, &claims(), &rsa), "not accepted");
    let with = |name: &str, value: Json| {
        let mut claims = claims();
        claims[name] = value;
        signed(Algorithm::RS256, &claims, &rsa)
    };
    refused(&proxy, &with("exp", json!(now() - 60)), "expired");
    refused(&proxy, &with("exp", json!("tomorrow")), "");
    refused(&proxy, &with("nbf", json!(now() + 60)), "not valid yet");
    refused(&proxy, &signed(Algorithm::RS256, &json!({"sub": "7"}), &rsa), "no `exp`");
    // A claim that the route needs.
    refused(&proxy, &signed(Algorithm::RS256, &json!({"exp": now() + 60}), &rsa), "`sub` is missing");
    assert_eq!(proxy.get("/me").status, 401);
}

#[test]
fn a_secret_does_not_make_a_public_key_one() {
    let stack = SharedStack::get();
    let db = stack.fresh_database();
    let config =
        format!("[http]\nlisten = \"127.0.0.1:$HTTP_PORT\"\n[auth]\njwt_secret = \"{SECRET}\"\n{ROUTE}");
    let proxy = Proxy::for_nodes(stack.redis_nodes(), Some(db.url()), &config);
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    assert_eq!(ask(&proxy, &signed(Algorithm::HS256, &claims(), &secret)).status, 200);
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        refused(&proxy, &signed(algorithm, &claims(), &secret), "not accepted");
    }
    let rsa = EncodingKey::from_rsa_pem(PRIVATE.as_bytes()).unwrap();
    refused(&proxy, &signed(Algorithm::RS256, &claims(), &rsa), "not accepted");
}
