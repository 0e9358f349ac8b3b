-- What: keys and indexes of the benchmarks' tables, one statement each.
alter table account add primary key (id);
alter table customer add primary key (id);
create unique index customer_email on customer (lower(email));
create index customer_tags on customer using gin (tags);
create index customer_created on customer (created_at);
create index customer_pro on customer (created_at) where plan = 'pro';
alter table document add primary key (id);
create index document_customer on document (customer_id);
create index document_changed on document (changed_at);
alter table measurement add primary key (device, at);
create index measurement_at on measurement (at);
