/* SPDX-License-Identifier: MIT */
/*
 * Checks the program of an exec stage before anything is started, for `eventpiped -t`. Any process;
 * starts nothing and owns nothing. It searches as execvp will, with the stage's own directory and PATH. A
 * missing interpreter, or a program for another machine, is found only when the stage starts.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/stage/exec_process.h"

/* Exec stage check: returns 0 if the path is a file that may be executed, otherwise an errno. Runs in
 * `eventpiped -t`, `eventpipe check` and `eventpipe chaos`. */
static int check_executable(const char *path)
{
    struct stat stat_;
    if (stat(path, &stat_) != 0)
        return errno;
    if (S_ISDIR(stat_.st_mode))
        return EISDIR;
    return access(path, X_OK) == 0 ? 0 : errno;
}

/* Exec stage check: returns the PATH that execvp will use: the stage's own, else this process's. Runs in
 * `eventpiped -t`, `eventpipe check` and `eventpipe chaos`. */
static const char *search_path(const struct stage_config *config)
{
    const char *path = getenv("PATH");
    for (size_t i = 0; i < config->environment.count; i++)
        if (strncmp(config->environment.at[i], "PATH=", 5) == 0)
            path = config->environment.at[i] + 5;
    return path != NULL ? path : "/bin:/usr/bin";
}

/* Exec stage check: checks the program in one folder of PATH; a relative path begins at the stage's
 * directory. Runs in `eventpiped -t`, `eventpipe check` and `eventpipe chaos`. */
static int check_in_folder(const struct stage_config *config, const char *folder, size_t folder_bytes,
                           const char *program)
{
    char path[4096];
    bool absolute = folder_bytes > 0 ? folder[0] == '/' : program[0] == '/';
    const char *base = absolute || config->directory == NULL ? "" : config->directory;
    int length = snprintf(path, sizeof path, "%s%s%.*s%s%s", base, base[0] != '\0' ? "/" : "",
                          (int)folder_bytes, folder, folder_bytes > 0 ? "/" : "", program);
    return length < 0 || (size_t)length >= sizeof path ? ENAMETOOLONG : check_executable(path);
}

/* Exec stage check: searches the stage's program as execvp will. Returns 0 or an errno, EACCES if a file
 * was found that may not be executed. Runs in `eventpiped -t`, `eventpipe check` and `eventpipe chaos`. */
static int find_program(const struct stage_config *config)
{
    const char *program = config->exec.at[0];
    int worst = ENOENT;

    if (strchr(program, '/') != NULL)
        return check_in_folder(config, "", 0, program);
    for (const char *path = search_path(config);; path++) {
        size_t length = strcspn(path, ":");
        int code = check_in_folder(config, path, length, program);
        if (code == 0)
            return 0;
        if (code == EACCES)
            worst = EACCES;
        path += length;
        if (*path == '\0')
            return worst;
    }
}

/* Exec stage check: checks the stage's directory and program before any process starts, so that
 * `eventpiped -t`, `eventpipe check` and `eventpipe chaos` report a wrong path. */
int stage_exec_check(const struct stage_config *config, struct error *error)
{
    struct stat stat_;

    if (config->exec.count == 0 || config->exec.at[0][0] == '\0')
        return base_error_set(error, EP_EINVAL, "exec: no program is given");
    if (config->directory != NULL) {
        int code = stat(config->directory, &stat_) != 0 ? errno : S_ISDIR(stat_.st_mode) ? 0 : ENOTDIR;
        if (code != 0)
            return base_error_set(error, EP_ESYSTEM, "cannot run %s: directory %s: %s", config->exec.at[0],
                                  config->directory, strerror(code));
    }
    int code = find_program(config);
    if (code != 0)
        return base_error_set(error, code == ENOENT ? EP_ENOENT : EP_ESYSTEM, "cannot run %s: %s",
                              config->exec.at[0], strerror(code));
    return 0;
}
