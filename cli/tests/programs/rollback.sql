PRAGMA journal_mode = DELETE;
CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, value REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
INSERT INTO t SELECT i, 'name ' || (i * 7919 % 20000), i / 3.0 FROM n;
COMMIT;
CREATE INDEX by_name ON t(name);
SELECT count(*), sum(id), max(name) FROM t;
BEGIN; UPDATE t SET value = value + 1 WHERE id % 3 = 0; DELETE FROM t WHERE id % 5 = 0; ROLLBACK;
SELECT count(*), round(sum(value), 3) FROM t;
INSERT INTO t VALUES (20001, 'a', 1); INSERT INTO t VALUES (20002, 'b', 2); INSERT INTO t VALUES (20003, 'c', 3);
DELETE FROM t WHERE id % 7 = 0;
VACUUM;
PRAGMA integrity_check;
SELECT name, count(*) FROM t GROUP BY substr(name, 1, 7) ORDER BY 2 DESC, 1 LIMIT 5;
