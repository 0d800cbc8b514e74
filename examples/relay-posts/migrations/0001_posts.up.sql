create extension if not exists pgcrypto;

create table users (
    id bigserial primary key,
    username text not null unique,
    email text not null unique,
    password_hash text not null,
    created_at timestamptz not null default now()
);
create table posts (
    id bigserial primary key,
    user_id bigint not null references users,
    title text not null,
    url text not null,
    upvotes bigint not null default 0,
    created_at timestamptz not null default now()
);
create index posts_newest on posts (created_at desc, id desc);
create index posts_of_user on posts (user_id, created_at desc);
create index posts_top on posts (upvotes desc, id desc);
create table upvotes (
    post_id bigint not null references posts,
    user_id bigint not null references users,
    primary key (post_id, user_id)
);
create view post_list as select p.*, u.username as author from posts p join users u on u.id = p.user_id;

-- One vote of a user per post; the second one, and the end of none, change nothing.
create function upvote(post bigint, voter bigint) returns setof posts language plpgsql as $$
declare
    changed bigint;
begin
    insert into upvotes (post_id, user_id) values (post, voter) on conflict do nothing;
    get diagnostics changed = row_count;
    return query update posts set upvotes = posts.upvotes + changed where posts.id = post returning posts.*;
end $$;
create function unvote(post bigint, voter bigint) returns setof posts language plpgsql as $$
declare
    changed bigint;
begin
    delete from upvotes where upvotes.post_id = post and upvotes.user_id = voter;
    get diagnostics changed = row_count;
    return query update posts set upvotes = posts.upvotes - changed where posts.id = post returning posts.*;
end $$;
