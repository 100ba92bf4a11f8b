"""python3-etcd3gw (JSON) against the server on 127.0.0.1:2379."""
import base64
import threading
import time

from etcd3gw import exceptions
from etcd3gw.client import Etcd3Client

from check import check, finish, raises

c = Etcd3Client(host="127.0.0.1", port=2379, api_path="/v3/", timeout=10)


@check("status and members")
def _():
    assert c.status()["version"]
    members = c.members()
    assert len(members) == 1 and members[0]["name"] == "default"


@check("put and get")
def _():
    c.put("kv/a", "one")
    assert c.get("kv/a") == [b"one"]
    assert c.get("kv/none") == []
    (value, meta), = c.get("kv/a", metadata=True)
    assert value == b"one" and meta["key"] == b"kv/a" and int(meta["version"]) == 1


@check("bytes of every value")
def _():
    every = bytes(range(256))
    c.put("kv/every", every)
    assert c.get("kv/every") == [every]


@check("prefixes, sorted and limited")
def _():
    for i in range(10):
        c.put("many/%d" % i, str(9 - i))
    assert [m["key"] for v, m in c.get_prefix("many/", sort_order="descend", sort_target="key")] == [b"many/%d" % (9 - i) for i in range(10)]
    assert len(c.get_all()) >= 12


@check("create and replace")
def _():
    assert c.create("cas/a", "1") is True
    assert c.create("cas/a", "2") is False
    assert c.replace("cas/a", "1", "3") is True
    assert c.replace("cas/a", "1", "4") is False


@check("delete")
def _():
    assert c.delete("cas/a") is True
    assert c.delete("cas/a") is False
    assert c.delete_prefix("many/") is True


@check("transaction by hand")
def _():
    def b(s):
        return base64.b64encode(s.encode()).decode()
    txn = {"compare": [{"key": b("txn/a"), "result": "EQUAL", "target": "CREATE", "create_revision": 0}],
           "success": [{"request_put": {"key": b("txn/a"), "value": b("1")}}],
           "failure": [{"request_range": {"key": b("txn/a")}}]}
    assert c.transaction(txn).get("succeeded") is True
    assert c.transaction(txn).get("succeeded") in (None, False)


@check("leases")
def _():
    lease = c.lease(ttl=30)
    c.put("lease/a", "1", lease)
    assert lease.ttl() > 0 and lease.keys() == [b"lease/a"] and lease.refresh() == 30
    assert lease.revoke() is True
    assert c.get("lease/a") == []


@check("lock")
def _():
    lock = c.lock(id="mutex", ttl=20)
    assert lock.acquire() and lock.is_acquired()
    other = c.lock(id="mutex", ttl=20)
    assert not other.acquire()
    assert lock.release()
    assert other.acquire() and other.release()


@check("watch once")
def _():
    threading.Timer(0.5, lambda: c.put("watch/a", "seen")).start()
    event = c.watch_once("watch/a", timeout=10)
    assert event["kv"]["value"] == b"seen"


@check("watch once in vain")
def _():
    raises(exceptions.WatchTimedOut, c.watch_once, "watch/never", timeout=1)


@check("watch of a prefix")
def _():
    events, cancel = c.watch_prefix("watch/p/")
    time.sleep(0.5)
    for i in range(5):
        c.put("watch/p/%d" % i, str(i))
    got = []
    for event in events:
        got.append(event["kv"]["value"])
        if len(got) == 5:
            cancel()
    assert got == [str(i).encode() for i in range(5)]


@check("fifty threads")
def _():
    errors = []

    def work(n):
        try:
            for i in range(10):
                c.put("thread/%d" % n, str(i))
        except Exception as error:
            errors.append(error)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(50)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[0]


finish()
