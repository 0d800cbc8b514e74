//! TLS to a real Postgres with `ssl = on`.

use std::path::Path;

use dsproxy::source::migrate::{Migrations, Migrator};
use dsproxy::source::{Postgres, PostgresOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use crate::pg::{Pg, until};

type Ca = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// PEM texts of a certificate and its key.
fn signed(ca: &Ca, host: Option<&str>, name: &str) -> (String, String) {
    let mut params = CertificateParams::new(host.map(str::to_owned).into_iter().collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap().pem(), key.serialize_pem())
}

/// Writes a file into the server's directory, as the server's user, readable by it alone.
async fn server_file(pg: &Pg, name: &str, text: &str) {
    let sql = format!(
        "copy (select unnest(string_to_array('{text}', e'\\n'))) to program 'umask 077; cat > {name}'"
    );
    pg.execute(&sql).await;
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    std::fs::write(dir.join(name), text).unwrap();
    dir.join(name).display().to_string()
}

async fn connect(url: &str) -> Result<Postgres, String> {
    Postgres::connect(url, &PostgresOptions::default()).await.map_err(|error| {
        let text = format!("{error} {error:?}");
        let secret = url.split_once("://").unwrap().1.split_once('@').unwrap().0.split_once(':');
        assert!(secret.is_none_or(|(_, password)| !text.contains(password)), "{text}");
        text
    })
}

#[tokio::test]
async fn every_sslmode_does_what_libpq_says() {
    let pg = Pg::private();
    let url = |tls: &str| format!("{}?{tls}", pg.url());
    // Without TLS at the server.
    connect(&url("sslmode=disable")).await.unwrap();
    connect(&url("sslmode=prefer")).await.unwrap();
    assert!(connect(&url("sslmode=require")).await.unwrap_err().contains("TLS"));

    let (ca, other) = (authority(), authority());
    let (cert, key) = signed(&ca, Some("127.0.0.1"), "server");
    server_file(&pg, "server.crt", &cert).await;
    server_file(&pg, "server.key", &key).await;
    server_file(&pg, "clients.crt", &ca.pem()).await;
    for sql in [
        "alter system set ssl = on",
        "alter system set ssl_ca_file = 'clients.crt'",
        "select pg_reload_conf()",
    ] {
        pg.client().await.simple_query(sql).await.unwrap();
    }
    until("TLS is on", async || connect(&url("sslmode=require")).await.is_ok()).await;
    // Sample data go the same way: a server that asks for TLS gets them.
    pg.client().await.simple_query("create table lines (line text)").await.unwrap();
    let lines = || std::iter::once(b"a\nb\n".to_vec());
    let copy = "copy lines from stdin";
    assert_eq!(dsproxy::source::copy_in(&url("sslmode=require"), copy, lines()).await, Ok(2));
    assert!(dsproxy::source::copy_in(&url("sslmode=verify-full"), copy, lines()).await.is_err());

    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "ca.pem", &ca.pem());
    let wrong = write(dir.path(), "other.pem", &other.pem());
    let uses_tls = async |tls: &str| {
        let postgres = connect(&url(tls)).await?;
        let set = dsproxy::mapping::MappingSet::new(vec![]).unwrap();
        let source = dsproxy::source::Source::open(postgres, set).await.unwrap();
        let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
        let statement = dsproxy::source::Statement::parse(sql).unwrap();
        let rows = source.statement(&statement, &[]).await.unwrap();
        Ok::<_, String>(rows.rows[0] == r#"{"ssl":true}"#)
    };
    assert_eq!(uses_tls("sslmode=disable").await, Ok(false));
    for tls in ["sslmode=prefer", "sslmode=require", "application_name=x"] {
        assert_eq!(uses_tls(tls).await, Ok(true), "{tls}");
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        assert_eq!(uses_tls(&format!("sslmode={mode}&sslrootcert={good}")).await, Ok(true), "{mode}");
        let error = uses_tls(&format!("sslmode={mode}&sslrootcert={wrong}")).await.unwrap_err();
        assert!(error.contains("certificate"), "{error}");
    }
    // Another authority than any of the system's.
    assert!(uses_tls("sslmode=verify-full").await.is_err());
    let error = uses_tls("sslmode=verify-full&sslrootcert=/nowhere.pem").await.unwrap_err();
    assert!(error.contains("cannot read /nowhere.pem"), "{error}");

    // The certificate is for another host: the name counts in verify-full only.
    let (cert, key) = signed(&ca, Some("db.example"), "server");
    server_file(&pg, "server.crt", &cert).await;
    server_file(&pg, "server.key", &key).await;
    pg.client().await.simple_query("select pg_reload_conf()").await.unwrap();
    let full = format!("sslmode=verify-full&sslrootcert={good}");
    until("the other certificate is there", async || uses_tls(&full).await.is_err()).await;
    assert_eq!(uses_tls(&format!("sslmode=verify-ca&sslrootcert={good}")).await, Ok(true));

    // A client certificate, asked for by pg_hba.conf; migrations bring it too.
    let hba = "hostssl all carla 127.0.0.1/32 cert\nhost all all 127.0.0.1/32 trust\nlocal all all trust\nhost all all ::1/128 trust";
    server_file(&pg, "pg_hba.conf", hba).await;
    for sql in ["create role carla login superuser", "select pg_reload_conf()"] {
        pg.client().await.simple_query(sql).await.unwrap();
    }
    let (cert, key) = signed(&ca, None, "carla");
    let (cert, key) = (write(dir.path(), "carla.pem", &cert), write(dir.path(), "carla.key", &key));
    let carla = format!("postgres://carla@{}", pg.url().rsplit_once('@').unwrap().1);
    until("a certificate is asked for", async || connect(&format!("{carla}?sslmode=require")).await.is_err())
        .await;
    let with = format!("{carla}?sslmode=verify-ca&sslrootcert={good}&sslcert={cert}&sslkey={key}");
    connect(&with).await.unwrap();
    Migrator::open(&with, Migrations::read(dir.path()).unwrap()).await.unwrap();
}
