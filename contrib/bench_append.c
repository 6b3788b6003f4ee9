/* SPDX-License-Identifier: MIT */
/*
 * What the disk itself does: appends 4 KiB to a file and calls fdatasync, again and again. Or, with --pace,
 * so often a second as many of these as are asked for, one after the other.
 *
 *   bench-append --file PATH [--count N] [--pace PER_SECOND --each N]
 *
 * Prints one JSON line: events, seconds, per_s, and with --pace latency_us, a number for each group. The file
 * must not be there yet, and stays.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contrib/bench_tool.h"

#define PIECE_BYTES 4096

static void append(int fd, uint64_t times)
{
    static const char piece[PIECE_BYTES] = {1};
    for (uint64_t i = 0; i < times; i++)
        if (write(fd, piece, sizeof piece) != (ssize_t)sizeof piece || fdatasync(fd) != 0)
            bench_give_up("append", strerror(errno));
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"file", required_argument, NULL, 'f'},
                                            {"count", required_argument, NULL, 'n'},
                                            {"pace", required_argument, NULL, 'p'},
                                            {"each", required_argument, NULL, 'e'},
                                            {0}};
    const char *path = NULL;
    uint64_t count = 2000, pace = 0, each = 1;
    int option;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'f')
            path = optarg;
        else if (option == 'n')
            count = bench_number(optarg, 1, 100000000);
        else if (option == 'p')
            pace = bench_number(optarg, 1, 1000000);
        else if (option == 'e')
            each = bench_number(optarg, 1, 1000);
        else
            return 2;
    }
    if (path == NULL || optind < argc) {
        fprintf(stderr, "usage: bench-append --file PATH [--count N] [--pace PER_SECOND --each N]\n");
        return 2;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    uint64_t *latencies = calloc(count, sizeof *latencies);
    if (fd < 0 || latencies == NULL)
        bench_give_up(path, strerror(errno));
    uint64_t begin = bench_now_ns();
    for (uint64_t i = 0; i < count; i++) {
        uint64_t arrival =
            pace > 0 ? bench_arrival(begin + (i + 1) * BENCH_SECOND_NS / pace) : bench_now_ns();
        append(fd, each);
        latencies[i] = bench_now_ns() - arrival;
    }
    double seconds = (double)(bench_now_ns() - begin) / 1e9;
    close(fd);
    printf("{\"events\":%" PRIu64 ",\"seconds\":%.6f,\"per_s\":%.2f", count, seconds,
           (double)count / seconds);
    if (pace > 0) {
        printf(",");
        bench_print_us("latency_us", latencies, count);
    }
    puts("}");
    free(latencies);
    return 0;
}
