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

/* Checks that an opened secret file is a regular file of this user or root, and that only its owner can
 * use it. Returns EP_OK, or EP_EACCESS with a message that says how to correct it. base_secret_read
 * calls it, in the supervisor, the command line and the library caller's process. */
static int check_secret_file(int fd, const char *path, struct error *error)
{
    struct stat file_status;
    if (fstat(fd, &file_status) != 0)
        return base_error_set(error, EP_EACCESS, "%s cannot be examined: %s", path, strerror(errno));
    if (!S_ISREG(file_status.st_mode))
        return base_error_set(error, EP_EACCESS, "%s is not a regular file", path);
    if (file_status.st_uid != geteuid() && file_status.st_uid != 0)
        return base_error_set(error, EP_EACCESS,
                              "%s belongs to user %u, expected user %u (who runs this) or root: chown it",
                              path, (unsigned)file_status.st_uid, (unsigned)geteuid());
    if ((file_status.st_mode & 077) != 0)
        return base_error_set(
            error, EP_EACCESS,
            "%s has mode %04o, so that others than its owner can use it, expected 0600 or 0400: "
            "run `chmod 600 %s`",
            path, (unsigned)(file_status.st_mode & 07777), path);
    return EP_OK;
}

/* Reduces the text of a secret file to its first line, without white space around it. Returns where the
 * secret begins in `text`, or NULL if it contains control characters, which no HTTP header or Idefix
 * packet can carry. base_secret_read calls it. */
static char *cut_first_line(char *text, size_t text_bytes)
{
    size_t line_end = 0;
    while (line_end < text_bytes && text[line_end] != '\n')
        line_end++;
    while (line_end > 0 && strchr(" \t\r", text[line_end - 1]) != NULL && text[line_end - 1] != '\0')
        line_end--;
    text[line_end] = '\0';
    char *line_begin = text + strspn(text, " \t");
    for (const char *character = line_begin; character < text + line_end; character++)
        if ((unsigned char)*character < 0x20 || *character == 0x7f)
            return NULL;
    return line_begin;
}

/* Reads a secret (a token) from the first line of a file that only its owner can use. The supervisor
 * and the command line call it for `token_file` of the configuration file, the library for an Idefix
 * client. Returns EP_OK and *out, which the caller wipes and frees, or an error that contains no part
 * of the secret. */
int base_secret_read(const char *path, char **out, struct error *error)
{
    char text[SECRET_BYTES_MAX + 1];
    size_t text_bytes = 0;
    int code = EP_OK;
    /* non-blocking: opening a FIFO would wait for its writer; check_secret_file refuses it instead */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return base_error_set(error, EP_EACCESS, "%s cannot be opened: %s", path, strerror(errno));
    code = check_secret_file(fd, path, error);
    while (code == EP_OK && text_bytes < SECRET_BYTES_MAX) {
        ssize_t read_bytes = read(fd, text + text_bytes, SECRET_BYTES_MAX - text_bytes);
        if (read_bytes < 0 && errno == EINTR)
            continue;
        if (read_bytes < 0)
            code = base_error_set(error, EP_EACCESS, "%s cannot be read: %s", path, strerror(errno));
        if (read_bytes <= 0)
            break;
        text_bytes += (size_t)read_bytes;
    }
    if (code == EP_OK) {
        char *line = cut_first_line(text, text_bytes);
        if (line == NULL)
            code = base_error_set(error, EP_EACCESS, "the first line of %s holds control characters", path);
        else if (*line == '\0')
            code =
                base_error_set(error, EP_EACCESS, "the first line of %s is empty, expected the token", path);
        else if (text_bytes == SECRET_BYTES_MAX && memchr(text, '\0', SECRET_BYTES_MAX) == NULL)
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
