//! dsproxy: one Redis port in front of a Redis Cluster and a database.
//!
//! # The house
//!
//! An import may only point down; `tests/floors.rs` keeps it so.
//!
//! ```text
//! app          the only place that wires: build up, drain down         embedded   the servers of `dsproxy dev` and tests
//! http         metrics, health, the write/read facade                  worker     threads, sockets, the event loop
//! core         one thread's data path, without I/O: clients in order, plans, upstream replies, mapped keys
//! modify       commands that compute a value from the one that is there (INCR, APPEND, SET NX ...)
//! cache        read-through: single flight, batched loads, fills       writeback  queues, overlay, batches
//! cluster      topology, what was sent to a node, gateway              source     Postgres, SQLite, migrations
//! journal      records on the disk before anybody is told of them
//! sidecar      the scripts beside mapped keys, as requests and replies (pure)
//! acl          users, rules, the deny list (pure)
//! mapping      keys <-> rows (pure)                                    command    the command table (pure)
//! resp         codec      slot   CRC16 -> slot      clock  versions      config, health, metrics, failpoint   leaf helpers
//! route        HTTP routes as values: paths, parameters, shapes (pure)
//! ```
//!
//! # The path of a GET hit
//!
//! 1. [`worker`] `driver.rs`: a client's socket is readable; its bytes go into the core.
//! 2. [`resp`] `request.rs`: finds the request and its arguments in the bytes.
//! 3. [`core`] `run.rs`: looks the command up ([`command`]), hashes its key ([`slot`]), finds the connection to the
//!    slot's owner (`routes.rs`), appends the request as it came to that connection's log, and remembers whose reply
//!    it will be ([`cluster`] `upstream.rs`).
//! 4. [`worker`] `driver.rs`: the flusher writes each node's log once per turn of the event loop.
//! 5. [`core`] `reply.rs`: finds the replies in a node's bytes ([`resp`] `reply.rs`), appends each to the output of
//!    its client in the client's order (`client.rs`).
//! 6. [`worker`] `driver.rs`: writes the client's output straight to its socket.
//!
//! # The path of a GET miss
//!
//! As above up to 5, where the reply is nil and the key belongs to a [`mapping`]:
//!
//! 1. [`core`] `mapped/read.rs`: the request keeps its place in the client's order; the key goes to the read-through.
//! 2. [`cache`] `loader.rs`: joins the flight of the key, or answers from a write that is still queued, or from a flight
//!    that has just ended (`landed.rs`); one query per mapping loads what waits together. Before it, `board.rs` asks for the
//!    key's lease ([`sidecar`]), or waits for the process that holds it.
//! 3. [`source`] `postgres/load.rs` or `sqlite/load.rs`: the query.
//! 4. [`cache`] `land.rs`: the fill, a script of the [`sidecar`], runs over [`cluster`] `gateway.rs` like any command.
//! 5. [`core`] `mapped/read.rs`: the value takes the place of the nil. (Of another reading command: `mapped/evaluate.rs` says
//!    what Redis would; of a list, `mapped/list.rs` fetches its objects.)
//!
//! # The path of a write-behind SET
//!
//! 1. [`core`] `mapped/write.rs`: the options (`set_options.rs`) and the value are checked, this against its table
//!    ([`mapping`] `document.rs`).
//! 2. [`core`] `mapped/writing.rs`: the command takes its place in its client's order (`parking.rs` holds what follows it).
//! 3. [`writeback`] `log.rs`: the [`journal`]'s thread gives it a version ([`clock`]) and brings it to the disk
//!    (`record.rs`); then it is in its lane (`lane.rs`), whose `overlay.rs` shows it to readers until it is in the database.
//! 4. [`core`] `mapped/writing.rs`: the `apply` script ([`sidecar`]) goes to the slot's owner; its reply acknowledges.
//! 5. [`writeback`] `batcher.rs`: at 50 rows, or 2 s after the first, a batch goes to [`source`]; then the `flushed` scripts
//!    run, then the journal is trimmed.
//!
//! A command that computes its value from the one that is there (`INCR`) goes to [`modify`] instead of 2 to 4: its `base.rs`
//! looks at the value under a stamp, `round.rs` journals what `compute.rs` makes of it, and applies that while the stamp is there.
//! (Inside of `MULTI`: [`core`] `mapped/computing.rs`.)

pub mod acl;
pub mod app;
pub mod cache;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod core;
pub mod embedded;
pub mod failpoint;
pub mod glob;
pub mod health;
pub mod http;
pub mod journal;
pub mod mapping;
pub mod metrics;
pub mod modify;
pub mod resp;
pub mod route;
pub mod sidecar;
pub mod slot;
pub mod source;
pub mod sql;
pub mod tls;
pub mod worker;
pub mod writeback;
