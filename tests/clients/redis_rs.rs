//! redis-rs: blocking, multiplexed, and its client for clusters.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, Commands as _, ConnectionLike as _};

use super::{Bed, Certificates, USER};

const DIALECTS: [&str; 2] = ["", "?protocol=resp3"];

#[test]
fn redis_rs_blocking() {
    let bed = Bed::start();
    let (keys, values) = (&bed.keys, &bed.values);
    for protocol in DIALECTS {
        let source = redis::Client::open(bed.url(protocol)).unwrap();
        let mut client = source.get_connection().unwrap();
        assert!(client.check_connection());
        types(&bed, &mut client);

        let mut pipeline = redis::pipe();
        keys.iter().zip(values).for_each(|(key, value)| {
            pipeline.set(key, value).ignore();
        });
        keys.iter().for_each(|key| {
            pipeline.get(key);
        });
        assert_eq!(pipeline.query::<Vec<String>>(&mut client).unwrap(), *values);

        let mut asked = keys.clone();
        asked.extend([keys[3].clone(), bed.tagged("none")]);
        let mut wanted: Vec<Option<String>> = values.iter().cloned().map(Some).collect();
        wanted.extend([Some(values[3].clone()), None]);
        assert_eq!(client.mget::<_, Vec<Option<String>>>(&asked).unwrap(), wanted);

        transactions(&bed, &source, &mut client);
        pubsub(&bed, &source, &mut client);
        let script = redis::Script::new("return {KEYS[1], ARGV[1]}");
        let said: (String, String) = script.key(&keys[0]).arg("v").invoke(&mut client).unwrap();
        assert_eq!(said, (keys[0].clone(), "v".to_owned()));
        let found: Vec<String> =
            client.scan_match(format!("{}*", bed.stack.key_prefix())).unwrap().map(Result::unwrap).collect();
        assert!(keys.iter().all(|key| found.contains(key)));

        let id: i64 = redis::cmd("CLIENT").arg("ID").query(&mut client).unwrap();
        bed.cut(id);
        // This client makes no new connection by itself, but says that it must.
        assert!(!client.check_connection());
        let mut client = source.get_connection().unwrap();
        assert_eq!(client.del::<_, usize>(keys).unwrap(), keys.len());
        assert_eq!(
            client.del::<_, usize>(&[bed.tagged("h"), bed.tagged("l"), bed.tagged("counter")]).unwrap(),
            3
        );
    }
}

