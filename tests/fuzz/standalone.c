/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target without libFuzzer: over files as they are, then over mutations of them. The same seed
 * gives the same mutations, so that what is found once is found again. Blind, unlike libFuzzer, but it needs
 * no clang.
 *
 *   fuzz_idefix [-n COUNT] [-s SEED] [-o FILE] FILE...
 *
 * -n: so many mutated inputs (default 0); -o: write each input there before it runs, so that it is there
 * after a crash.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INPUT_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

struct input {
    uint8_t *data;
    size_t bytes;
};

static uint64_t random_state;

/* splitmix64: any seed will do */
static uint64_t random_number(uint64_t below)
{
    uint64_t mixed = random_state += 0x9E3779B97F4A7C15U;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9U;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBU;
    return (mixed ^ mixed >> 31) % below;
}

static bool read_input(const char *path, struct input *input)
{
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(INPUT_MAX);

    if (file == NULL || data == NULL) {
        perror(path);
        free(data);
        if (file != NULL)
            fclose(file);
        return false;
    }
    input->bytes = fread(data, 1, INPUT_MAX, file);
    input->data = data;
    fclose(file);
    return true;
}

/* In memory of its own, exactly as large as it is, so that a sanitizer sees a read behind its end. */
static void run(const uint8_t *data, size_t bytes, const char *copy)
{
    uint8_t *exact = malloc(bytes > 0 ? bytes : 1);

    if (exact == NULL)
        abort();
    memcpy(exact, data, bytes);
    if (copy != NULL) {
        FILE *file = fopen(copy, "wb");
        if (file != NULL) {
            fwrite(exact, 1, bytes, file);
            fclose(file);
        }
    }
    LLVMFuzzerTestOneInput(exact, bytes);
    free(exact);
}

/* Takes out, doubles or copies in a stretch of bytes, of this input or another; or changes one. */
static size_t mutate(uint8_t *data, size_t bytes, const struct input *other)
{
    static const uint8_t telling[] = {0x00, 0x7F, 0x80, 0xFF, 0xC0, 0xC1, 0xC4, 0xC7, 0xD3,
                                      0xD6, 0xD9, 0xDC, 0xDD, 0xDE, 0xDF, 0x90, 0x9F, 0xA3,
                                      '"',  '\\', '{',  '}',  '[',  ']',  ',',  ':'};
    size_t at = bytes > 0 ? random_number(bytes) : 0, count = 1 + random_number(16);

    switch (random_number(6)) {
    case 0:
        if (bytes > 0)
            data[at] ^= (uint8_t)(1U << random_number(8));
        return bytes;
    case 1:
        if (bytes > 0)
            data[at] = telling[random_number(sizeof telling)];
        return bytes;
    case 2:
        if (bytes > 0)
            data[at] = (uint8_t)(data[at] + random_number(5) - 2);
        return bytes;
    case 3:
        count = count < bytes - at ? count : bytes - at;
        memmove(data + at, data + at + count, bytes - at - count);
        return bytes - count;
    case 4:
        count = count < bytes - at ? count : bytes - at;
        if (bytes + count > INPUT_MAX)
            return bytes;
        memmove(data + at + count, data + at, bytes - at);
        return bytes + count;
    default:
        if (other->bytes > 0) {
            size_t from = random_number(other->bytes), room = bytes - at;
            count = random_number(64) + 1;
            count = count < other->bytes - from ? count : other->bytes - from;
            memcpy(data + at, other->data + from, count < room ? count : room);
        }
        return bytes;
    }
}

static void run_mutations(const struct input *inputs, size_t input_count, uint64_t count, const char *copy)
{
    static uint8_t data[INPUT_MAX];

    for (uint64_t i = 0; i < count; i++) {
        const struct input *input = &inputs[random_number(input_count)];
        size_t bytes = input->bytes;
        memcpy(data, input->data, bytes);
        for (uint64_t steps = 1 + random_number(8); steps > 0; steps--)
            bytes = mutate(data, bytes, &inputs[random_number(input_count)]);
        run(data, bytes, copy);
    }
}

int main(int argc, char **argv)
{
    const char *copy = NULL;
    uint64_t count = 0;
    size_t input_count = 0;
    int option;

    while ((option = getopt(argc, argv, "n:s:o:")) != -1) {
        if (option == 'n')
            count = strtoull(optarg, NULL, 10);
        else if (option == 's')
            random_state = strtoull(optarg, NULL, 10);
        else if (option == 'o')
            copy = optarg;
        else
            return 64;
    }
    struct input *inputs = calloc((size_t)(argc - optind) + 1, sizeof *inputs);
    if (inputs == NULL)
        return EXIT_FAILURE;
    bool good = true;
    for (; good && optind < argc; optind++) {
        good = read_input(argv[optind], &inputs[input_count]);
        if (good) {
            run(inputs[input_count].data, inputs[input_count].bytes, copy);
            input_count++;
        }
    }
    if (good && input_count > 0)
        run_mutations(inputs, input_count, count, copy);
    for (size_t i = 0; i < input_count; i++)
        free(inputs[i].data);
    free(inputs);
    if (!good || input_count == 0)
        return EXIT_FAILURE;
    count += input_count;
    printf("%llu executions\n", (unsigned long long)count);
    return EXIT_SUCCESS;
}
