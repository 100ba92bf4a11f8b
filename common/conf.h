/* conf - the configuration of a node: one table of keys for all daemons.
 * A key is the name of a long option (--data-dir), of a line in the file (data-dir = ...), and of an
 * environment variable (TRINE_DATA_DIR). An option wins over the environment, that over the file, that over the
 * default. Keys that mean what etcd's flag means have etcd's name. Unknown keys and bad values are errors that
 * name the file and line (or option, or variable), the key, and what would be right. */
#ifndef COMMON_CONF_H
#define COMMON_CONF_H

#include "common/base.h"
#include "common/buf.h"
#include "common/limits.h"

/* X(type, member, "key", "default", minimum, maximum, "help")
 * STR: const char *; U64: uint64_t; I64: int64_t; BOOL: bool; DUR: uint64_t milliseconds, written "10m", "100ms",
 * "1h30m" (Go duration text); MS: uint64_t, a bare number of milliseconds (etcd's heartbeat-interval).
 * Minimum and maximum apply to numbers and durations (in ms). */
#define CONF_KEYS(X) \
    X(STR, name, "name", "default", 0, 0, "name of this member") \
    X(STR, data_dir, "data-dir", "/var/lib/trine", 0, 0, "directory of raft/ and store/ (mode 0700)") \
    X(STR, run_dir, "run-dir", "/run/trine", 0, 0, "directory of the daemons' sockets (mode 0700)") \
    X(STR, raftd_url, "raftd-url", "", 0, 0, "nng URL of raftd; default ipc://RUN-DIR/raftd.ipc") \
    X(STR, stored_url, "stored-url", "", 0, 0, "nng URL of stored; default ipc://RUN-DIR/stored.ipc") \
    X(STR, native_url, "native-url", "", 0, 0, "nng REP URL for native requests; default ipc://RUN-DIR/native.ipc (gateway 1) or native.N.ipc") \
    X(STR, native_pub_url, "native-pub-url", "", 0, 0, "nng PUB URL of live events; default ipc://RUN-DIR/events.ipc (gateway 1) or events.N.ipc") \
    X(U64, gateway_id, "gateway-id", "1", 1, GATEWAY_SLOTS, "number of this gateway on its node") \
    X(STR, listen_client_urls, "listen-client-urls", "http://localhost:2379", 0, 0, "where clients connect (comma list)") \
    X(STR, advertise_client_urls, "advertise-client-urls", "http://localhost:2379", 0, 0, "what clients are told to use (comma list)") \
    X(STR, listen_peer_urls, "listen-peer-urls", "http://localhost:2380", 0, 0, "where other members connect (comma list)") \
    X(STR, initial_advertise_peer_urls, "initial-advertise-peer-urls", "http://localhost:2380", 0, 0, "this member's peer URLs as others see them") \
    X(STR, initial_cluster, "initial-cluster", "", 0, 0, "members at the first start, n1=url,n2=url; default NAME=initial-advertise-peer-urls") \
    X(STR, initial_cluster_token, "initial-cluster-token", "etcd-cluster", 0, 0, "keeps clusters with equal URLs apart") \
    X(STR, initial_cluster_state, "initial-cluster-state", "new", 0, 0, "new or existing") \
    X(BOOL, strict_reconfig_check, "strict-reconfig-check", "true", 0, 0, "refuse changes of membership that would endanger the quorum") \
    X(U64, max_learners, "max-learners", "1", 0, 16, "learners that the cluster may have at the same time") \
    X(BOOL, force_new_cluster, "force-new-cluster", "false", 0, 0, "make a cluster of this member alone out of its data; for one start only") \
    X(MS, heartbeat_interval_ms, "heartbeat-interval", "100", 1, 10000, "milliseconds between a leader's heartbeats") \
    X(MS, election_timeout_ms, "election-timeout", "1000", 5, 50000, "milliseconds; at least 5 x heartbeat-interval") \
    X(BOOL, pre_vote, "pre-vote", "true", 0, 0, "ask before disturbing the cluster with a new term") \
    X(I64, quota_backend_bytes, "quota-backend-bytes", "0", INT64_MIN, INT64_MAX, "store size that raises NOSPACE; 0 = 2 GiB, negative = none") \
    X(U64, cache_bytes, "cache-bytes", "67108864", 0, UINT64_MAX, "memory for hot records in stored") \
    X(U64, max_txn_ops, "max-txn-ops", "128", 1, 1000000, "operations in one transaction") \
    X(U64, max_request_bytes, "max-request-bytes", "1572864", 1024, 10485760, "largest request") \
    X(U64, max_concurrent_streams, "max-concurrent-streams", "4294967295", 1, 4294967295, "streams of one client connection") \
    X(DUR, grpc_keepalive_min_time_ms, "grpc-keepalive-min-time", "5s", 0, UINT64_MAX, "fastest allowed client ping") \
    X(DUR, grpc_keepalive_interval_ms, "grpc-keepalive-interval", "2h", 0, UINT64_MAX, "server ping on idle connections") \
    X(DUR, grpc_keepalive_timeout_ms, "grpc-keepalive-timeout", "20s", 0, UINT64_MAX, "wait for the answer to it") \
    X(BOOL, socket_reuse_port, "socket-reuse-port", "false", 0, 0, "let several gateways share one client port") \
    X(STR, auto_compaction_mode, "auto-compaction-mode", "periodic", 0, 0, "periodic or revision") \
    X(STR, auto_compaction_retention, "auto-compaction-retention", "0", 0, 0, "0 = off; periodic: duration, hours if no unit; revision: count") \
    X(U64, compaction_batch_limit, "compaction-batch-limit", "1000", 1, 1000000, "revisions deleted per slice of a compaction") \
    X(DUR, compaction_sleep_interval_ms, "compaction-sleep-interval", "10ms", 0, 60000, "pause between slices") \
    X(DUR, watch_progress_notify_interval_ms, "watch-progress-notify-interval", "10m", 100, UINT64_MAX, "idle progress messages") \
    X(U64, snapshot_bytes_per_second, "snapshot-bytes-per-second", "67108864", 0, 1099511627776, "how fast a snapshot is sent to a member that is behind; 0: as fast as it goes") \
    X(U64, wal_segment_bytes, "wal-segment-bytes", "67108864", 1048576, 1073741824, "size of one file of the raft log") \
    X(BOOL, unsafe_no_fsync, "unsafe-no-fsync", "false", 0, 0, "do not sync the raft log: loses acknowledged writes on power loss") \
    X(STR, peer_cert_file, "peer-cert-file", "", 0, 0, "certificate (PEM, with its chain) shown to other members") \
    X(STR, peer_key_file, "peer-key-file", "", 0, 0, "its private key (PEM)") \
    X(STR, peer_client_cert_file, "peer-client-cert-file", "", 0, 0, "another certificate for connections to other members") \
    X(STR, peer_client_key_file, "peer-client-key-file", "", 0, 0, "its private key (PEM)") \
    X(STR, peer_trusted_ca_file, "peer-trusted-ca-file", "", 0, 0, "authorities (PEM) that other members' certificates come from") \
    X(STR, peer_crl_file, "peer-crl-file", "", 0, 0, "revoked certificates (PEM)") \
    X(BOOL, peer_client_cert_auth, "peer-client-cert-auth", "false", 0, 0, "only members with a certificate may connect") \
    X(STR, peer_cert_allowed_cn, "peer-cert-allowed-cn", "", 0, 0, "common names that connecting members may have (comma list)") \
    X(STR, peer_cert_allowed_hostname, "peer-cert-allowed-hostname", "", 0, 0, "host names, one of which a connecting member's certificate must be for (comma list)") \
    X(BOOL, peer_auto_tls, "peer-auto-tls", "false", 0, 0, "encrypt with a certificate made at the start; nobody is authenticated") \
    X(BOOL, peer_skip_client_san_verification, "peer-skip-client-san-verification", "false", 0, 0, "do not compare a connecting member's address with its certificate") \
    X(STR, tls_min_version, "tls-min-version", "TLS1.2", 0, 0, "TLS1.2 or TLS1.3") \
    X(STR, tls_max_version, "tls-max-version", "", 0, 0, "TLS1.2 or TLS1.3; default the newest") \
    X(STR, cipher_suites, "cipher-suites", "", 0, 0, "suites of TLS 1.2, by their IANA names (comma list); default OpenSSL's choice") \
    X(U64, self_signed_cert_validity, "self-signed-cert-validity", "1", 1, 100, "years that certificates made by auto-tls and peer-auto-tls are good for") \
    X(STR, cert_file, "cert-file", "", 0, 0, "certificate (PEM, with its chain) shown to clients") \
    X(STR, key_file, "key-file", "", 0, 0, "its private key (PEM)") \
    X(BOOL, client_cert_auth, "client-cert-auth", "false", 0, 0, "only clients with a certificate may connect") \
    X(STR, trusted_ca_file, "trusted-ca-file", "", 0, 0, "authorities (PEM) that clients' certificates come from; given, clients need one") \
    X(STR, client_crl_file, "client-crl-file", "", 0, 0, "revoked certificates of clients (PEM)") \
    X(STR, client_cert_allowed_hostname, "client-cert-allowed-hostname", "", 0, 0, "host names, one of which a client's certificate must be for (comma list)") \
    X(STR, client_cert_allowed_cn, "client-cert-allowed-cn", "", 0, 0, "common names that clients' certificates may have (comma list)") \
    X(U64, connection_rate_limit, "connection-rate-limit", "0", 0, 1000000, "requests per second of one client connection; 0 = any number") \
    X(U64, user_rate_limit, "user-rate-limit", "0", 0, 1000000, "requests per second of one user through one gateway; 0 = any number") \
    X(BOOL, allow_plaintext, "allow-plaintext", "false", 0, 0, "let clients' URLs with http be other than loopback addresses") \
    X(BOOL, auto_tls, "auto-tls", "false", 0, 0, "encrypt https URLs of clients with a certificate made at the start") \
    X(STR, listen_client_http_urls, "listen-client-http-urls", "", 0, 0, "where HTTP clients connect (comma list); given, listen-client-urls serve gRPC only") \
    X(STR, listen_metrics_urls, "listen-metrics-urls", "", 0, 0, "further places that serve /metrics, /health, /livez and /readyz only (comma list)") \
    X(BOOL, enable_grpc_gateway, "enable-grpc-gateway", "true", 0, 0, "serve the JSON paths /v3/") \
    X(STR, cors, "cors", "*", 0, 0, "origins that browsers' scripts may come from (comma list), * = any") \
    X(STR, host_whitelist, "host-whitelist", "*", 0, 0, "names that plain HTTP requests may call this server by (comma list), * = any") \
    X(STR, auth_token, "auth-token", "simple", 0, 0, "simple, or jwt,pub-key=FILE,priv-key=FILE,sign-method=METHOD,ttl=DURATION") \
    X(U64, auth_token_ttl, "auth-token-ttl", "300", 1, UINT32_MAX, "seconds that a simple token lives after its last use") \
    X(U64, bcrypt_cost, "bcrypt-cost", "10", 4, 31, "work put into the argon2id hash of a new password, doubled by each step: 10 is two passes over 64 MiB") \
    X(STR, metrics, "metrics", "basic", 0, 0, "basic or extensive (adds histograms of request times)") \
    X(DUR, warning_unary_request_duration_ms, "warning-unary-request-duration", "300ms", 0, UINT64_MAX, "slower requests are logged") \
    X(DUR, warning_apply_duration_ms, "warning-apply-duration", "100ms", 0, UINT64_MAX, "entries that take longer to apply are logged") \
    X(STR, wal_dir, "wal-dir", "", 0, 0, "directory of the raft log; default DATA-DIR/raft") \
    X(U64, snapshot_catchup_entries, "snapshot-catchup-entries", "5000", 1, UINT64_MAX, "entries of the log that are kept for members that lag") \
    X(BOOL, initial_election_tick_advance, "initial-election-tick-advance", "true", 0, 0, "hold the first election soon after the start") \
    X(DUR, raft_read_timeout_ms, "raft-read-timeout", "5s", 1000, UINT64_MAX, "silence after which a connection to a member is given up; given, it counts instead of twice the election-timeout") \
    X(DUR, raft_write_timeout_ms, "raft-write-timeout", "5s", 1000, UINT64_MAX, "time after which a connection to a member that takes nothing is given up") \
    X(BOOL, memory_mlock, "memory-mlock", "false", 0, 0, "keep the memory of stored out of the swap space") \
    X(U64, bootstrap_defrag_threshold_megabytes, "bootstrap-defrag-threshold-megabytes", "0", 0, UINT32_MAX, "defragment at the start if it frees as much; 0 = never") \
    X(STR, log_outputs, "log-outputs", "default", 0, 0, "default, stderr, stdout, systemd/journal, or files (comma list)") \
    X(STR, log_format, "log-format", "console", 0, 0, "console or json") \
    X(BOOL, enable_log_rotation, "enable-log-rotation", "false", 0, 0, "begin a new log file when one is full; needs one file in log-outputs") \
    X(STR, log_rotation_config_json, "log-rotation-config-json", "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", 0, 0, "megabytes of a file, days and number of old ones kept, local time in their names") \
    X(STR, user, "user", "", 0, 0, "when started as root, run as this user") \
    X(STR, log_level, "log-level", "info", 0, 0, "error, warn, info, debug or trace (panic, fatal: as error)")

