-- What: fills the tables with {{rows}} rows: half narrow ones, the rest wide. Runs on the source.
insert into account
select n, 1 + n % 100, 0, 'filler of account ' || n from generate_series(1, {{rows}} / 2) n;

insert into customer
select md5(n::text)::uuid, 'customer' || n || '@example.org', 'Customer ' || n, (array['free', 'basic', 'pro'])[1 + n % 3]::plan,
       array['tag ' || n % 100, 'region ' || n % 17], jsonb_build_object('street', 'Road ' || n, 'city', 'City ' || n % 1000),
       n % 100000 / 100.0, timestamptz '2020-01-01' + n * interval '1 minute', decode(md5(n::text) || md5((n + 1)::text), 'hex')
from generate_series(1, {{rows}} / 8) n;

insert into document
select n, md5((1 + n % ({{rows}} / 8))::text)::uuid, 'Document ' || n, repeat(md5(n::text) || ' ', 1 + n % 12), n % 7,
       timestamptz '2021-01-01' + n * interval '1 minute'
from generate_series(1, {{rows}} / 8) n;

insert into measurement
select 'device ' || n % 500, timestamptz '2022-01-01' + n * interval '10 seconds', 20 + sin(n), 50 + cos(n)::real, n % 5,
       case when n % 10 = 0 then 'checked' end
from generate_series(1, {{rows}} / 4) n;
