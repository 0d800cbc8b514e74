//! Commands of the `connection` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command(
        "auth",
        -2,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH | flag::ALLOW_BUSY,
        category::CONNECTION,
        Local,
    )
    .docs("1.0.0", "Authenticate to the server")
    .note(
        "The client logs in to the proxy; the proxy has its own credentials \
             upstream.",
    ),
    command("client", -2, 0, 0, Local)
        .docs("2.4.0", "A container for client connection commands")
        .note("About this client's connection to the proxy.")
        .containing(&[
            command(
                "client|caching",
                3,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("6.0.0", "Instruct the server about tracking or not keys in the next request")
            .note("About this client's connection to the proxy."),
            command(
                "client|getname",
                2,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("2.6.9", "Get the current connection name")
            .note("About this client's connection to the proxy."),
            command(
                "client|getredir",
                2,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("6.0.0", "Get tracking notifications redirection client ID if any")
            .note("About this client's connection to the proxy."),
            command("client|help", 2, flag::LOADING | flag::STALE, category::CONNECTION, Single)
                .docs("5.0.0", "Show helpful text about the different subcommands")
                .note("Keyless: any primary can answer."),
            command(
                "client|id",
                2,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("5.0.0", "Returns the client ID for the current connection")
            .note("About this client's connection to the proxy."),
            command(
                "client|info",
                2,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .tips(&["nondeterministic_output"])
            .docs("6.2.0", "Returns information about the current client connection.")
            .note("About this client's connection to the proxy."),
            command(
                "client|kill",
                -3,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("2.4.0", "Kill the connection of a client")
            .note("About this client's connection to the proxy."),
            command(
                "client|list",
                -2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .tips(&["nondeterministic_output"])
            .docs("2.4.0", "Get the list of client connections")
            .note("About this client's connection to the proxy."),
            command(
                "client|no-evict",
                3,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("7.0.0", "Set client eviction mode for the current connection")
            .note("Accepted without effect: no client is evicted."),
            command(
                "client|no-touch",
                3,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("7.2.0", "Controls whether the client changes the LRU/LFU of accessed keys")
            .note("Accepted without effect: clients share their connections to the nodes."),
            command(
                "client|pause",
                -3,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("2.9.50", "Stop processing commands from clients for some time")
            .note("Holds the commands of this process' clients, those by HTTP included; not those of other proxies or of clients that ask nodes directly. At most `limits.client_pause`."),
            command(
                "client|reply",
                3,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("3.2.0", "Instruct the server whether to reply to commands")
            .note("About this client's connection to the proxy."),
            command(
                "client|setinfo",
                4,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("7.2.0", "Sets information specific to the client or connection")
            .note("About this client's connection to the proxy."),
            command(
                "client|setname",
                3,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("2.6.9", "Set the current connection name")
            .note("About this client's connection to the proxy."),
            command(
                "client|tracking",
                -3,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("6.0.0", "Enable or disable server assisted client side caching support")
            .note("`ON` is refused: invalidations of the nodes are not passed on to clients."),
            command(
                "client|trackinginfo",
                2,
                flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs(
                "6.2.0",
                "Return information about server assisted client side caching for the \
             current connection",
            )
            .note("About this client's connection to the proxy."),
            command(
                "client|unblock",
                -3,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs(
                "5.0.0",
                "Unblock a client blocked in a blocking command from a different \
             connection",
            )
            .note("About this client's connection to the proxy."),
            command(
                "client|unpause",
                2,
                flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE,
                category::CONNECTION,
                Local,
            )
            .docs("6.2.0", "Resume processing of clients that were paused")
            .note("Never held itself, where Redis holds it during a pause of all."),
        ]),
    command("echo", 2, flag::LOADING | flag::STALE | flag::FAST, category::CONNECTION, Local)
        .docs("1.0.0", "Echo the given string")
        .note("Answered without asking any node."),
    command(
        "hello",
        -1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH | flag::ALLOW_BUSY,
        category::CONNECTION,
        Local,
    )
    .docs("6.0.0", "Handshake with Redis")
    .note("Negotiates the dialect between the client and the proxy."),
    command("ping", -1, flag::FAST, category::CONNECTION, Local)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .docs("1.0.0", "Ping the server")
        .note("Answered without asking any node."),
    command(
        "quit",
        -1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH | flag::ALLOW_BUSY,
        category::CONNECTION,
        Local,
    )
    .docs("1.0.0", "Close the connection")
    .note(
        "Ends or resets the client's session with the proxy, not an upstream \
             connection.",
    ),
    command(
        "reset",
        1,
        flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::FAST | flag::NO_AUTH | flag::ALLOW_BUSY,
        category::CONNECTION,
        Local,
    )
    .docs("6.2.0", "Reset the connection")
    .note(
        "Ends or resets the client's session with the proxy, not an upstream \
             connection.",
    ),
    command("select", 2, flag::LOADING | flag::STALE | flag::FAST, category::CONNECTION, Local)
        .docs("1.0.0", "Change the selected database for the current connection")
        .note("A cluster has database 0 only."),
];
