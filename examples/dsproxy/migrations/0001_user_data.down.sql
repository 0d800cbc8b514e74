drop table user_data;
