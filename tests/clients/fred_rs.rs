//! fred: its plain client, its subscriber, and its client for clusters.

use std::time::Duration;

use fred::clients::SubscriberClient;
use fred::prelude::*;
use fred::types::RespVersion;
use fred::types::config::{Server, TlsConnector};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::certificates::Certificates;
use super::{Bed, USER};

const PATIENCE: Duration = Duration::from_secs(20);

fn builder(bed: &Bed, version: RespVersion, cluster: bool) -> Builder {
    let (host, port) = bed.proxy.addr();
    let port = bed.secured.as_ref().map_or(port, |secured| secured.port);
    let server = match cluster {
        true => ServerConfig::new_clustered(vec![(host, port)]),
        false => ServerConfig::Centralized { server: Server::new(host, port) },
    };
    let mut config = Config { server, version, ..Config::default() };
    if let Some(secured) = &bed.secured {
        config.tls = Some(trusting(&secured.certificates).into());
        (config.username, config.password) = (Some(USER.0.to_owned()), Some(USER.1.to_owned()));
    }
    let mut builder = Builder::from_config(config);
    // The default gives up at once.
    builder.set_policy(ReconnectPolicy::new_constant(0, 10));
    builder.with_connection_config(|connection| connection.internal_command_timeout = PATIENCE);
    builder
}

/// TLS with the authority of these certificates.
fn trusting(certificates: &Certificates) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(certificates.path("ca.pem")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth().into()
}

async fn suite(bed: &Bed, version: RespVersion, cluster: bool) {
    let (keys, values) = (&bed.keys, &bed.values);
    let builder = builder(bed, version.clone(), cluster);
    let client = builder.build().unwrap();
    client.init().await.unwrap();
    let name = |name: &str| bed.tagged(&format!("{name}:{version:?}:{cluster}"));

    // Data types; many at once over one connection.
    for (key, value) in keys.iter().zip(values) {
        client.set::<(), _, _>(key, value.as_str(), None, None, false).await.unwrap();
    }
    let gets = keys.iter().map(|key| {
        let (client, key) = (client.clone(), key.clone());
        tokio::spawn(async move { client.get::<String, _>(key).await.unwrap() })
    });
    for (get, value) in gets.collect::<Vec<_>>().into_iter().zip(values) {
        assert_eq!(get.await.unwrap(), *value);
    }
    assert_eq!(client.get::<Option<String>, _>(name("none")).await.unwrap(), None);
    assert_eq!(client.hset::<i64, _, _>(name("h"), [("a", 1), ("b", 2)]).await.unwrap(), 2);
    let hash: std::collections::BTreeMap<String, i64> = client.hgetall(name("h")).await.unwrap();
    assert_eq!(hash.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 1), ("b".to_owned(), 2)]);
    assert_eq!(client.rpush::<i64, _, _>(name("l"), vec!["a", "b"]).await.unwrap(), 2);
    assert_eq!(client.zadd::<i64, _, _>(name("z"), None, None, false, false, (1.5, "m")).await.unwrap(), 1);
    assert_eq!(client.zscore::<f64, _, _>(name("z"), "m").await.unwrap().to_bits(), 1.5f64.to_bits());

    // Pipelines, and an error in the middle of one.
    let pipeline = client.pipeline();
    let _: () = pipeline.incr(name("n")).await.unwrap();
    let _: () = pipeline.incr(name("l")).await.unwrap();
    let _: () = pipeline.incr(name("n")).await.unwrap();
    let said = pipeline.try_all::<i64>().await;
    assert!(said[1].is_err(), "{said:?}");
    assert_eq!((said[0].clone().unwrap(), said[2].clone().unwrap()), (1, 2));

    // Transactions.
    let transaction = client.multi();
    let _: () = transaction.set(name("t"), 1, None, None, false).await.unwrap();
    let _: () = transaction.incr(name("t")).await.unwrap();
    let (said, read): (String, i64) = transaction.exec(true).await.unwrap();
    assert_eq!((said.as_str(), read), ("OK", 2));

    // Scripts, by their digest.
    let script = fred::types::scripts::Script::from_lua("return {KEYS[1], ARGV[1]}");
    script.load(&client).await.unwrap();
    let said: Vec<String> = script.evalsha_with_reload(&client, vec![name("k")], vec!["v"]).await.unwrap();
    assert_eq!(said, [name("k"), "v".to_owned()]);

    // Blocking, over a connection of its own.
    let other = builder.build().unwrap();
    other.init().await.unwrap();
    let (waiter, queue) = (other.clone(), name("q"));
    let waits = tokio::spawn(async move { waiter.blpop::<(String, String), _>(queue, 20.0).await });
    assert_eq!(client.rpush::<i64, _, _>(name("q"), "job").await.unwrap(), 1);
    assert_eq!(waits.await.unwrap().unwrap(), (name("q"), "job".to_owned()));
    // fred makes an error of the nil.
    let nothing = other.blpop::<Option<(String, String)>, _>(name("none"), 0.1).await.unwrap_err();
    assert_eq!(*nothing.kind(), ErrorKind::Timeout);
    other.quit().await.unwrap();

    pubsub(&builder, &client, &name("channel"), &name("pat")).await;
    if !cluster && bed.secured.is_none() {
        scan_and_cut(bed, &client).await;
    }
    client.quit().await.unwrap();
}