enum {
#define CONF_POS(type, member, key, def, min, max, help) CONF_POS_##member,
    CONF_KEYS(CONF_POS)
#undef CONF_POS
    CONF_KEY_COUNT
};

struct conf {
#define CONF_TYPE_STR const char *
#define CONF_TYPE_U64 uint64_t
#define CONF_TYPE_I64 int64_t
#define CONF_TYPE_BOOL bool
#define CONF_TYPE_DUR uint64_t
#define CONF_TYPE_MS uint64_t
#define CONF_MEMBER(type, member, key, def, min, max, help) CONF_TYPE_##type member;
    CONF_KEYS(CONF_MEMBER)
#undef CONF_MEMBER
    uint8_t given[(CONF_KEY_COUNT + 7) / 8]; /* one bit per key in the order of the table: set by a file, variable or option */
};

/* Strings belong to c; they are changed by conf_set and conf_finish only. */
void conf_init(struct conf *c); /* all defaults */
void conf_fini(struct conf *c);
bool conf_is_given(const struct conf *c, const char *key); /* not a default; key is one of the table */

/* Sets one key from text. where ("trine.conf line 7", "--name") leads the message. On failure appends one line to
 * why and returns E_INVALID; c is unchanged. */
int conf_set(struct conf *c, const char *key, const char *value, const char *where, struct buf *why);
int conf_read_file(struct conf *c, const char *path, struct buf *why);  /* INI without sections, # and ; comments */
int conf_read_env(struct conf *c, char *const envp[], struct buf *why); /* TRINE_*; unknown names are errors */
/* What spans keys (election >= 5 x heartbeat, retention of the mode, advertise with listen), and derived defaults
 * (raftd-url, initial-cluster, ...); makes data-dir and run-dir absolute, so that priv_drop may change directory. */
