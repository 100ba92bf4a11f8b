/* limits - every limit has a name, a reason, and something definite that happens at it. */
#ifndef COMMON_LIMITS_H
#define COMMON_LIMITS_H

#define KIB ((size_t)1024)
#define MIB ((size_t)1024 * 1024)

/* --- links between daemons ------------------------------------------------------------------ */
/* A message (a batch of frames) on an nng link. nng's default would be 1 GiB; a larger one closes the pipe. */
#define LINK_MESSAGE_BYTES_MAX (16 * MIB)
/* A link sends what has gathered in messages of about this size, so that one hop's copy stays in cache. */
#define LINK_MESSAGE_BYTES_SOFT (256 * KIB)
/* Bytes waiting on a link before link_is_full(): the sender then pushes back to whoever it serves. */
#define LINK_PENDING_BYTES_MAX (32 * MIB)
/* Received messages waiting for the loop; at the mark the link stops receiving, and nng pushes back. */
#define LINK_INBOX_MESSAGES_MAX 64
/* Largest single field (bin) of a frame: a whole API message with room for its envelope. */
#define FRAME_FIELD_BYTES_MAX (12 * MIB)
/* Gateways of one node: link slots 1..GATEWAY_SLOTS on raftd and stored. */
#define GATEWAY_SLOTS 16
/* First and last delay between attempts to reach a sibling. */
#define LINK_RETRY_MS_MIN 10
#define LINK_RETRY_MS_MAX 200
/* How long a peer may take to say HELLO before the pipe is closed. */
#define LINK_HELLO_MS_MAX 5000

/* --- requests ------------------------------------------------------------------------------- */
/* etcd's defaults (spec/semantics.md §8). */
#define REQUEST_BYTES_DEFAULT 1572864
#define REQUEST_BYTES_OVERHEAD (512 * KIB) /* grpc receive limit = request limit + this */
#define TXN_OPS_DEFAULT 128
#define TXN_DEPTH_MAX 64 /* nested transactions; deeper is "too many operations": bounds the recursion */
/* Compares, operations and nested transactions of one transaction, all levels together. etcd has no such limit, because its
 * per-level one is meant to be it; but 64 x 32 x 16 x ... empty ones are within that, and 4 MB of memory per 100 kB sent. */
#define TXN_ALL_OPS_MAX 65536
/* Proposals are refused with "etcdserver: too many requests" (§8) while stored has more than so many committed entries to apply,
 * as etcd does, and while it is so long behind. The entries themselves cost nothing, they are in the log; but who proposes now
 * waits as long as stored is behind, and 5000 entries are a tenth of a second of its work, less than one busy moment of
 * the machine. */
#define APPLY_BACKLOG_ENTRIES_MAX 5000
#define APPLY_BACKLOG_MS_MAX 2000
/* Bytes of commands that one raftd holds un-committed before it refuses more. */
#define PROPOSAL_BYTES_MAX (64 * MIB)
/* Bytes of committed entries on their way to stored. */
#define APPLY_INFLIGHT_BYTES_MAX (8 * MIB)
/* Requests waiting for an answer in one gateway, and their bytes. */
#define PENDING_REQUESTS_MAX 100000
#define PENDING_BYTES_MAX (256 * MIB)
/* Request timeout = 5 s + 2 x election timeout (§18). */
#define REQUEST_TIMEOUT_BASE_MS 5000

/* --- results -------------------------------------------------------------------------------- */
/* A large range answer travels in parts of this size; the gateway asks for the next part when it has room. */
#define RESULT_PART_BYTES (512 * KIB)
/* The answer of a transaction, which is put together in memory: 128 ranges could each read the whole store. etcd gives up at
 * 2 GiB, with the same status, when gRPC refuses to send what was gathered. */
#define TXN_ANSWER_BYTES_MAX (256 * MIB)
/* Bytes of large results that stored holds ready for one gateway, and of one batch; what is over is answered "larger than its limit".
 * Ranges are not held, they are read as their parts are asked for. */
#define RESULTS_BYTES_MAX (512 * MIB)
/* Memory that stored keeps for the next result or batch of results. */
#define RESULTS_KEEP_BYTES (16 * MIB)
/* Batches whose results are kept in the store, to be told again after a restart of stored. */
#define RESULT_MEMORY_BATCHES 64
#define RESULT_MEMORY_BYTES_MAX (1 * MIB)

