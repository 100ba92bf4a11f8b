"""python3-etcd3 (gRPC C-core) against the server on 127.0.0.1:2379."""
import os
import tempfile
import threading
import time

import etcd3

from check import check, finish, raises

c = etcd3.client(host="127.0.0.1", port=2379, timeout=10)


@check("put and get")
def _():
    c.put("kv/a", "one")
    value, meta = c.get("kv/a")
    assert value == b"one" and meta.version == 1 and meta.key == b"kv/a"
    c.put("kv/a", "two")
    value, meta = c.get("kv/a", serializable=True)
    assert value == b"two" and meta.version == 2 and meta.mod_revision == meta.create_revision + 1


@check("a missing key is None")
def _():
    assert c.get("kv/none") == (None, None)


@check("put with prev_kv")
def _():
    assert c.put("kv/a", "three", prev_kv=True).prev_kv.value == b"two"


@check("bytes of every value")
def _():
    every = bytes(range(256))
    c.put(b"kv/\x00\xff", every)
    assert c.get(b"kv/\x00\xff")[0] == every


@check("a value of one MiB")
def _():
    c.put("kv/large", b"v" * 1048576)
    assert len(c.get("kv/large")[0]) == 1048576


@check("a request that is too large")
def _():
    raises(Exception, c.put, "kv/large", b"v" * 1600000)


@check("prefixes, sorted")
def _():
    for i in range(20):
        c.put("many/%02d" % i, str(19 - i))
    assert [m.key for v, m in c.get_prefix("many/")] == [b"many/%02d" % i for i in range(20)]
    down = [m.key for v, m in c.get_prefix("many/", sort_order="descend")]
    assert down == [b"many/%02d" % (19 - i) for i in range(20)]
    by_value = [v for v, m in c.get_prefix("many/", sort_order="ascend", sort_target="value")]
    assert by_value == sorted(by_value)
    assert len(list(c.get_prefix("many/", keys_only=True))) == 20


@check("ranges, and all keys")
def _():
    assert [m.key for v, m in c.get_range("many/03", "many/06")] == [b"many/03", b"many/04", b"many/05"]
    assert len(list(c.get_all())) >= 23


@check("delete")
def _():
    assert c.delete("many/00") is True
    assert c.delete("many/00") is False
    assert c.delete("many/01", prev_kv=True, return_response=True).prev_kvs[0].value == b"18"
    assert c.delete_prefix("many/").deleted == 18


@check("put_if_not_exists and replace")
def _():
    assert c.put_if_not_exists("cas/a", "1") is True
    assert c.put_if_not_exists("cas/a", "2") is False
    assert c.replace("cas/a", "1", "3") is True
    assert c.replace("cas/a", "1", "4") is False
    assert c.get("cas/a")[0] == b"3"


@check("transactions")
def _():
    t = c.transactions
    done, answers = c.transaction(compare=[t.value("cas/a") == "3", t.version("cas/a") > 0, t.create("cas/none") == 0],
                                  success=[t.put("cas/b", "yes"), t.get("cas/a"), t.delete("cas/a")],
                                  failure=[t.put("cas/b", "no")])
    assert done and answers[1][0][0] == b"3" and c.get("cas/b")[0] == b"yes" and c.get("cas/a")[0] is None
    done, answers = c.transaction(compare=[t.mod("cas/b") == 1], success=[], failure=[t.get("cas/b")])
    assert not done and answers[0][0][0] == b"yes"


@check("nested transactions")
def _():
    t = c.transactions
    inner = t.txn(compare=[t.value("cas/b") == "yes"], success=[t.put("cas/c", "inner")], failure=[])
    done, _ = c.transaction(compare=[], success=[inner], failure=[])
    assert done and c.get("cas/c")[0] == b"inner"


@check("a transaction that writes a key twice is refused")
def _():
    t = c.transactions
    raises(Exception, c.transaction, compare=[], success=[t.put("x", "1"), t.put("x", "2")], failure=[])


@check("leases")
def _():
    lease = c.lease(30)
    c.put("lease/a", "1", lease=lease)
    assert lease.granted_ttl == 30 and 0 < lease.remaining_ttl <= 30 and lease.keys == [b"lease/a"]
    assert c.get("lease/a")[1].lease_id == lease.id
    assert lease.refresh()[0].TTL == 30
    lease.revoke()
    assert c.get("lease/a")[0] is None


