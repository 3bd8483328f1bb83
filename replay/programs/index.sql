-- Fills a table, indexes it, joins and groups it. Pages of the cache are few, as in a small machine.
PRAGMA cache_size = 100;
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price INTEGER, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2500)
INSERT INTO item SELECT i, 'item-' || ((i * 7919) % 2503), (i * 31337) % 509, printf('%040d', i) FROM n;
CREATE INDEX item_name ON item(name);
CREATE INDEX item_price ON item(price);
SELECT count(*) FROM item a JOIN item b ON b.price = a.id WHERE a.id < 600;
SELECT price, count(*), max(note) FROM item GROUP BY price ORDER BY 2 DESC LIMIT 5;
UPDATE item SET price = price + 1 WHERE id % 7 = 0;
DELETE FROM item WHERE name LIKE 'item-1%';
SELECT count(*), sum(price) FROM item;
