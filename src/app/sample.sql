-- A little data to look at, only where there is none.
insert into users (id, name, email)
select n, (array['Grace', 'Edsger', 'Barbara', 'Donald', 'Leslie'])[1 + n % 5], 'user' || n || '@example.com'
from generate_series(1, 100) as n
where not exists (select from users);

insert into posts (id, user_id, content)
select n, 1 + n % 100, 'Post ' || n || ' of user ' || (1 + n % 100)
from generate_series(1, 1000) as n
where not exists (select from posts);
