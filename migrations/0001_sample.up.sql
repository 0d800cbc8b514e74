-- Tables of the sample mappings in proxy.toml.

create table users (
    id bigint primary key,
    name text not null,
    email text,
    created_at timestamptz not null default now()
);

create table posts (
    id bigint primary key,
    user_id bigint not null,
    content text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

create table user_data (
    id bigserial primary key,
    user_id text not null,
    value text not null,
    ts bigint not null
);

-- The newest row of a user is what a read of user_data:{user_id} asks for.
create index user_data_newest on user_data (user_id, ts desc);
