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

/* Returns 0 if the path of a stage's program is a file that this user may execute, otherwise an errno.
 * Runs in `eventpiped -t`, `eventpipe check` and `eventpipe chaos`, before any process starts. */
static int check_executable(const char *path)
{
    struct stat file_status;
    if (stat(path, &file_status) != 0)
        return errno;
    if (S_ISDIR(file_status.st_mode))
        return EISDIR;
    return access(path, X_OK) == 0 ? 0 : errno;
}

/* Returns the PATH in which execvp will search for the stage's program: the stage's own if its environment
 * sets one, otherwise this process's. Runs in `eventpiped -t`, `eventpipe check` and `eventpipe chaos`,
 * before any process starts. */
static const char *get_search_path(const struct stage_config *config)
{
    const char *path = getenv("PATH");
    for (size_t i = 0; i < config->environment.count; i++)
        if (strncmp(config->environment.at[i], "PATH=", 5) == 0)
            path = config->environment.at[i] + 5;
    return path != NULL ? path : "/bin:/usr/bin";
}

/* Checks whether one folder of PATH has the stage's program; a relative folder is taken from the stage's
 * directory. Returns 0 or an errno. Runs in `eventpiped -t`, `eventpipe check` and `eventpipe chaos`,
 * before any process starts. */
static int check_program_in_folder(const struct stage_config *config, const char *folder, size_t folder_bytes,
                                   const char *program)
{
    char path[4096];
    bool is_absolute = folder_bytes > 0 ? folder[0] == '/' : program[0] == '/';
    const char *base_directory = is_absolute || config->directory == NULL ? "" : config->directory;
    int length =
        snprintf(path, sizeof path, "%s%s%.*s%s%s", base_directory, base_directory[0] != '\0' ? "/" : "",
                 (int)folder_bytes, folder, folder_bytes > 0 ? "/" : "", program);
    return length < 0 || (size_t)length >= sizeof path ? ENAMETOOLONG : check_executable(path);
}

/* Searches for the stage's program in the way execvp will. Returns 0 if it is found, or an errno: EACCES
 * if a file was found that may not be executed. Runs in `eventpiped -t`, `eventpipe check` and `eventpipe
 * chaos`, before any process starts. */
static int check_program_in_path(const struct stage_config *config)
{
    const char *program = config->exec.at[0];
    int found_errno = ENOENT;

    if (strchr(program, '/') != NULL)
        return check_program_in_folder(config, "", 0, program);
    for (const char *path = get_search_path(config);; path++) {
        size_t length = strcspn(path, ":");
        int code = check_program_in_folder(config, path, length, program);
        if (code == 0)
            return 0;
        if (code == EACCES)
            found_errno = EACCES;
        path += length;
        if (*path == '\0')
            return found_errno;
    }
}

/* Checks the stage's directory and program without starting it. Returns 0 or an error code with a
 * message. `eventpiped -t`, `eventpipe check` and `eventpipe chaos` call it, so that a wrong path is
 * reported before any process starts. */
int stage_exec_check(const struct stage_config *config, struct error *error)
{
    struct stat file_status;

    if (config->exec.count == 0 || config->exec.at[0][0] == '\0')
        return base_error_set(error, EP_EINVAL, "no program is given: set `exec`");
    if (config->directory != NULL) {
        int code = stat(config->directory, &file_status) != 0 ? errno
                   : S_ISDIR(file_status.st_mode)             ? 0
                                                              : ENOTDIR;
        if (code != 0)
            return base_error_set(error, EP_ESYSTEM, "cannot run %s: directory %s: %s", config->exec.at[0],
                                  config->directory, strerror(code));
    }
    int code = check_program_in_path(config);
    if (code != 0)
        return base_error_set(error, code == ENOENT ? EP_ENOENT : EP_ESYSTEM, "cannot run %s: %s",
                              config->exec.at[0], strerror(code));
    return 0;
}
