create table users (
    id bigserial primary key,
    username text not null,
    email text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create table posts (
    id bigserial primary key,
    user_id bigint not null references users,
    content text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index posts_of_user on posts (user_id, id desc);
