/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* The server's own key. The process keeps it over restarts of the configuration, a file keeps it
 * from one start to the next: below DefaultRuntimeDir, readable by the user that starts the server
 * only. A file that others could have written or read is no good. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <apr_strings.h>
#include <openssl/rand.h>
#include "httpd.h"
#include "http_config.h"
#include "http_log.h"

#include "balancer/rp_sticky.h"

APLOG_USE_MODULE(rproxy_balancer);

#define KEPT "rproxy-balancer-session-key-1"
#define FILE_NAME "rproxy-sessions.key"
#define BYTES 32
#define TEXT (2 * BYTES)

/** Nonzero: text has the key. If not, errno says why; EPERM: the file isn't ours alone. */
static int read_key(const char *name, char *text)
{
    int fd = open(name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    int is_good = 0;

    if (fd < 0)
        return 0;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid()
        || (info.st_mode & (S_IRWXG | S_IRWXO)))
        errno = EPERM;
    else if (read(fd, text, TEXT) != TEXT || strspn(text, "0123456789abcdef") != TEXT)
        errno = EINVAL;
    else
        is_good = 1;
    close(fd);
    return is_good;
}

/** Nonzero: the file is there, with this key. It is never there with half of it. */
static int write_key(apr_pool_t *pool, const char *name, const char *text)
{
    const char *temporary = apr_psprintf(pool, "%s.%ld", name, (long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int is_written;

    if (fd < 0)
        return 0;
    is_written = write(fd, text, TEXT) == TEXT && write(fd, "\n", 1) == 1 && fsync(fd) == 0;
    is_written = close(fd) == 0 && is_written && link(temporary, name) == 0;
    unlink(temporary);
    return is_written;
}

static int make_key(char *text)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char bytes[BYTES];

    if (RAND_priv_bytes(bytes, sizeof(bytes)) != 1)
        return 0;
    for (int i = 0; i < BYTES; i++) {
        text[2 * i] = digits[bytes[i] >> 4];
        text[2 * i + 1] = digits[bytes[i] & 15];
    }
    return 1;
}

static const char *find_or_make(apr_pool_t *pool, const server_rec *server)
{
    const char *name = ap_runtime_dir_relative(pool, FILE_NAME);
    char *text = apr_pcalloc(pool, TEXT + 1);
    int error = 0;

    if (name && read_key(name, text))
        return text;
    error = name ? errno : EINVAL;
    if (!make_key(text))
        return NULL;
    if (error == ENOENT) {
        if (write_key(pool, name, text))
            return text;
        /* Another server may have been faster. */
        error = errno;
        if (error == EEXIST) {
            char *theirs = apr_pcalloc(pool, TEXT + 1);

            if (read_key(name, theirs))
                return theirs;
        }
    }
    ap_log_error(APLOG_MARK, APLOG_NOTICE, error, server, "RP0410: the key of RProxySticky can't "
                 "be kept in %s, so sessions end when the server is stopped; add key=FILE, or see "
                 "to the file", name ? name : FILE_NAME);
    return text;
}

const apr_array_header_t *rp_sticky_own_key(apr_pool_t *pool, const server_rec *server)
{
    apr_pool_t *process_pool = server->process->pool;
    apr_array_header_t *keys = apr_array_make(pool, 1, sizeof(rp_span));
    void *kept = NULL;

    apr_pool_userdata_get(&kept, KEPT, process_pool);
    if (!kept) {
        kept = (void *)find_or_make(process_pool, server);
        if (!kept || apr_pool_userdata_set(kept, KEPT, NULL, process_pool) != APR_SUCCESS)
            return NULL;
    }
    APR_ARRAY_PUSH(keys, rp_span) = (rp_span){ kept, TEXT };
    return keys;
}
