/* td_render_sample.h - a mail to render, and what a reader must find in it. */
#ifndef TESTS_TD_RENDER_SAMPLE_H
#define TESTS_TD_RENDER_SAMPLE_H

#include <stddef.h>

enum { SAMPLE_FIELDS = 8, SAMPLE_FILES = 6 };

struct sample_file {
    const char *filename, *content_type;
    const char *content_id; /* NULL: an attachment */
    const char *data;
    size_t len;
};

struct sample {
    const char *name;
    const char *subject, *text, *html; /* templates; NULL: none */
    const char *from_name, *to_name, *to_address;
    const char *field[SAMPLE_FIELDS][2];
    struct sample_file file[SAMPLE_FILES];
    const char *header[2]; /* one extra field, name and value */
};

extern const struct sample samples[];
extern const size_t sample_count;

/** Render it to DIRECTORY/<name>.eml and add a line to expected.jsonl. Ends the program on failure. */
void sample_write(const struct sample *sample);

#endif /* TESTS_TD_RENDER_SAMPLE_H */
