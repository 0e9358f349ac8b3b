-- What: fills the shop with about 500,000 rows.
-- Runs on: the source, as the owner.
insert into customer (email, name, tags, address, since)
select 'customer' || n || '@example.org',
       (array['Ada', 'Björn', 'Chloé', 'Dmitri', 'Émile', 'Fatima'])[1 + n % 6] || ' ' || n,
       case n % 4 when 0 then '{}' when 1 then array['vip'] else array['newsletter', 'region ' || n % 50] end,
       jsonb_build_object('street', 'Road ' || n % 977, 'city', 'City ' || n % 89, 'zip', lpad((n % 99999)::text, 5, '0')),
       timestamptz '2020-01-01' + n * interval '1 hour'
from generate_series(1, 40000) n;

insert into product (sku, name, price, for_sale, details)
select 'SKU-' || lpad(n::text, 5, '0'),
       'Product ' || n,
       (n % 20000) / 100.0,
       n % 10 <> 0,
       jsonb_build_object('colour', (array['red', 'green', 'blue'])[1 + n % 3], 'weight', n % 700, 'parts', jsonb_build_array(n, n + 1))
from generate_series(1, 4000) n;

insert into picture (sku, bytes)
select sku, decode(repeat(md5(sku), 800), 'hex') from product where for_sale order by sku limit 500;

insert into stock (warehouse, sku, quantity)
select warehouse, sku, 1000 from product, unnest(array['Köln', 'Lyon', 'Oslo']) warehouse;

insert into orders (customer_id, state, placed_at, note)
select customer.id,
       (array['open', 'paid', 'shipped', 'shipped'])[1 + n % 4]::order_state,
       timestamptz '2026-01-01' + n * interval '2 minutes',
       case when n % 10 = 0 then 'please ring' || chr(10) || 'twice' end
from generate_series(1, 100000) n
join (select id, row_number() over () as number from customer) customer on customer.number = 1 + n % 40000;

insert into order_item (order_id, line, sku, quantity, price)
select orders.id, line, product.sku, 1 + (orders.id + line) % 4, product.price
from orders
cross join generate_series(1, 3) line
join product on product.sku = 'SKU-' || lpad((1 + (orders.id * 7 + line * 13) % 4000)::text, 5, '0') and product.for_sale
where line <= 1 + orders.id % 3;

insert into event (happened_at, kind, payload)
select timestamptz '2026-01-01' + n * interval '3 minutes',
       (array['visit', 'search', 'basket', 'payment'])[1 + n % 4],
       case when n % 5 > 0 then jsonb_build_object('page', n % 300, 'ms', n % 1700) end
from generate_series(1, 150000) n;

analyze;