int conf_finish(struct conf *c, struct buf *why);
void conf_print_help(const char *program); /* --help: the table, on stdout */
void conf_show(const struct conf *c, struct buf *out); /* every key with its value, as lines of a file */

/* The key of the table that is spelt most like word; NULL if none is near. */
const char *conf_nearest_key(const char *word);
bool conf_has_key(const char *key);
size_t conf_key_pos(const char *key); /* its place in the table; CONF_KEY_COUNT if it is not there */
bool conf_is_bool(const char *key);
const char *conf_help(const char *key); /* its line of --help; "" if it is not in the table */
/* What a number or duration (ms) may be; false: key is nothing like that. */
bool conf_range(const char *key, uint64_t *min, uint64_t *max);

/* --- values (conf_parse.c) ---------------------------------------------------------------------- */

/* "10m", "1h30m", "1.5s", "100ms" -> ms. E_INVALID for anything else, and for what is not a whole number of ms. */
int conf_parse_duration(const char *text, uint64_t *ms);
int conf_parse_ns(const char *text, uint64_t *ns); /* the same, finer */
/* auto-compaction-retention of a mode: milliseconds ("periodic") or revisions ("revision"); 0 = off. */
int conf_parse_retention(const char *mode, const char *text, uint64_t *value);

/* One URL of a comma list, "http://host:port". The array is given: conf_free_urls. */
struct conf_url {
    char *scheme; /* "http", "https", "unix", "unixs" (with TLS) */
    char *host;   /* without the brackets of IPv6; the path if the scheme is "unix" or "unixs" */
    uint16_t port; /* 0 if it is one of these */
};
/* Clear text for whoever reaches it: http, and neither a loopback address nor localhost. */
bool conf_url_is_open(const struct conf_url *url);
int conf_parse_urls(const char *list, struct conf_url **urls, size_t *count);
void conf_free_urls(struct conf_url *urls, size_t count);
/* Says why a list is not good, in etcd's words where it has them; appends without a newline. With listen the host must be
 * an IP address or localhost: names can change, and binding to one is a surprise. */
int conf_check_urls(const char *list, bool listen, struct buf *why);

/* Whether text is "n1=url,n1=url,n2=url" with every URL once (initial-cluster; raftd's boot.c makes members of it). Says
 * why not; appends without a newline. */
int conf_check_cluster(const char *text, struct buf *why);

/* What log-outputs, enable-log-rotation and log-rotation-config-json come to. */
struct log_rotation;
int conf_log_rotation(const struct conf *c, struct log_rotation *r, struct buf *why);

/* A slice of the list text, without blanks around it; *next moves behind the comma, NULL behind the last. */
struct slice conf_next_item(const char **next);

#endif