fn types(bed: &Bed, client: &mut redis::Connection) {
    let (h, l, z) = (bed.tagged("h"), bed.tagged("l"), bed.tagged("z"));
    client.set::<_, _, ()>(&bed.keys[0], &bed.values[0]).unwrap();
    assert_eq!(client.get::<_, String>(&bed.keys[0]).unwrap(), bed.values[0]);
    assert_eq!(client.get::<_, Option<String>>(bed.tagged("none")).unwrap(), None);
    client.hset_multiple::<_, _, _, ()>(&h, &[("a", 1), ("b", 2)]).unwrap();
    let hash: std::collections::BTreeMap<String, i64> = client.hgetall(&h).unwrap();
    assert_eq!(hash.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(client.rpush::<_, _, usize>(&l, &["a", "b"]).unwrap(), 2);
    assert_eq!(client.zadd::<_, _, _, usize>(&z, "m", 1.5).unwrap(), 1);
    assert_eq!(client.zscore::<_, _, f64>(&z, "m").unwrap().to_bits(), 1.5f64.to_bits());
    assert_eq!(client.del::<_, usize>(&z).unwrap(), 1);
    let wrong = client.incr::<_, _, i64>(&l, 1).unwrap_err();
    assert_eq!(wrong.code(), Some("WRONGTYPE"));
    assert_eq!(client.blpop::<_, (String, String)>(&l, 20.0).unwrap(), (l.clone(), "a".to_owned()));
    assert_eq!(client.blpop::<_, Option<(String, String)>>(bed.tagged("none"), 0.1).unwrap(), None);
}

fn transactions(bed: &Bed, source: &redis::Client, client: &mut redis::Connection) {
    let counter = bed.tagged("counter");
    let (said, read): (String, i64) =
        redis::pipe().atomic().set(&counter, 1).incr(&counter, 1).query(client).unwrap();
    assert_eq!((said.as_str(), read), ("OK", 2));
    // The first try loses its watch to another client.
    let (mut other, mut tries) = (source.get_connection().unwrap(), 0);
    let done: (i64,) = redis::transaction(client, &[&counter], |client, pipe| {
        tries += 1;
        let read: i64 = client.get(&counter)?;
        if tries == 1 {
            other.set::<_, _, ()>(&counter, 10)?;
        }
        pipe.incr(&counter, read).query(client)
    })
    .unwrap();
    assert_eq!((done.0, tries), (20, 2));
}

fn pubsub(bed: &Bed, source: &redis::Client, client: &mut redis::Connection) {
    let channel = bed.tagged("channel");
    let mut subscriber = source.get_connection().unwrap();
    let mut hears = subscriber.as_pubsub();
    hears.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    hears.subscribe(&channel).unwrap();
    hears.psubscribe(bed.tagged("pat*")).unwrap();
    assert_eq!(client.publish::<_, _, usize>(&channel, "hello").unwrap(), 1);
    assert_eq!(hears.get_message().unwrap().get_payload::<String>().unwrap(), "hello");
    assert_eq!(client.publish::<_, _, usize>(bed.tagged("pattern"), "again").unwrap(), 1);
    let message = hears.get_message().unwrap();
    assert!(message.from_pattern());
    assert_eq!(message.get_payload::<String>().unwrap(), "again");
    drop(hears);
    // Whatever it was subscribed to, it is an ordinary connection again.
    assert_eq!(subscriber.get::<_, String>(&bed.keys[3]).unwrap(), bed.values[3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_rs_multiplexed() {
    let bed = Bed::start();
    let (keys, values) = (&bed.keys, &bed.values);
    for protocol in DIALECTS {
        let client = redis::Client::open(bed.url(protocol)).unwrap();
        let client = client.get_multiplexed_async_connection().await.unwrap();
        let sets = keys.iter().zip(values).map(|(key, value)| {
            let (mut client, key, value) = (client.clone(), key.clone(), value.clone());
            tokio::spawn(async move { client.set::<_, _, ()>(key, value).await.unwrap() })
        });
        for set in sets.collect::<Vec<_>>() {
            set.await.unwrap();
        }
        // Many tasks over one connection: each gets its own answer.
        let gets = (0..300).map(|n: usize| {
            let (mut client, key, value) = (client.clone(), keys[n % 30].clone(), values[n % 30].clone());
            tokio::spawn(async move { assert_eq!(client.get::<_, String>(key).await.unwrap(), value) })
        });
        for get in gets.collect::<Vec<_>>() {
            get.await.unwrap();
        }
        let mut client: MultiplexedConnection = client;
        let mut pipeline = redis::pipe();
        keys.iter().for_each(|key| {
            pipeline.get(key);
        });
        assert_eq!(pipeline.query_async::<Vec<String>>(&mut client).await.unwrap(), *values);
        assert_eq!(client.mget::<_, Vec<String>>(keys).await.unwrap(), *values);
        assert_eq!(client.del::<_, usize>(keys).await.unwrap(), keys.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_rs_reconnects() {
    let bed = Bed::start();
    for protocol in DIALECTS {
        let source = redis::Client::open(bed.url(protocol)).unwrap();
        let mut client = source.get_connection_manager().await.unwrap();
        let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut client).await.unwrap();
        bed.cut(id);
        // The command that finds the connection lost may fail; the manager has a new one for the next.
        let key = bed.tagged("manager");
        let mut last = Ok(());
        for _ in 0..100 {
            last = client.set::<_, _, ()>(&key, "v").await;
            if last.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        last.unwrap();
        assert_eq!(client.get::<_, String>(&key).await.unwrap(), "v");
    }
}

#[test]
fn redis_rs_cluster() {
    let bed = Bed::start();
    let (keys, values) = (&bed.keys, &bed.values);
    for protocol in DIALECTS {
        let source = redis::cluster::ClusterClient::new([bed.url(protocol)]).unwrap();
        let mut client = source.get_connection().unwrap();
        assert!(client.check_connection());
        let mut pipeline = redis::cluster::cluster_pipe();
        keys.iter().zip(values).for_each(|(key, value)| {
            pipeline.set(key, value).ignore();
        });
        keys.iter().for_each(|key| {
            pipeline.get(key);
        });
        assert_eq!(pipeline.query::<Vec<String>>(&mut client).unwrap(), *values);
        assert_eq!(client.mget::<_, Vec<String>>(keys).unwrap(), *values);
        let l = bed.tagged("l");
        assert_eq!(client.rpush::<_, _, usize>(&l, "job").unwrap(), 1);
        assert_eq!(client.blpop::<_, (String, String)>(&l, 20.0).unwrap(), (l, "job".to_owned()));
        let said: String =
            redis::Script::new("return ARGV[1]").key(&keys[0]).arg("v").invoke(&mut client).unwrap();
        assert_eq!(said, "v");
        assert_eq!(client.del::<_, usize>(keys).unwrap(), keys.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_rs_cluster_async() {
    let bed = Bed::start();
    for protocol in DIALECTS {
        let source = redis::cluster::ClusterClient::new([bed.url(protocol)]).unwrap();
        let client = source.get_async_connection().await.unwrap();
        let all = bed.keys.iter().zip(&bed.values).map(|(key, value)| {
            let (mut client, key, value) = (client.clone(), key.clone(), value.clone());
            tokio::spawn(async move {
                client.set::<_, _, ()>(&key, &value).await.unwrap();
                assert_eq!(client.get::<_, String>(&key).await.unwrap(), value);
            })
        });
        for one in all.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        let (mut client, counter) = (client, bed.tagged("counter"));
        let (_, read): (String, i64) =
            redis::pipe().atomic().set(&counter, 1).incr(&counter, 1).query_async(&mut client).await.unwrap();
        assert_eq!(read, 2);
        assert_eq!(client.del::<_, usize>(&bed.keys).await.unwrap(), bed.keys.len());
    }
}

/// TLS with a user, in the blocking client, the asynchronous one and the one for clusters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_rs_over_tls_as_a_user() {
    // The clients take the provider of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bed = Bed::start_secured();
    let secured = bed.secured.as_ref().unwrap();
    let root = std::fs::read(secured.certificates.path("ca.pem")).unwrap();
    let certificates = || redis::TlsCertificates { client_tls: None, root_cert: Some(root.clone()) };
    for protocol in DIALECTS {
        let url = |credentials: &str| format!("rediss://{credentials}127.0.0.1:{}/{protocol}", secured.port);
        let user = format!("{}:{}@", USER.0, USER.1);
        let source = redis::Client::build_with_tls(url(&user), certificates()).unwrap();
        let mut client = source.get_multiplexed_async_connection().await.unwrap();
        let who: String = redis::cmd("ACL").arg("WHOAMI").query_async(&mut client).await.unwrap();
        assert_eq!(who, USER.0);
        for (key, value) in bed.keys.iter().zip(&bed.values) {
            client.set::<_, _, ()>(key, value).await.unwrap();
        }
        assert_eq!(client.mget::<_, Vec<String>>(&bed.keys).await.unwrap(), bed.values);
        let counter = bed.tagged("counter");
        let (_, read): (String, i64) =
            redis::pipe().atomic().set(&counter, 1).incr(&counter, 1).query_async(&mut client).await.unwrap();
        assert_eq!(read, 2);
        let (keys, values) = (bed.keys.clone(), bed.values.clone());
        let cluster =
            redis::cluster::ClusterClient::builder([url(&user)]).certs(certificates()).build().unwrap();
        let blocking = source.clone();
        tokio::task::spawn_blocking(move || {
            let mut client = blocking.get_connection().unwrap();
            assert_eq!(client.get::<_, String>(&keys[0]).unwrap(), values[0]);
            let mut client = cluster.get_connection().unwrap();
            assert_eq!(client.mget::<_, Vec<String>>(&keys).unwrap(), values);
            assert_eq!(client.del::<_, usize>(&keys).unwrap(), keys.len());
        })
        .await
        .unwrap();
        // Nobody comes in as somebody else, or by another authority.
        let stranger = redis::Client::build_with_tls(url("app:wrong@"), certificates()).unwrap();
        let refused = stranger.get_multiplexed_async_connection().await.map(drop).unwrap_err();
        assert!(
            refused.to_string().contains("WRONGPASS") || refused.to_string().contains("uthentication"),
            "{refused}"
        );
        let other = Certificates::new();
        let other = std::fs::read(other.path("ca.pem")).unwrap();
        let other = redis::TlsCertificates { client_tls: None, root_cert: Some(other) };
        let stranger = redis::Client::build_with_tls(url(&user), other).unwrap();
        assert!(stranger.get_multiplexed_async_connection().await.is_err());
    }
}
