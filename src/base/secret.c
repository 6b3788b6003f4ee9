/* SPDX-License-Identifier: MIT */
/*
 * Reads secrets (tokens, passwords) from files: the first line of a regular file that belongs to us or
 * to root and that only its owner can use. The supervisor calls it while it reads the configuration; so
 * does a program that uses the library.
 *
 * Invariants
 *  1. The checks are made on the open descriptor, so the file that was checked is the file that is read.
 *  2. No message contains any part of the secret, and the buffer is wiped.
 *
 * Survived: every failure, as EP_EACCESS or EP_ENOMEM with a message.
 */
#include "src/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECRET_BYTES_MAX 8192

/* Checks that an opened secret file is a regular file that only its owner can use, and that the owner is
 * this user or root. Returns EP_OK, or EP_EACCESS with a message that says how to correct it. Runs in the
 * supervisor, the command line and the library caller's process, which read token files. */
static int check_secret_file(int fd, const char *path, struct error *error)
{
    struct stat about;
    if (fstat(fd, &about) != 0)
        return base_error_set(error, EP_EACCESS, "%s cannot be examined: %s", path, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return base_error_set(error, EP_EACCESS, "%s is not a regular file", path);
    if (about.st_uid != geteuid() && about.st_uid != 0)
        return base_error_set(error, EP_EACCESS,
                              "%s belongs to user %u, expected user %u (who runs this) or root: chown it",
                              path, (unsigned)about.st_uid, (unsigned)geteuid());
    if ((about.st_mode & 077) != 0)
        return base_error_set(
            error, EP_EACCESS,
            "%s has mode %04o, so that others than its owner can use it, expected 0600 or 0400: "
            "run `chmod 600 %s`",
            path, (unsigned)(about.st_mode & 07777), path);
    return EP_OK;
}

/* Reduces the text of a secret file to its first line, without the blanks around it. Returns where the
 * secret begins, or NULL if it contains control characters, which no HTTP header or Idefix packet could
 * carry. Runs in the supervisor, the command line and the library caller's process. */
static char *cut_first_line(char *text, size_t length)
{
    size_t end = 0;
    while (end < length && text[end] != '\n')
        end++;
    while (end > 0 && strchr(" \t\r", text[end - 1]) != NULL && text[end - 1] != '\0')
        end--;
    text[end] = '\0';
    char *begin = text + strspn(text, " \t");
    for (const char *at = begin; at < text + end; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            return NULL;
    return begin;
}

/* Reads a secret (a token) from the first line of a file that only its owner can use. The supervisor and
 * the command line call it for `token_file` of the configuration file, the library for the same parameter
 * of an Idefix client. Returns EP_OK, and *out to wipe and free, or an error that contains no part of the
 * secret. */
int base_secret_read(const char *path, char **out, struct error *error)
{
    char text[SECRET_BYTES_MAX + 1];
    size_t length = 0;
    int code = EP_OK;
    /* non-blocking: opening a FIFO would wait for its writer; check_secret_file refuses it instead */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return base_error_set(error, EP_EACCESS, "%s cannot be opened: %s", path, strerror(errno));
    code = check_secret_file(fd, path, error);
    while (code == EP_OK && length < SECRET_BYTES_MAX) {
        ssize_t got = read(fd, text + length, SECRET_BYTES_MAX - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            code = base_error_set(error, EP_EACCESS, "%s cannot be read: %s", path, strerror(errno));
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    if (code == EP_OK) {
        char *line = cut_first_line(text, length);
        if (line == NULL)
            code = base_error_set(error, EP_EACCESS, "the first line of %s holds control characters", path);
        else if (*line == '\0')
            code =
                base_error_set(error, EP_EACCESS, "the first line of %s is empty, expected the token", path);
        else if (length == SECRET_BYTES_MAX && memchr(text, '\0', SECRET_BYTES_MAX) == NULL)
            code = base_error_set(error, EP_EACCESS, "the first line of %s is longer than %d bytes", path,
                                  SECRET_BYTES_MAX - 1);
        else if ((line = strdup(line)) == NULL)
            code = base_error_set(error, EP_ENOMEM, "out of memory");
        else
            *out = line;
    }
    explicit_bzero(text, sizeof text);
    close(fd);
    return code;
}
