drop table posts;
drop table users;
