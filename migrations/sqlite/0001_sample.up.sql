-- Tables of the sample mappings in proxy.toml, for `dsproxy dev --source sqlite`.

create table users (
    id integer primary key,
    name text not null,
    email text,
    created_at datetime not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);

create table posts (
    id integer primary key,
    user_id integer not null,
    content text not null,
    created_at datetime not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    updated_at datetime not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);

create table user_data (
    id integer primary key,
    user_id text not null,
    value text not null,
    ts integer not null
);

-- The newest row of a user is what a read of user_data:{user_id} asks for.
create index user_data_newest on user_data (user_id, ts desc);
