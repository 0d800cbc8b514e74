create table if not exists users (
    user_id varchar(20) primary key,
    deeplink text not null default '',
    promo_message text not null default ''
);
insert into users values ('someid', 'app://promo/someid', 'Welcome back') on conflict do nothing;
