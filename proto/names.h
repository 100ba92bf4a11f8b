/* names - names of sockets and files that more than one program must know. */
#ifndef PROTO_NAMES_H
#define PROTO_NAMES_H

#define NAME_RAFT_DIR "raft"       /* below data-dir: raftd's */
#define NAME_STORE_DIR "store"     /* below data-dir: stored's */
#define NAME_WAL_DIR_FILE "WAL-DIR" /* below data-dir: where raftd's log is, if wal-dir is given */
#define NAME_LOCK_FILE "LOCK.pid"  /* in each of them: held by the daemon that uses it (LevelDB has its own LOCK) */
#define NAME_RESERVE_FILE "reserve"   /* in store/: blocks to go on with when the disk is full */
#define NAME_RAFTD_SOCKET "raftd.ipc"
#define NAME_STORED_SOCKET "stored.ipc"
#define NAME_NATIVE_SOCKET "native.ipc"
#define NAME_EVENTS_SOCKET "events.ipc"
#define NAME_DEFAULT_CONF "/etc/trine/trine.conf"

/* Link slots: raftd listens on RAFTD-URL slot 0 for stored and slots 1..GATEWAY_SLOTS for gateways;
 * stored listens on STORED-URL slots 1..GATEWAY_SLOTS for gateways. See link_url. */
#define LINK_SLOT_STORED 0

#endif