/* --- watch ---------------------------------------------------------------------------------- */
/* Recent events kept in stored's memory: what a watcher that is nearly in step is fed from. */
#define EVENT_RING_COUNT 65536
#define EVENT_RING_BYTES_MAX (16 * MIB)
/* One slice of history: revisions scanned and bytes returned at most. */
#define HISTORY_SLICE_REVS 10000
#define HISTORY_SLICE_BYTES (512 * KIB)
/* Bytes queued for one watch stream before its watchers go back to reading history. */
#define WATCH_STREAM_BYTES_MAX (4 * MIB)
/* Watchers of one stream and distinct ranges of one gateway. */
#define WATCHERS_PER_STREAM_MAX 1000000
#define WATCH_RANGES_MAX 1000000

/* --- clients of a gateway ---------------------------------------------------------------------- */
/* Connections; more are closed at once. The limit on open files may lower it. */
#define CONNECTIONS_MAX 20000
/* Connections that have not said what they want; the oldest makes room for the next. When there are CONNECTIONS_MAX, so many of
 * them are left alone. */
#define HALF_OPEN_MAX 4096
#define HALF_OPEN_KEPT 256
/* TLS handshakes at a time: an unfinished one takes some 30 KiB. Those that come meanwhile wait, and who lets them wait for so long
 * is closed. A certificate chain is a few KiB. */
#define HANDSHAKES_MAX 512
#define HANDSHAKE_PATIENCE_MS 250
#define HANDSHAKE_BYTES_MAX (64 * KIB)
/* Workers that make them: each costs a signature, and other work must find a worker too. */
#define HANDSHAKE_JOBS_MAX 2
/* What TLS itself has to answer (new keys) to a client that does not read. */
#define TLS_ANSWERS_BYTES_MAX (16 * KIB)
/* Read from a connection at a time, by a buffer that all share, and in one turn before the others get theirs: some hundred requests of
 * the shortest kind. */
#define CONN_READ_BYTES (32 * KIB)
/* What the kernel may hold of one connection that it has not sent yet. */
#define CONN_UNSENT_BYTES ((int)(128 * KIB))
/* Users whose requests are counted (user-rate-limit); those that have been idle for a second make room. */
#define RATE_USERS_MAX 100000
/* Files that a gateway keeps free for its links and for standard streams. */
#define CONNECTION_SPARE_FILES 64
/* Calls that are open at the same time, over all connections; more are refused (REFUSED_STREAM). */
#define CALLS_MAX 1000000
/* Bytes of a request's header list; more resets the stream. */
#define HEADER_LIST_BYTES_MAX (64 * KIB)
/* Bytes of messages that are not complete yet, and of answers not yet taken by slow clients, over all calls. At the
 * mark a request is refused with "too many requests". */
#define INBOUND_BYTES_MAX (256 * MIB)
#define OUTBOUND_BYTES_MAX (256 * MIB)
/* The same of one connection, streams of watchers not counted (they have WATCH_STREAM_BYTES_MAX each): so much may a client ask
 * for and not read before its next requests are refused. */
#define H2_CONNECTION_ANSWERS_MAX (64 * MIB)
/* An answer of which the client takes nothing for so long is given up, and its stream reset. */
#define ANSWER_STALL_MS_MAX 120000
/* Header lists over that size in one connection; with the next it ends. */
#define H2_LONG_LISTS_MAX 16
/* Calls whose memory is kept for the next ones. */
#define CALLS_KEPT_MAX 1024
/* HTTP/2 windows: what a client may send that no handler has taken. */
#define H2_STREAM_WINDOW_BYTES (256 * KIB)
#define H2_CONNECTION_WINDOW_BYTES (1 * MIB)
/* Written to one connection at a time, and in one turn before the others get theirs. */
#define H2_WRITE_BYTES (256 * KIB)
#define H2_TURN_BYTES_MAX (4 * MIB)
/* What a stream has to send up to this size goes before what others have that is larger. */
#define H2_SMALL_BYTES (16 * KIB)
/* Streams that a client may reset: at once, and per second; above it the connection ends. */
#define H2_RESET_BURST 2000
#define H2_RESET_RATE 500
/* HTTP/1.1: request head, body, a line of a chunked body and its trailers, and how long a head and a body may take. The body of a
 * stream (/v3/watch, ...) may be longer and come as slowly as it likes. */
#define HTTP1_HEAD_BYTES_MAX (16 * KIB)
#define HTTP1_BODY_BYTES_MAX (8 * MIB)
#define HTTP1_CHUNK_LINE_BYTES_MAX ((size_t)256)
#define HTTP1_TRAILER_BYTES_MAX (8 * KIB)
#define HTTP1_HEAD_MS_MAX 10000
#define HTTP1_BODY_MS_MAX 60000
/* Bytes of pipelined requests that wait for the answer to an earlier one (a client that sends more is dropped), and of answers
 * that a client has not read before its next request is looked at. */
