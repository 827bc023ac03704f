#include "recipients.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/evp.h>

#include "template_compile.h"

struct recipients {
    FILE *file;
    struct csv *csv;
    EVP_MD_CTX *hash;
    char **name; /* of each column; NULL for the address and the name, which are no fields */
    size_t columns, fields;
    size_t address, display; /* display: the column of the name, or columns when there is none */
};

static ssize_t read_bytes(void *user, char *buf, size_t size)
{
    struct recipients *recipients = user;
    size_t got = fread(buf, 1, size, recipients->file);

    if (got == 0 && ferror(recipients->file))
        return -1;
    return EVP_DigestUpdate(recipients->hash, buf, got) == 1 ? (ssize_t)got : -1;
}

static void forget_header(struct recipients *recipients)
{
    for (size_t i = 0; i < recipients->columns; i++)
        free(recipients->name[i]);
    free(recipients->name);
    recipients->name = NULL;
    recipients->columns = recipients->fields = 0;
}

void recipients_close(struct recipients *recipients)
{
    if (!recipients)
        return;
    forget_header(recipients);
    csv_free(recipients->csv);
    EVP_MD_CTX_free(recipients->hash);
    if (recipients->file)
        fclose(recipients->file);
    free(recipients);
}

static FILE *spool_stdin(void)
{
    FILE *file = tmpfile();
    char chunk[65536];
    size_t got;

    while (file && (got = fread(chunk, 1, sizeof(chunk), stdin)) > 0)
        if (fwrite(chunk, 1, got, file) != got) {
            fclose(file);
            return NULL;
        }
    return file;
}

/* "First Name " becomes First_Name: what people have in their tables, as a template can name it. */
static char *field_name(const char *text)
{
    size_t len;
    char *name;

    text += strspn(text, " ");
    len = strlen(text);
    while (len > 0 && text[len - 1] == ' ')
        len--;
    name = strndup(text, len);
    for (char *at = name; at && *at; at++)
        if (*at == ' ')
            *at = '_';
    return name;
}

