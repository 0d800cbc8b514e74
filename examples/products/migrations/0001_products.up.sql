create table products (
    id integer primary key autoincrement,
    name text not null,
    description text not null default '',
    price real not null check (price >= 0),
    stock integer not null default 0 check (stock >= 0),
    category text not null default '',
    created_at text not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')),
    updated_at text not null default (strftime('%Y-%m-%dT%H:%M:%SZ', 'now'))
);
