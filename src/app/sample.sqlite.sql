-- A little data to look at, only where there is none.
insert into users (id, name, email)
with recursive s(n) as (select 1 union all select n + 1 from s where n < 100)
select n, json_extract('["Grace", "Edsger", "Barbara", "Donald", "Leslie"]', '$[' || (n % 5) || ']'), 'user' || n || '@example.com'
from s where not exists (select 1 from users);

insert into posts (id, user_id, content)
with recursive s(n) as (select 1 union all select n + 1 from s where n < 1000)
select n, 1 + n % 100, 'Post ' || n || ' of user ' || (1 + n % 100)
from s where not exists (select 1 from posts);