@check("a lease that ends takes its keys along")
def _():
    lease = c.lease(2)
    c.put("lease/short", "1", lease=lease)
    for _ in range(100):
        if c.get("lease/short")[0] is None:
            return
        time.sleep(0.1)
    raise AssertionError("still there after 10 s")


@check("watch")
def _():
    events, cancel = c.watch("watch/a")
    c.put("watch/a", "1")
    c.put("watch/b", "not this one")
    c.put("watch/a", "2")
    c.delete("watch/a")
    got = [next(events) for _ in range(3)]
    cancel()
    assert [e.value for e in got] == [b"1", b"2", b""]
    assert isinstance(got[0], etcd3.events.PutEvent) and isinstance(got[2], etcd3.events.DeleteEvent)


@check("watch of a prefix from the past, with prev_kv")
def _():
    first = c.put("watch/past/a", "1").header.revision
    c.put("watch/past/a", "2")
    events, cancel = c.watch_prefix("watch/past/", start_revision=first, prev_kv=True)
    got = [next(events) for _ in range(2)]
    cancel()
    assert [e.value for e in got] == [b"1", b"2"] and got[1].prev_value == b"1"


@check("watch with a callback, many watchers on one stream")
def _():
    seen = []
    woken = threading.Event()

    def on_event(response):
        seen.extend(response.events)
        if len(seen) >= 100:
            woken.set()
    ids = [c.add_watch_callback("watch/cb/%d" % i, on_event) for i in range(100)]
    for i in range(100):
        c.put("watch/cb/%d" % i, str(i))
    assert woken.wait(20), "%d of 100" % len(seen)
    for i in ids:
        c.cancel_watch(i)
    assert sorted(int(e.value) for e in seen) == list(range(100))


@check("a watch below the compacted revision says so")
def _():
    rev = c.put("watch/compacted", "1").header.revision
    c.put("watch/compacted", "2")
    c.compact(rev + 1)
    events, cancel = c.watch("watch/compacted", start_revision=rev)
    error = raises(etcd3.exceptions.RevisionCompactedError, next, events)
    assert error.compacted_revision == rev + 1


@check("a read below the compacted revision fails")
def _():
    raises(Exception, c.compact, 1)


@check("locks")
def _():
    order = []
    with c.lock("mutex", ttl=20) as lock:
        assert lock.is_acquired()
        other = etcd3.client(host="127.0.0.1", port=2379).lock("mutex", ttl=20)
        assert other.acquire(timeout=1) is False
        order.append("first")
    assert other.acquire(timeout=10) is True
    assert other.release() is True


@check("members and status")
def _():
    members = list(c.members)
    assert len(members) == 1 and members[0].name == "default" and len(members[0].client_urls) == 1
    status = c.status()
    assert status.version and status.db_size > 0 and status.leader.id == members[0].id and status.raft_term > 0


@check("alarms")
def _():
    assert list(c.list_alarms()) == []
    c.create_alarm()
    assert [a.alarm_type for a in c.list_alarms()] == [1]
    raises(Exception, c.put, "kv/a", "no space")
    c.disarm_alarm()
    assert list(c.list_alarms()) == []
    c.put("kv/a", "space again")


@check("defragment and hash")
def _():
    c.defragment()
    assert isinstance(c.hash(), int)


@check("snapshot")
def _():
    fd, path = tempfile.mkstemp()
    with os.fdopen(fd, "wb") as f:
        c.snapshot(f)
    size = os.path.getsize(path)
    os.unlink(path)
    assert size % 512 == 32, size


@check("a server that is away is Unavailable")
def _():
    raises(etcd3.exceptions.ConnectionFailedError, etcd3.client(host="127.0.0.1", port=1, timeout=2).get, "a")


@check("twenty threads on one connection")
def _():
    errors = []

    def work(n):
        try:
            for i in range(50):
                c.put("thread/%d" % n, str(i))
                assert c.get("thread/%d" % n)[0] == str(i).encode()
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[0]


finish()
