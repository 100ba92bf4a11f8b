/* gatewayd - the client gateway. This file is the table of contents. */
#include "common/err.h"
#include "common/log.h"
#include "common/notify.h"
#include "common/opt.h"
#include "common/priv.h"
#include "gatewayd/conn.h"
#include "gatewayd/gatewayd.h"

static struct gatewayd gateway;
static struct deadline stop_deadline;

static void stop_now(struct deadline *d, uint64_t now_ms)
{
    UNUSED(d);
    UNUSED(now_ms);
    log_warnx("gatewayd: %zu calls did not finish in time", gateway.call_count);
    loop_stop(gateway.loop);
}

/* Each turn while stopping: the last connection is gone? */
static void check_stopped(void *arg)
{
    struct gatewayd *g = arg;
    if (g->stopping && server_conn_count(g->server) == 0) {
        loop_stop(g->loop);
    }
}

static void on_term(void *arg)
{
    struct gatewayd *g = arg;
    if (g->stopping) {
        return;
    }
    log_info("gatewayd: stopping, %zu calls are open", g->call_count);
    notify_stopping();
    g->stopping = true;
    server_shutdown(g->server);
    queue_shutdown(g);
    stop_deadline.fire = stop_now;
    deadline_set(g, &stop_deadline, gatewayd_now_ms(g) + GATEWAY_STOP_MS_MAX);
}

int main(int argc, char **argv)
{
    struct conf conf;
    opt_load(&conf, argc, argv);
    if (priv_mkdir(conf.run_dir, 0700, conf.user) != 0) {
        fatal("gatewayd: cannot create %s", conf.run_dir);
    }
    priv_limits();

    struct loop *loop = loop_new();
    gatewayd_init(&gateway, &conf, loop);
    gateway.server = server_new(&gateway); /* client ports may need rights that are given up next */
    loop_on_turn_end(loop, check_stopped, &gateway);
    priv_drop(conf.user);
    loop_signals(loop, on_term, NULL, &gateway);
    notify_watchdog_start(loop);

    watch_start(&gateway);
    native_start(&gateway);
    in_start_links(&gateway);
    log_info("gatewayd: started, member %s, gateway %llu", conf.name, (unsigned long long)conf.gateway_id);
    loop_run(loop);

    server_free(gateway.server);
    gateway.server = NULL;
    native_stop(&gateway);
    queue_stop(&gateway);
    watch_stop(&gateway);
    gatewayd_fini(&gateway);
    loop_free(loop);
    conf_fini(&conf);
    return 0;
}