async fn pubsub(builder: &Builder, client: &Client, channel: &str, pattern: &str) {
    let subscriber: SubscriberClient = builder.build_subscriber_client().unwrap();
    subscriber.init().await.unwrap();
    let mut messages = subscriber.message_rx();
    subscriber.subscribe(channel).await.unwrap();
    subscriber.psubscribe(format!("{pattern}*")).await.unwrap();
    let message = published(client, &mut messages, channel, "hello").await;
    assert_eq!(
        (&*message.channel, message.value.convert::<String>().unwrap()),
        (channel, "hello".to_owned())
    );
    let message = published(client, &mut messages, &format!("{pattern}tern"), "again").await;
    assert_eq!(message.value.convert::<String>().unwrap(), "again");
    subscriber.unsubscribe_all().await.unwrap();
    subscriber.quit().await.unwrap();
}

/// The message as it comes back. fred calls a subscription done when it is sent, the proxy confirms it once a node has
/// taken it: what is published in between may reach nobody.
async fn published(
    client: &Client,
    messages: &mut tokio::sync::broadcast::Receiver<fred::types::Message>,
    channel: &str,
    text: &str,
) -> fred::types::Message {
    let arrives = async {
        loop {
            let _: i64 = client.publish(channel, text).await.unwrap();
            let next = tokio::time::timeout(Duration::from_millis(100), messages.recv()).await;
            if let Ok(message) = next.map(Result::unwrap)
                && &*message.channel == channel
            {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, arrives).await.unwrap()
}

async fn scan_and_cut(bed: &Bed, client: &Client) {
    let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
    loop {
        let pattern = format!("{}*", bed.stack.key_prefix());
        let (next, some): (String, Vec<String>) =
            client.scan_page(cursor, pattern, Some(50), None).await.unwrap();
        found.extend(some);
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    assert!(bed.keys.iter().all(|key| found.contains(key)));
    assert_eq!(client.mget::<Vec<String>, _>(bed.keys.clone()).await.unwrap(), bed.values);
    let id: i64 = client.client_id().await.unwrap();
    bed.cut(id);
    assert_eq!(client.get::<String, _>(&bed.keys[3]).await.unwrap(), bed.values[3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fred() {
    let bed = Bed::start();
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        tokio::time::timeout(PATIENCE, suite(&bed, version.clone(), false)).await.unwrap();
        tokio::time::timeout(PATIENCE, suite(&bed, version, true)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fred_over_tls_as_a_user() {
    // The client takes the provider of the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let bed = Bed::start_secured();
    for version in [RespVersion::RESP2, RespVersion::RESP3] {
        tokio::time::timeout(PATIENCE, suite(&bed, version.clone(), false)).await.unwrap();
        tokio::time::timeout(PATIENCE, suite(&bed, version, true)).await.unwrap();
    }
    // Nobody comes in by another authority, or with another password.
    let refused = async |tls: TlsConnector, password: &str| {
        let server = ServerConfig::Centralized {
            server: Server::new("127.0.0.1", bed.secured.as_ref().unwrap().port),
        };
        let (username, password) = (Some(USER.0.to_owned()), Some(password.to_owned()));
        let config = Config { server, username, password, tls: Some(tls.into()), ..Config::default() };
        let client = Builder::from_config(config).build().unwrap();
        tokio::time::timeout(PATIENCE, client.init()).await.unwrap().unwrap_err()
    };
    let known = || trusting(&bed.secured.as_ref().unwrap().certificates);
    assert_eq!(*refused(known(), "wrong").await.kind(), ErrorKind::Auth);
    let _ = refused(trusting(&Certificates::new()), USER.1).await;
}
