// npm's etcd3 (grpc-js) against the server on 127.0.0.1:2379: KV, STM, leases, watches, locks, elections.
'use strict';
const { Etcd3 } = require('etcd3');
const assert = require('assert');

let passed = 0;
let failed = 0;
const client = new Etcd3({ hosts: '127.0.0.1:2379' });

async function check(name, work) {
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('30 s are over')), 30000); });
    try {
        await Promise.race([work(), late]);
        passed++;
        console.log(`ok ${name}`);
    } catch (error) {
        failed++;
        console.log(`not ok ${name} # ${error.message}`);
        console.log(error.stack);
    }
    clearTimeout(timer);
}

const sleep = ms => new Promise(done => setTimeout(done, ms));

async function main() {
    await check('put, get, delete', async () => {
        await client.put('kv/a').value('one');
        assert.strictEqual(await client.get('kv/a').string(), 'one');
        assert.strictEqual(await client.get('kv/none').string(), null);
        await client.delete().key('kv/a');
        assert.strictEqual(await client.get('kv/a').string(), null);
    });
    await check('numbers, JSON, buffers', async () => {
        await client.put('kv/number').value(42);
        assert.strictEqual(await client.get('kv/number').number(), 42);
        await client.put('kv/json').value(JSON.stringify({ a: [1, 2] }));
        assert.deepStrictEqual(await client.get('kv/json').json(), { a: [1, 2] });
        const every = Buffer.from([...Array(256).keys()]);
        await client.put('kv/buffer').value(every);
        assert(every.equals(await client.get('kv/buffer').buffer()));
    });
    await check('all of a prefix, keys, count, sorted and limited', async () => {
        for (let i = 0; i < 20; i++) await client.put(`many/${String(i).padStart(2, '0')}`).value(19 - i);
        const all = await client.getAll().prefix('many/').numbers();
        assert.strictEqual(Object.keys(all).length, 20);
        assert.strictEqual(await client.getAll().prefix('many/').count(), 20);
        const keys = await client.getAll().prefix('many/').sort('Key', 'Descend').limit(3).keys();
        assert.deepStrictEqual(keys, ['many/19', 'many/18', 'many/17']);
    });
    await check('namespaces', async () => {
        const ns = client.namespace('space/');
        await ns.put('a').value('inside');
        assert.strictEqual(await client.get('space/a').string(), 'inside');
        assert.deepStrictEqual(await ns.getAll().strings(), { a: 'inside' });
        await ns.delete().all();
        assert.strictEqual(await client.get('space/a').string(), null);
    });
    await check('transactions', async () => {
        const first = await client.if('txn/a', 'Create', '==', 0).then(client.put('txn/a').value('1')).else(client.get('txn/a')).commit();
        assert.strictEqual(first.succeeded, true);
        const second = await client.if('txn/a', 'Create', '==', 0).then(client.put('txn/a').value('2')).else(client.get('txn/a')).commit();
        assert.strictEqual(second.succeeded, false);
        assert.strictEqual(second.responses[0].response_range.kvs[0].value.toString(), '1');
    });
    for (const isolation of [0, 1, 2, 3]) {
        await check(`STM, isolation ${isolation}`, async () => {
            await client.put('stm/a').value(0);
            await Promise.all([...Array(5)].map(() => client.stm({ retries: 100, isolation }).transact(async tx => {
                const n = await tx.get('stm/a').number();
                await tx.put('stm/a').value(n + 1);
            })));
            const n = await client.get('stm/a').number();
            if (isolation <= 1) assert.strictEqual(n, 5); // serializable ones never lose an update
            else assert(n >= 1 && n <= 5);
        });
    }
    await check('leases', async () => {
        const lease = client.lease(10);
        await lease.put('lease/a').value('1');
        assert(await lease.grant());
        await lease.keepaliveOnce();
        assert.strictEqual(await client.get('lease/a').string(), '1');
        await lease.revoke();
        assert.strictEqual(await client.get('lease/a').string(), null);
    });
    await check('a lease that is lost is told', async () => {
        const lease = client.lease(10);
        const id = await lease.grant();
        const lost = new Promise(done => lease.on('lost', done));
        await client.leaseClient.leaseRevoke({ ID: id });
        await lost;
    });
    await check('watch', async () => {
        const watcher = await client.watch().key('watch/a').create();
        const seen = [];
        watcher.on('put', kv => seen.push(kv.value.toString()));
        const gone = new Promise(done => watcher.on('delete', done));
        for (let i = 0; i < 10; i++) await client.put('watch/a').value(i);
        await client.delete().key('watch/a');
        await gone;
        assert.deepStrictEqual(seen, [...Array(10).keys()].map(String));
        await watcher.cancel();
    });
    await check('watch of a prefix from a revision', async () => {
        const rev = (await client.put('watch/p/1').value('1')).header.revision;
        await client.put('watch/p/2').value('2');
        const watcher = await client.watch().prefix('watch/p/').startRevision(rev).create();
        const seen = [];
        await new Promise(done => watcher.on('put', kv => { seen.push(kv.key.toString()); if (seen.length === 2) done(); }));
        assert.deepStrictEqual(seen, ['watch/p/1', 'watch/p/2']);
        await watcher.cancel();
    });
    await check('two hundred watchers on one stream', async () => {
        const watchers = await Promise.all([...Array(200).keys()].map(i => client.watch().key(`watch/many/${i}`).create()));
        const all = watchers.map(w => new Promise(done => w.once('put', done)));
        for (let i = 0; i < 200; i++) await client.put(`watch/many/${i}`).value(i);
        const got = await Promise.all(all);
        assert.deepStrictEqual(got.map(kv => Number(kv.value.toString())), [...Array(200).keys()]);
        await Promise.all(watchers.map(w => w.cancel()));
    });
    await check('locks', async () => {
        const lock = client.lock('mutex').ttl(10);
        await lock.acquire();
        await assert.rejects(client.lock('mutex').ttl(10).acquire());
        await lock.release();
        let ran = 0;
        await client.lock('mutex').do(async () => { ran++; });
        assert.strictEqual(ran, 1);
    });
    await check('elections', async () => {
        const election = client.election('election', 10);
        const one = election.campaign('one');
        await new Promise((done, bad) => { one.on('elected', done); one.on('error', bad); });
        assert.strictEqual(await election.leader(), 'one');
        const observer = await election.observe();
        assert.strictEqual(observer.leader(), 'one');
        const two = election.campaign('two');
        const elected = new Promise((done, bad) => { two.on('elected', done); two.on('error', bad); });
        const changed = new Promise(done => observer.on('change', value => { if (value === 'two') done(); }));
        await sleep(200);
        await one.resign();
        await elected;
        await changed;
        await two.proclaim('two again');
        assert.strictEqual(await election.leader(), 'two again');
        await two.resign();
        await observer.cancel();
    });
    await check('maintenance', async () => {
        const status = await client.maintenance.status();
        assert(status.version && Number(status.dbSize) > 0);
        assert.deepStrictEqual((await client.maintenance.alarm({ action: 0 })).alarms, []);
    });
    await check('members', async () => {
        const list = await client.cluster.memberList({});
        assert.strictEqual(list.members.length, 1);
    });
    await check('users and roles', async () => {
        const role = client.role('reader');
        await role.create();
        await role.grant({ permission: 'Read', range: client.range({ prefix: 'kv/' }) });
        const user = client.user('alice');
        await user.create('secret');
        await user.addRole('reader');
        assert.deepStrictEqual((await user.roles()).map(r => r.name), ['reader']);
        const root = client.user('root');
        await root.create('rootpw');
        await root.addRole('root');
        await client.auth.authEnable();
        const asRoot = new Etcd3({ hosts: '127.0.0.1:2379', auth: { username: 'root', password: 'rootpw' } });
        const alice = new Etcd3({ hosts: '127.0.0.1:2379', auth: { username: 'alice', password: 'secret' } });
        try {
            assert.strictEqual(await alice.get('kv/number').number(), 42);
            await assert.rejects(alice.put('kv/number').value(43), /permission denied/);
            await assert.rejects(alice.get('watch/many/1').string(), /permission denied/);
            await assert.rejects(client.get('kv/number').number());
            await asRoot.put('kv/number').value(44);
        } finally {
            await asRoot.auth.authDisable();
            alice.close();
            asRoot.close();
        }
        await user.delete();
        await role.delete();
    });
    await check('a thousand requests at once', async () => {
        await Promise.all([...Array(1000).keys()].map(i => client.put(`burst/${i}`).value(i)));
        assert.strictEqual(await client.getAll().prefix('burst/').count(), 1000);
    });
    await check('a closed client refuses', async () => {
        const other = new Etcd3({ hosts: '127.0.0.1:2379' });
        await other.put('closed').value('1');
        other.close();
        await assert.rejects(other.get('closed').string());
    });
    client.close();
    console.log(`${passed} passed, ${failed} failed`);
    process.exit(failed === 0 ? 0 : 1);
}

main();
