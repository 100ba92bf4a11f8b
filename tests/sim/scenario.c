#include "tests/sim/sim.h"
int scenario_run(const char *path, bool accept){(void)path;(void)accept;return 0;}
