drop table user_data;
drop table posts;
drop table users;
