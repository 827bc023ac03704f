/* A fuzz target without a fuzzer: every file of a corpus, then seeded mutations of them, the same on every
 * machine. Usage: fuzz_<name> CORPUS-DIRECTORY MUTATIONS INPUT-FILE Before each call the input is written to
 * INPUT-FILE, so that a crash leaves what caused it; else it is removed. */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "tandem/rng.h"

enum { SEEDS_MAX = 500, INPUT_MAX = 1 << 16, CHANGES_MAX = 6 };

struct input {
    uint8_t *data;
    size_t size;
};

static struct input seeds[SEEDS_MAX];
static size_t seed_count;
static int last_input = -1;

static void run(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size ? size : 1); /* so that the sanitizer sees a read past the end */

    PROMISE(exact);
    if (size > 0)
        memcpy(exact, data, size);
    PROMISE(pwrite(last_input, data, size, 0) == (ssize_t)size && ftruncate(last_input, (off_t)size) == 0);
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

/* By name: the order in a directory differs between machines. */
static int load_seeds(const char *directory)
{
    struct dirent **entries;
    int count = scandir(directory, &entries, NULL, alphasort);

    for (int i = 0; i < count; i++) {
        char path[4096];
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
        file = entries[i]->d_name[0] == '.' || seed_count == SEEDS_MAX ? NULL : fopen(path, "rb");
        if (file) {
            struct input *seed = &seeds[seed_count++];

            seed->data = malloc(INPUT_MAX);
            PROMISE(seed->data);
            seed->size = fread(seed->data, 1, INPUT_MAX, file);
            fclose(file);
        }
        free(entries[i]);
    }
    if (count >= 0)
        free(entries);
    return seed_count > 0 ? 0 : -1;
}

static uint8_t interesting_byte(struct td_rng *rng)
{
    static const uint8_t byte[] = {0,   1,   '\t', '\n', '\r', ' ', '"',  '%',  '.',  '<',
                                   '=', '>', '@',  '\\', '{',  '}', 0x7f, 0x80, 0xc3, 0xff};

    return td_rng_below(rng, 2) ? byte[td_rng_below(rng, sizeof(byte))] : (uint8_t)td_rng_next(rng);
}

/* One change; input->data has room for INPUT_MAX bytes. */
static void change(struct td_rng *rng, struct input *input)
{
    size_t at = (size_t)td_rng_below(rng, input->size + 1), n;
    const struct input *other;

    switch (td_rng_below(rng, 6)) {
    case 0: /* a bit */
        if (at < input->size)
            input->data[at] ^= (uint8_t)(1U << td_rng_below(rng, 8));
        break;
    case 1: /* a byte */
        if (at < input->size)
            input->data[at] = interesting_byte(rng);
        break;
    case 2: /* a byte more */
        if (input->size < INPUT_MAX) {
            memmove(input->data + at + 1, input->data + at, input->size - at);
            input->data[at] = interesting_byte(rng);
            input->size++;
        }
        break;
    case 3: /* some bytes less */
        n = (size_t)td_rng_below(rng, input->size - at + 1);
        n = td_rng_below(rng, 2) && n > 8 ? 8 : n;
        memmove(input->data + at, input->data + at + n, input->size - at - n);
        input->size -= n;
        break;
    case 4: /* the same bytes once more */
        n = (size_t)td_rng_below(rng, input->size - at + 1);
        if (n <= INPUT_MAX - input->size) {
            memmove(input->data + at + n, input->data + at, input->size - at);
            input->size += n;
        }
        break;
    default: /* the end of another seed */
        other = &seeds[td_rng_below(rng, seed_count)];
        n = (size_t)td_rng_below(rng, other->size + 1);
        if (at + other->size - n <= INPUT_MAX) {
            memcpy(input->data + at, other->data + n, other->size - n);
            input->size = at + other->size - n;
        }
        break;
    }
}

static void run_mutations(unsigned long count)
{
    struct input input = {malloc(INPUT_MAX), 0};
    struct td_rng rng;

    PROMISE(input.data);
    td_rng_seed(&rng, 1);
    for (unsigned long i = 0; i < count; i++) {
        const struct input *seed = &seeds[td_rng_below(&rng, seed_count)];

        memcpy(input.data, seed->data, seed->size);
        input.size = seed->size;
        for (uint64_t n = 1 + td_rng_below(&rng, CHANGES_MAX); n > 0; n--)
            change(&rng, &input);
        run(input.data, input.size);
    }
    free(input.data);
}

int main(int argc, char **argv)
{
    unsigned long mutations = argc == 4 ? strtoul(argv[2], NULL, 10) : 0;

    if (argc != 4 || load_seeds(argv[1]) < 0) {
        fprintf(stderr, "usage: %s CORPUS-DIRECTORY MUTATIONS INPUT-FILE (the directory must hold a file)\n",
                argv[0]);
        return 64;
    }
    last_input = open(argv[3], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    PROMISE(last_input >= 0);
    run(NULL, 0);
    for (size_t i = 0; i < seed_count; i++)
        run(seeds[i].data, seeds[i].size);
    run_mutations(mutations);
    unlink(argv[3]);
    close(last_input);
    printf("%zu seeds, %lu mutations\n", seed_count, mutations);
    for (size_t i = 0; i < seed_count; i++)
        free(seeds[i].data);
    return 0;
}
