//! Commands of the `pubsub` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("psubscribe", -2, flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, PubSub)
        .docs("2.0.0", "Listen for messages published to channels matching the given patterns")
        .note("Upstream subscriptions are shared between clients and fanned out here."),
    command("publish", 3, flag::PUBSUB | flag::LOADING | flag::STALE | flag::FAST, 0, PubSub)
        .docs("2.0.0", "Post a message to a channel")
        .note("Goes to the owner of the channel's slot; answers with the clients of this proxy and those of that node."),
    command("pubsub", -2, 0, 0, PubSub)
        .docs("2.8.0", "A container for Pub/Sub commands")
        .note("Asks every primary; this proxy's clients are counted instead of the proxy.")
        .containing(&[
            command("pubsub|channels", -2, flag::PUBSUB | flag::LOADING | flag::STALE, 0, PubSub)
                .docs("2.8.0", "List active channels")
                .note("Asks every primary; this proxy's clients are counted instead of the proxy."),
            command("pubsub|help", 2, flag::LOADING | flag::STALE, 0, Single)
                .docs("6.2.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command("pubsub|numpat", 2, flag::PUBSUB | flag::LOADING | flag::STALE, 0, PubSub)
                .docs("2.8.0", "Get the count of unique patterns pattern subscriptions")
                .note("Asks every primary; this proxy's clients are counted instead of the proxy."),
            command("pubsub|numsub", -2, flag::PUBSUB | flag::LOADING | flag::STALE, 0, PubSub)
                .docs("2.8.0", "Get the count of subscribers for channels")
                .note("Asks every primary; this proxy's clients are counted instead of the proxy."),
            command("pubsub|shardchannels", -2, flag::PUBSUB | flag::LOADING | flag::STALE, 0, PubSub)
                .docs("7.0.0", "List active shard channels")
                .note("Asks every primary; this proxy's clients are counted instead of the proxy."),
            command("pubsub|shardnumsub", -2, flag::PUBSUB | flag::LOADING | flag::STALE, 0, PubSub)
                .docs("7.0.0", "Get the count of subscribers for shard channels")
                .note("Asks every primary; this proxy's clients are counted instead of the proxy."),
        ]),
    command("punsubscribe", -1, flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, PubSub)
        .docs(
            "2.0.0",
            "Stop listening for messages posted to channels matching the given \
             patterns",
        )
        .note("Upstream subscriptions are shared between clients and fanned out here."),
    command("spublish", 3, flag::PUBSUB | flag::LOADING | flag::STALE | flag::FAST, 0, PubSub)
        .keys_at(&[at(NOT_KEY, 1)])
        .docs("7.0.0", "Post a message to a shard channel")
        .note("Routed by the slot of its channel, which is not a key."),
    command("ssubscribe", -2, flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, PubSub)
        .keys_at(&[span(NOT_KEY, 1, -1, 1)])
        .docs("7.0.0", "Listen for messages published to the given shard channels")
        .note("Upstream subscriptions are shared between clients and fanned out here."),
    command("subscribe", -2, flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, PubSub)
        .docs("2.0.0", "Listen for messages published to the given channels")
        .note("Upstream subscriptions are shared between clients and fanned out here."),
    command("sunsubscribe", -1, flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, PubSub)
        .keys_at(&[span(NOT_KEY, 1, -1, 1)])
        .docs("7.0.0", "Stop listening for messages posted to the given shard channels")
        .note("Upstream subscriptions are shared between clients and fanned out here."),
    command("unsubscribe", -1, flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE, 0, PubSub)
        .docs("2.0.0", "Stop listening for messages posted to the given channels")
        .note("Upstream subscriptions are shared between clients and fanned out here."),
];