static bool is_address(const char *name)
{
    static const char *const names[] = {"email", "e-mail", "address", "email_address", "e-mail_address"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

static int check_column(struct recipients *recipients, size_t i, struct td_err *reterr)
{
    char *name = recipients->name[i];

    if (!name)
        return td_fail(reterr, TD_ENOMEM, "no memory for the header line");
    if (!template_field_name_valid(name, strlen(name)))
        return td_fail(reterr, TD_EINVAL,
                       "line 1, column %zu: a name has 1 to 64 of A-Z a-z 0-9 _ . and - (blanks become _)", i + 1);
    for (size_t k = 0; k < i; k++)
        if (recipients->name[k] && strcmp(recipients->name[k], name) == 0)
            return td_fail(reterr, TD_EINVAL, "line 1, column %zu: column %zu has the same name", i + 1, k + 1);
    if (recipients->address == recipients->columns && is_address(name))
        recipients->address = i;
    else if (recipients->display == recipients->columns && strcasecmp(name, "name") == 0)
        recipients->display = i;
    else
        recipients->fields++;
    return TD_OK;
}

static int read_header(struct recipients *recipients, struct td_err *reterr)
{
    struct csv_row row;
    int rc = csv_next(recipients->csv, &row, reterr);

    if (rc < 0)
        return rc;
    if (rc == 0)
        return td_fail(reterr, TD_EINVAL, "the recipients file is empty");
    forget_header(recipients);
    recipients->name = calloc(row.count, sizeof(*recipients->name));
    if (!recipients->name)
        return td_fail(reterr, TD_ENOMEM, "no memory for the header line");
    recipients->columns = recipients->address = recipients->display = row.count;
    rc = TD_OK;
    for (size_t i = 0; i < row.count && rc == TD_OK; i++) {
        recipients->name[i] = field_name(row.field[i]);
        rc = check_column(recipients, i, reterr);
    }
    if (rc == TD_OK && recipients->address == recipients->columns)
        rc = td_fail(reterr, TD_EINVAL, "line 1: no column is named email (the first line names the columns)");
    return rc;
}

int recipients_rewind(struct recipients *recipients, struct td_err *reterr)
{
    rewind(recipients->file);
    csv_free(recipients->csv);
    recipients->csv = csv_new(read_bytes, recipients);
    if (!recipients->csv || EVP_DigestInit_ex(recipients->hash, EVP_sha256(), NULL) != 1)
        return td_fail(reterr, TD_ENOMEM, "no memory for the recipients file");
    return read_header(recipients, reterr);
}

int recipients_open(const char *path, struct recipients **ret, struct td_err *reterr)
{
    struct recipients *recipients = calloc(1, sizeof(*recipients));
    int rc;

    if (!recipients)
        return td_fail(reterr, TD_ENOMEM, "no memory for the recipients file");
    recipients->hash = EVP_MD_CTX_new();
    recipients->file = strcmp(path, "-") == 0 ? spool_stdin() : fopen(path, "re");
    if (!recipients->file)
        rc = td_fail(reterr, TD_EINVAL, "recipients file: %s", strerror(errno));
    else if (!recipients->hash)
        rc = td_fail(reterr, TD_ENOMEM, "no memory for the recipients file");
    else
        rc = recipients_rewind(recipients, reterr);
    if (rc < 0) {
        recipients_close(recipients);
        return rc;
    }
    *ret = recipients;
    return TD_OK;
}

static Tandem__Mail__V1__Recipient *make(const struct recipients *recipients, const struct csv_row *row,
                                         struct td_arena *arena)
{
    Tandem__Mail__V1__Recipient *made = td_arena_alloc(arena, sizeof(*made));
    Tandem__Mail__V1__Recipient__FieldsEntry *entry =
        td_arena_alloc(arena, (recipients->fields + 1) * sizeof(*entry));

    if (!made || !entry)
        return NULL;
    tandem__mail__v1__recipient__init(made);
    made->fields = td_arena_alloc(arena, (recipients->fields + 1) * sizeof(*made->fields));
    if (!made->fields)
        return NULL;
    for (size_t i = 0; i < row->count; i++) {
        char *value = td_arena_strdup(arena, row->field[i]);

        if (!value)
            return NULL;
        if (i == recipients->address) {
            made->address = value;
        } else if (i == recipients->display) {
            made->name = value;
        } else {
            tandem__mail__v1__recipient__fields_entry__init(&entry[made->n_fields]);
            entry[made->n_fields].key = recipients->name[i];
            entry[made->n_fields].value = value;
            made->fields[made->n_fields] = &entry[made->n_fields];
            made->n_fields++;
        }
    }
    return made;
}

int recipients_next(struct recipients *recipients, struct td_arena *arena, Tandem__Mail__V1__Recipient **ret,
                    size_t *ret_line, struct td_err *reterr)
{
    struct csv_row row;
    int rc = csv_next(recipients->csv, &row, reterr);

    if (rc <= 0)
        return rc;
    if (row.count != recipients->columns)
        return td_fail(reterr, TD_EINVAL, "line %zu: %zu fields, where the first line has %zu", row.line,
                       row.count, recipients->columns);
    *ret = make(recipients, &row, arena);
    *ret_line = row.line;
    return *ret ? 1 : td_fail(reterr, TD_ETOOBIG, "line %zu: the row is too large", row.line);
}

void recipients_sha256(struct recipients *recipients, uint8_t out[32])
{
    EVP_MD_CTX *copy = EVP_MD_CTX_new();

    memset(out, 0, 32);
    if (copy && EVP_MD_CTX_copy_ex(copy, recipients->hash) == 1)
        EVP_DigestFinal_ex(copy, out, NULL);
    EVP_MD_CTX_free(copy);
}
