/* snap_facts - what became of snapshots, by member and in etcd's words, for /metrics. From snap.c (each end) and facts.c. */
#include <inttypes.h>
#include <stdio.h>

#include "raftd/snap_int.h"

/* The member's line, made at its first use; a full table forgets nobody, it counts no further ones. */
static struct snap_peer *peer_of(struct snap *n, uint64_t id)
{
    for (size_t i = 0; i < ARRAY_LEN(n->peers); i++) {
        struct snap_peer *p = &n->peers[i];

        if (p->id == 0) {
            p->id = id;
            histogram_init(&p->sending, 100000, 10);
            histogram_init(&p->receiving, 100000, 10);
        }
        if (p->id == id)
            return p;
    }
    return NULL;
}

void snap_note_sent(struct snap *n, uint64_t to, bool ok, uint64_t ms)
{
    struct snap_peer *p = peer_of(n, to);

    if (!p)
        return;
    *(ok ? &p->sent : &p->sent_failed) += 1;
    if (ok)
        histogram_observe_us(&p->sending, ms * 1000);
}

void snap_note_received(struct snap *n, uint64_t from, bool ok, uint64_t ms)
{
    struct snap_peer *p = peer_of(n, from);

    if (!p)
        return;
    *(ok ? &p->received : &p->received_failed) += 1;
    if (ok)
        histogram_observe_us(&p->receiving, ms * 1000);
}

enum value { SENT, SENT_FAILED, SENDING_NOW, RECEIVED, RECEIVED_FAILED, RECEIVING_NOW };

static uint64_t value_of(const struct snap *n, const struct snap_peer *p, enum value v)
{
    switch (v) {
    case SENT: return p->sent;
    case SENT_FAILED: return p->sent_failed;
    case SENDING_NOW: return n->out.state != SNAP_IDLE && n->out.to == p->id;
    case RECEIVED: return p->received;
    case RECEIVED_FAILED: return p->received_failed;
    case RECEIVING_NOW: return n->in.state != SNAP_IDLE && n->in.from == p->id;
    }
    return 0;
}

static void histograms(const struct snap *n, struct buf *b, const char *name, const char *help, const char *label, bool sending)
{
    char labels[64];

    metrics_help(b, name, METRICS_HISTOGRAM, help);
    for (size_t i = 0; i < ARRAY_LEN(n->peers) && n->peers[i].id != 0; i++) {
        snprintf(labels, sizeof(labels), "%s=\"%" PRIx64 "\"", label, n->peers[i].id);
        histogram_render(b, name, labels, sending ? &n->peers[i].sending : &n->peers[i].receiving);
    }
}

void snap_peer_facts(const struct raftd *d, struct buf *b)
{
    static const struct {
        const char *name, *type, *help, *label;
        enum value value;
    } rows[] = {
        {"etcd_network_snapshot_send_success", METRICS_COUNTER, "Total number of successful snapshot sends", "To", SENT},
        {"etcd_network_snapshot_send_failures", METRICS_COUNTER, "Total number of snapshot send failures", "To", SENT_FAILED},
        {"etcd_network_snapshot_send_inflights_total", METRICS_GAUGE, "Snapshots that are being sent.", "To", SENDING_NOW},
        {"etcd_network_snapshot_receive_success", METRICS_COUNTER, "Total number of successful snapshot receives", "From", RECEIVED},
        {"etcd_network_snapshot_receive_failures", METRICS_COUNTER, "Total number of snapshot receive failures", "From", RECEIVED_FAILED},
        {"etcd_network_snapshot_receive_inflights_total", METRICS_GAUGE, "Snapshots that are being received.", "From", RECEIVING_NOW},
    };
    struct snap *n = d->snap;
    char labels[64];

    /* Every other member has its line from the start: alerts need the step from 0 to 1. */
    for (size_t i = 0; i < d->members.count; i++)
        if (d->members.list[i].id != d->member_id)
            (void)peer_of(n, d->members.list[i].id);
    for (size_t row = 0; row < ARRAY_LEN(rows); row++) {
        metrics_help(b, rows[row].name, rows[row].type, rows[row].help);
        for (size_t i = 0; i < ARRAY_LEN(n->peers) && n->peers[i].id != 0; i++) {
            snprintf(labels, sizeof(labels), "%s=\"%" PRIx64 "\"", rows[row].label, n->peers[i].id);
            metrics_u64(b, rows[row].name, labels, value_of(n, &n->peers[i], rows[row].value));
        }
    }
    histograms(n, b, "etcd_network_snapshot_send_total_duration_seconds", "Total latency distributions of snapshot sends", "To", true);
    histograms(n, b, "etcd_network_snapshot_receive_total_duration_seconds", "Total latency distributions of snapshot receives", "From",
               false);
}
