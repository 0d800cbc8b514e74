//! `dsproxy warm` comes in by every door, as whoever it is told to be.

use std::process::Command;

use dsproxy::embedded::free_ports;

use crate::PATIENCE;
use crate::certificates::Certificates;
use crate::support::{Proxy, Resp, SharedStack, Value, eventually};

#[test]
fn warm_comes_over_tls_or_the_unix_socket_as_a_user() {
    let (stack, certificates) = (SharedStack::get(), Certificates::new());
    certificates.make("proxy", &["127.0.0.1"]);
    certificates.make("client", &[]);
    let db = stack.fresh_database();
    db.execute("create table users (id bigint primary key, name text)");
    db.execute("insert into users select n, 'u' || n from generate_series(1, 300) n");
    let port = free_ports(1).unwrap()[0];
    let address = format!("127.0.0.1:{port}");
    let (dir, prefix) = (certificates.dir().display().to_string(), stack.key_prefix());
    let config = format!(
        "[upstream]\nnodes = {:?}\n[database]\nurl = {:?}\n\
         [server]\nlisten = \"127.0.0.1:$PORT\"\nplain = false\nunix_socket = \"{dir}/s\"\n\
         [tls]\nlisten = \"{address}\"\ncertificate = \"{dir}/proxy.pem\"\nkey = \"{dir}/proxy.key\"\nclient_ca = \"{dir}/ca.pem\"\n\
         [acl]\nusers = [\"default off\", \"warmer on >let-me-in %R~{prefix}user:* -@all +@read\", \"other on >let-me-in ~x -@all +get\"]\n\
         [[mapping]]\nname = \"user\"\nkey = \"{prefix}user:{{id}}\"\ntable = \"users\"\nid = \"bigint\"\n",
        stack.redis_nodes(),
        db.url()
    );
    let mut proxy = Proxy::spawn(&config);
    proxy.wait_ready();
    let warm = |password: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dsproxy"));
        command.current_dir(proxy.dir()).env("REDISCLI_AUTH", password).args(["warm", "user"]).args(args);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let holds = |node: &String, id: u32| {
        let key = format!("{prefix}user:{id}");
        matches!(Resp::connect(&**node).cmd(&["EXISTS", &key]), Value::Int(1))
    };
    let cached = |id: u32| stack.redis_nodes().iter().any(|node| holds(node, id));
    let file = |name: &str| certificates.path(name).display().to_string();
    let (ca, cert, key, socket) = (file("ca.pem"), file("client.pem"), file("client.key"), file("s"));
    let tls = ["--tls", "--cacert", &ca, "--cert", &cert, "--key", &key];
    let ways: [&[&str]; 4] =
        [&[], &["--socket", &socket], &tls, &[&tls[..], &["--address", &address]].concat()];
    for (way, id) in ways.into_iter().zip([7, 8, 9, 10]) {
        let only = format!("id = {id}");
        let args = [way, &["--user", "warmer", "--where", &only, "--restart"]].concat();
        let (done, said) = warm("let-me-in", &args);
        assert!(done && said.contains("1 rows"), "{way:?}: {said}");
        eventually(PATIENCE, "the row is cached", || cached(id));
    }
    // What is wrong is told, and nothing is loaded.
    for (way, user, password, wanted) in [
        (&[][..], "warmer", "wrong", "WRONGPASS"),
        (&[], "other", "let-me-in", "NOPERM"),
        (&["--tls", "--cacert", &ca], "warmer", "let-me-in", "no proxy answers at 127.0.0.1:"),
        (&["--tls", "--cert", &cert, "--key", &key], "warmer", "let-me-in", "certificate"),
        (&["--tls", "--cacert", "/nowhere.pem"], "warmer", "let-me-in", "/nowhere.pem"),
        (&["--socket", "/nowhere.sock"], "warmer", "let-me-in", "no proxy answers at /nowhere.sock"),
    ] {
        let args = [way, &["--user", user, "--where", "id = 20", "--restart"]].concat();
        let (done, said) = warm(password, &args);
        assert!(!done && said.contains(wanted) && !said.contains("let-me-in"), "{way:?} {user}: {said}");
    }
    assert!(!cached(20));
}
