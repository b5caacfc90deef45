# A database with a write-ahead log, several processes at once, and one with a rollback journal.
cd /tmp
sqlite3 w 'PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT);'
for p in 1 2 3; do
    for i in $(seq 15); do echo "INSERT INTO t(b) VALUES('$p-$i');"; done | sqlite3 -cmd '.timeout 60000' w &
done
wait
sqlite3 w 'SELECT count(*), count(DISTINCT b) FROM t; PRAGMA integrity_check; SELECT sum(length(b)) FROM t;'
sqlite3 w 'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<20000) INSERT INTO t(b) SELECT hex(x) FROM c; DELETE FROM t WHERE a%3=0; PRAGMA wal_checkpoint(TRUNCATE); SELECT count(*) FROM t;'
ls w*; sqlite3 w 'PRAGMA mmap_size=100000000; SELECT sum(a) FROM t; VACUUM; PRAGMA integrity_check;'
sqlite3 j 'PRAGMA journal_mode=DELETE; CREATE TABLE t(a); BEGIN; INSERT INTO t VALUES(1); ROLLBACK; INSERT INTO t VALUES(2); SELECT * FROM t;'
ls j*; sqlite3 w 'SELECT b FROM t WHERE b GLOB "*-*"' | wc -l; sqlite3 j .dump
