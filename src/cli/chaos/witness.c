/* SPDX-License-Identifier: MIT */
/*
 * The witness of a trial: a stage after the user's last. Writes down the uid of each event that came so far,
 * then answers processed: so what it has written down was seen, and what was committed is written down. Run
 * as a co-process of the trial's daemon, by eventpipe itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/cli/chaos/chaos.h"

/* One write each, appended whole: a kill leaves no half line. */
static bool note(int fd, const char *line, size_t bytes)
{
    struct json_span uid;
    char *text = NULL, words[512];
    if (json_valid(line, bytes, NULL) && json_find((struct json_span){line, bytes}, "/event/uid", &uid))
        text = json_text(uid);
    int length = text != NULL ? snprintf(words, sizeof words, "%s\n", text) : -1;
    free(text);
    return length > 0 && (size_t)length < sizeof words && write(fd, words, (size_t)length) == length;
}

int chaos_witness(const char *path)
{
    static const char answer[] = "{\"processed\":true}\n";
    char *line = NULL;
    size_t room = 0;
    ssize_t bytes;
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    bool good = fd >= 0;
    while (good && (bytes = getline(&line, &room, stdin)) > 0)
        good = note(fd, line, (size_t)bytes) &&
               write(STDOUT_FILENO, answer, sizeof answer - 1) == (ssize_t)sizeof answer - 1;
    if (!good)
        fprintf(stderr, "the witness cannot write %s: %s\n", path, strerror(errno));
    free(line);
    return good ? CONTROL_DONE : CONTROL_NO;
}
