/* SPDX-License-Identifier: MIT */
/*
 * One measurement of the pipeline: a source and a chain of stages, run through the library as a user's
 * program would, until all events that this run adds are stored, and as many are through.
 *
 *   bench-pipeline --store URL [OPTION...] [-- PROGRAM ARGUMENT...]
 *     --events N       to be carried, 50000        --already N    stand in the store before (bench-fill)
 *     --payload BYTES  of each, 220                --normal       synchronous=NORMAL
 *     --stages N       3                           --workers N    a stage, 1
 *     --sleep MS       of each stage               --page N       events of one fetch, 500
 *     --input N        events that may wait before a stage
 *     --batch N        that a worker takes and commits at a time, at most
 *     --pace N         one event at a time, so many a second; the latency of each is noted
 *     --refuse-tenth   every tenth event is not processed at first
 *     PROGRAM          is every stage; otherwise C functions are
 *
 * Prints one JSON line: events; seconds from the start to the commit that ended the last of them, per_s from
 * that; start_ms, from the start to the first commit that ended one; steady_per_s, between a tenth and nine
 * tenths; wall_s, with the orderly end; with --pace latency_us, a number an event, from arrival in the
 * producer to the return of the commit that ended it. With --refuse-tenth only the other events count.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "contrib/bench_parts.h"
#include "contrib/bench_tool.h"

struct setting {
    const char *store;
    uint64_t events, already, payload, stages, workers, sleep_ms, page, input, batch, pace;
    bool normal, refuse_tenth;
    const char *const *program;
};

static ep_manager *running;

static void all_through(int number)
{
    (void)number;
    ep_manager_stop(running);
}

static void add_source(ep_manager *manager, const struct setting *setting, struct bench_pace *pace,
                       ep_source **out)
{
    struct ep_source_params params = {.id = BENCH_SOURCE, .page_size = (uint32_t)setting->page};
    if (setting->pace > 0) {
        params.client = &bench_paced_client;
        params.client_user = pace;
    } else {
        params.type = "generate";
        params.generate_count = setting->already + setting->events;
        params.generate_bytes = setting->payload;
    }
    if (ep_source_add(manager, &params, out) != EP_OK)
        bench_give_up("source", ep_errmsg(manager));
}

static void push_stages(ep_manager *manager, ep_source *source, const struct setting *setting,
                        struct bench_work *work)
{
    static struct ep_stage stages[BENCH_STAGES_MAX];
    for (unsigned i = 0; i < setting->stages; i++) {
        struct ep_stage_options options = EP_STAGE_OPTIONS_INIT;
        options.name = bench_stage_name(i);
        options.concurrency = (uint32_t)setting->workers;
        options.input_buffer = (uint32_t)setting->input;
        options.batch = (uint32_t)setting->batch;
        options.user = work;
        stages[i] = (struct ep_stage){.abi = EP_STAGE_ABI, .name = options.name, .process = bench_no_op};
        if (setting->sleep_ms > 0)
            stages[i].process = bench_sleep;
        if (setting->refuse_tenth && i == 0)
            stages[i].process = bench_refuse_tenth;
        int code = setting->program != NULL ? ep_source_push_exec(source, setting->program, &options)
                                            : ep_source_push(source, &stages[i], &options);
        if (code != EP_OK)
            bench_give_up(options.name, ep_errmsg(manager));
    }
}

static double since(uint64_t begin_ns, uint64_t end_ns)
{
    return (double)(end_ns - begin_ns) / 1e9;
}

static void report(const struct setting *setting, struct bench_stamps *stamps, uint64_t begin_ns,
                   uint64_t end_ns)
{
    uint64_t awaited = setting->refuse_tenth ? setting->events - setting->events / 10 : setting->events;
    double seconds = since(begin_ns, stamps->all_ns), steady_s = since(stamps->early_ns, stamps->late_ns);
    uint64_t steady = stamps->late_count - stamps->early_count;
    printf("{\"events\":%" PRIu64 ",\"seconds\":%.6f,\"per_s\":%.2f,\"start_ms\":%.3f,\"steady_per_s\":%.2f,"
           "\"wall_s\":%.6f,\"completed\":%" PRIu64,
           awaited, seconds, (double)awaited / seconds, since(begin_ns, stamps->first_ns) * 1e3,
           steady > 0 ? (double)steady / steady_s : 0, since(begin_ns, end_ns), stamps->completed);
    if (setting->pace > 0) {
        for (uint64_t i = 0; i < setting->events; i++)
            stamps->finish_ns[i] -= stamps->arrival_ns[i];
        printf(",");
        bench_print_us("latency_us", stamps->finish_ns, setting->events);
    }
    puts("}");
}

static void measure(const struct setting *setting)
{
    struct bench_stamps *stamps = bench_stamps_new(setting->already, setting->events, setting->pace > 0);
    if (stamps == NULL)
        bench_give_up("stamps", "out of memory");
    stamps->refuse_tenth = setting->refuse_tenth;
    stamps->whom = getpid();
    struct bench_work work = {.stamps = stamps, .sleep_ns = setting->sleep_ms * 1000000};
    struct bench_pace pace = {.stamps = stamps,
                              .per_second = setting->pace,
                              .payload_bytes = setting->payload};
    char instance[32];
    snprintf(instance, sizeof instance, "bench-%d", (int)getpid());
    const struct ep_manager_params params = {.instance = instance,
                                             .storage = setting->store,
                                             .durability =
                                                 setting->normal ? EP_DURABILITY_NORMAL : EP_DURABILITY_FULL};
    ep_source *source;
    if (ep_manager_open(&params, &running) != EP_OK)
        bench_give_up(setting->store, "expected sqlite:PATH or memory:");
    add_source(running, setting, &pace, &source);
    push_stages(running, source, setting, &work);
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = all_through, .sa_flags = SA_RESTART}, NULL);
    uint64_t begin_ns = bench_now_ns();
    if (ep_source_run(source) != EP_OK)
        bench_give_up("pipeline", ep_errmsg(running));
    uint64_t end_ns = bench_now_ns();
    signal(SIGUSR1, SIG_IGN);
    ep_manager_close(&running);
    if (stamps->all_ns == 0)
        bench_give_up("pipeline", "it ended before all events were through");
    report(setting, stamps, begin_ns, end_ns);
}

static void read_option(struct setting *setting, int option)
{
    switch (option) {
    case 'd':
        setting->store = optarg;
        break;
    case 'n':
        setting->events = bench_number(optarg, 10, 1000000000);
        break;
    case 'a':
        setting->already = bench_number(optarg, 0, 1000000000);
        break;
    case 's':
        setting->payload = bench_number(optarg, 2, 64 << 20);
        break;
    case 'k':
        setting->stages = bench_number(optarg, 1, BENCH_STAGES_MAX);
        break;
    case 'w':
        setting->workers = bench_number(optarg, 1, 1000);
        break;
    case 'z':
        setting->sleep_ms = bench_number(optarg, 1, 60000);
        break;
    case 'g':
        setting->page = bench_number(optarg, 1, 10000);
        break;
    case 'i':
        setting->input = bench_number(optarg, 1, 100000);
        break;
    case 'b':
        setting->batch = bench_number(optarg, 1, 10000);
        break;
    case 'p':
        setting->pace = bench_number(optarg, 1, 100000);
        break;
    case 'N':
        setting->normal = true;
        break;
    case 'r':
        setting->refuse_tenth = true;
        break;
    default:
        exit(2);
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"store", required_argument, NULL, 'd'},   {"events", required_argument, NULL, 'n'},
        {"already", required_argument, NULL, 'a'}, {"payload", required_argument, NULL, 's'},
        {"stages", required_argument, NULL, 'k'},  {"workers", required_argument, NULL, 'w'},
        {"sleep", required_argument, NULL, 'z'},   {"page", required_argument, NULL, 'g'},
        {"input", required_argument, NULL, 'i'},   {"batch", required_argument, NULL, 'b'},
        {"pace", required_argument, NULL, 'p'},    {"refuse-tenth", no_argument, NULL, 'r'},
        {"normal", no_argument, NULL, 'N'},        {0}};
    struct setting setting = {.events = 50000, .payload = 220, .stages = 3, .workers = 1, .page = 500};
    int option;
    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1)
        read_option(&setting, option);
    if (optind < argc)
        setting.program = (const char *const *)argv + optind;
    if (setting.store == NULL) {
        fprintf(stderr, "usage: bench-pipeline --store URL [OPTION...] [-- PROGRAM ARGUMENT...]\n");
        return 2;
    }
    measure(&setting);
    return 0;
}