#define HTTP1_IN_BYTES_MAX (256 * KIB)
#define HTTP1_OUT_BYTES_MAX (64 * KIB)
/* A kept-alive HTTP/1.1 connection without a request is closed after this. */
#define HTTP1_IDLE_MS_MAX 120000
/* JSON gateway: nesting of objects and arrays (a transaction TXN_DEPTH_MAX deep takes three levels for each); a request's text, which
 * is longer than the message that its limit is for; a message that is answered, which is put together before it is converted, and
 * its text. What is over is refused. */
#define JSON_DEPTH_MAX 256
#define JSON_BODY_BYTES_MAX (8 * MIB)
#define JSON_ANSWER_BYTES_MAX (64 * MIB)
#define JSON_TEXT_BYTES_MAX (128 * MIB)
/* A WebSocket's message, and the bytes of one that wait for its client before no more are made. */
#define WS_MESSAGE_BYTES_MAX JSON_BODY_BYTES_MAX
#define WS_OUT_BYTES_MAX (256 * KIB)
/* KeepAlive: answers that one stream waits for; above it the stream's requests wait in HTTP/2's window. */
#define KEEP_ALIVE_WAITING_MAX 256
/* A login token, whatever carries it; longer ones cannot be good. */
#define TOKEN_BYTES_MAX (8 * KIB)
/* Tokens whose user is remembered, for how long at most, and how many may be asked about at a time; above it a call is answered
 * "too many requests". Short, so that stored sees that a token is in use. */
#define LOGINS_MAX 10000
#define LOGIN_KEEP_MS 5000
#define LOGINS_ASKED_MAX 1024
/* Passwords that are hashed at a time (64 MiB of memory each), and that wait; more are answered "too many requests". */
#define PASSWORD_HASHES_MAX 2
#define PASSWORD_WAITING_MAX 64
#define PASSWORD_BYTES_MAX ((size_t)4096)
/* Times that Authenticate checks a password again because users or roles have changed meanwhile. */
#define AUTHENTICATE_TRIES_MAX 10
/* SIGTERM: unary calls may finish for this long. */
#define GATEWAY_STOP_MS_MAX 5000

/* --- auth ------------------------------------------------------------------------------------ */
/* What a new password's argon2id hash costs at bcrypt-cost 10: libsodium's "interactive" figures, about 0.1 s; and the highest
 * cost, some seconds (password_cost.h). */
#define PASSWORD_PASSES 2ULL
#define PASSWORD_MEMORY_BYTES (64 * MIB)
#define PASSWORD_COST_MAX 16
/* Costs of hashes that clients bring: bcrypt's, argon2id's memory and passes x memory; a hash over them is refused. Decided when a
 * command is applied: all members must have the same. */
#define BCRYPT_COST_MAX PASSWORD_COST_MAX
#define PASSWORD_MEMORY_MAX (256 * MIB)
#define PASSWORD_WORK_MAX ((PASSWORD_PASSES << (PASSWORD_COST_MAX - 10)) * PASSWORD_MEMORY_BYTES)
/* Checks at the same time, so that reads keep half of the worker threads, and such that wait; over it: "too many requests". */
#define PASSWORD_PARALLEL 2
#define PASSWORD_QUEUE_MAX 128
/* Tokens that are kept, of one user and of all; the oldest one makes room for a new one. All members must have the same. */
#define TOKENS_PER_USER_MAX 10000
#define TOKENS_MAX 100000

/* --- storage -------------------------------------------------------------------------------- */
#define WAL_SEGMENT_BYTES (64 * MIB)
#define QUOTA_BYTES_DEFAULT ((uint64_t)2 * 1024 * MIB)
#define CACHE_BYTES_DEFAULT (64 * MIB)
/* stored syncs its files and tells raftd after this many bytes applied or this long, whichever is first. */
#define SYNC_BYTES (32 * MIB)
#define SYNC_MS 5000
/* Free bytes of the disk that raftd leaves to stored when it makes files ahead of need: compaction needs room to make room. */
#define DISK_KEEP_BYTES (128 * MIB)
#define LEASE_TTL_MAX 9000000000LL
#define LEASE_EXPIRE_CHECK_MS 500
#define LEASE_EXPIRE_BATCH_MAX 10000 /* leases revoked by one entry */

/* --- threads -------------------------------------------------------------------------------- */
#define WORKER_THREADS 4

#endif
