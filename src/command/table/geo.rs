//! Commands of the `geo` group: data only.
//!
//! Must not know: how a command is carried out.

use super::row::*;

pub(super) const COMMANDS: &[Command] = &[
    command("geoadd", -5, flag::WRITE | flag::DENYOOM, category::GEO, Single)
        .keys_at(&[at(RW | UPDATE, 1)])
        .docs(
            "3.2.0",
            "Add one or more geospatial items in the geospatial index represented \
             using a sorted set",
        ),
    command("geodist", -4, flag::READONLY, category::GEO, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("3.2.0", "Returns the distance between two members of a geospatial index"),
    command("geohash", -2, flag::READONLY, category::GEO, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("3.2.0", "Returns members of a geospatial index as standard geohash strings"),
    command("geopos", -2, flag::READONLY, category::GEO, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("3.2.0", "Returns longitude and latitude of members of a geospatial index"),
    command("georadius", -6, flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS, category::GEO, Single)
        .keys_at(&[
            at(RO | ACCESS, 1),
            keyword(OW | UPDATE, "STORE", 6),
            keyword(OW | UPDATE, "STOREDIST", 6),
        ])
        .docs(
            "3.2.0",
            "Query a sorted set representing a geospatial index to fetch members \
             matching a given maximum distance from a point",
        )
        .note(
            "With STORE or STOREDIST also writes a second key, which must share the \
             slot.",
        ),
    command("georadius_ro", -6, flag::READONLY, category::GEO, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("3.2.10", "A read-only variant for GEORADIUS"),
    command("georadiusbymember", -5, flag::WRITE | flag::DENYOOM | flag::MOVABLEKEYS, category::GEO, Single)
        .keys_at(&[
            at(RO | ACCESS, 1),
            keyword(OW | UPDATE, "STORE", 5),
            keyword(OW | UPDATE, "STOREDIST", 5),
        ])
        .docs(
            "3.2.0",
            "Query a sorted set representing a geospatial index to fetch members \
             matching a given maximum distance from a member",
        )
        .note(
            "With STORE or STOREDIST also writes a second key, which must share the \
             slot.",
        ),
    command("georadiusbymember_ro", -5, flag::READONLY, category::GEO, Single)
        .keys_at(&[at(RO | ACCESS, 1)])
        .docs("3.2.10", "A read-only variant for GEORADIUSBYMEMBER"),
    command("geosearch", -7, flag::READONLY, category::GEO, Single).keys_at(&[at(RO | ACCESS, 1)]).docs(
        "6.2.0",
        "Query a sorted set representing a geospatial index to fetch members \
             inside an area of a box or a circle.",
    ),
    command("geosearchstore", -8, flag::WRITE | flag::DENYOOM, category::GEO, Single)
        .keys_at(&[at(OW | UPDATE, 1), at(RO | ACCESS, 2)])
        .docs(
            "6.2.0",
            "Query a sorted set representing a geospatial index to fetch members \
             inside an area of a box or a circle, and store the result in another \
             key.",
        ),
];
