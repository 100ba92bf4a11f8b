/* identity - who asks. */
#include "gatewayd/identity.h"

const struct identity IDENTITY_NONE = {.user = {NULL, 0}, .auth_rev = 0};
