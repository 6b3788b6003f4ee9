/* SPDX-License-Identifier: MIT */
/* The library's version, and short texts for its error codes. Runs in the library caller's process. Pure. */
#include "src/eventpipe.h"

const char *ep_version(void)
{
    return PACKAGE_VERSION;
}

/* Returns a short text for an error code of the library, which nobody frees. The library's caller uses it
 * for errors of calls that have no manager or client to ask for a message, such as ep_manager_open. */
const char *ep_strerror(int code)
{
    switch (code) {
    case EP_OK:
        return "success";
    case EP_END:
        return "no more events will come";
    case EP_EINVAL:
        return "invalid argument";
    case EP_ENOMEM:
        return "out of memory";
    case EP_EEXIST:
        return "the name is already in use";
    case EP_ENOENT:
        return "not found";
    case EP_EBUSY:
        return "in use by another process, or interrupted";
    case EP_EACCESS:
        return "permission denied";
    case EP_ESYSTEM:
        return "a system call failed";
    case EP_ECONFIG:
        return "the configuration is wrong";
    case EP_ESTORE:
        return "the store is damaged, not a store, or of a newer version";
    case EP_ESTOREBUSY:
        return "the store cannot be written now";
    case EP_EBACKEND:
        return "the backend failed";
    case EP_EAUTH:
        return "the backend refuses the account";
    case EP_EPROTO:
        return "the backend's answer is malformed";
    case EP_ESTATE:
        return "not possible while the manager runs";
    }
    return "unknown error";
}
