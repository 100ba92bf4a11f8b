/* opt - the options all daemons share: -c FILE, -t (check the configuration and exit), -f (foreground, the
 * default), -v (more words, may repeat), -V (version), -h/--help, and --KEY VALUE / --KEY=VALUE for every key of conf.h. */
#ifndef COMMON_OPT_H
#define COMMON_OPT_H

#include "common/conf.h"

/* Reads file (if -c, TRINE_CONFIG_FILE, or the default /etc/trine/trine.conf exists), environment, options, in the order
 * that makes options win; finishes the configuration; sets up the log. Exits: 0 after -t, -V, -h; 1 with a
 * message on stderr for a wrong configuration; 2 for a wrong option. argv[0] names the program. */
void opt_load(struct conf *c, int argc, char **argv);

#endif
