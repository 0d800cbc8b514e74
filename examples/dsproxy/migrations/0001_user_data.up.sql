create table user_data (
    id bigserial primary key,
    user_id text not null,
    value text not null,
    ts bigint not null
);
create index user_data_newest on user_data (user_id, ts desc, id desc);
