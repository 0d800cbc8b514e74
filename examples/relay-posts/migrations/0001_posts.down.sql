drop function upvote;
drop function unvote;
drop view post_list;
drop table upvotes;
drop table posts;
drop table users;
