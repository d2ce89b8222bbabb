/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* What members answer to probes, read with suspicion and without memory of its own: a check wants
 * to know a status, some of a body, or a few words, and nothing that is sent makes it grow. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <apr_lib.h>
#include <apr_strings.h>

#include "balancer/rp_probe.h"

#define HEAD_MAX 32768                  /* bytes of all heads together, and of trailers */

/* ---- statuses -------------------------------------------------------------------------------- */

int rp_status_set_has(const rp_status_set *set, int status)
{
    return status >= 100 && status <= 599 && (set->bits[status / 8] & 1 << status % 8) != 0;
}

/** Three digits, 100 to 599; 0: none. */
static int parse_status(const char **text)
{
    int status = 0;

    for (int i = 0; i < 3; i++) {
        if (!apr_isdigit((*text)[i]))
            return 0;
        status = status * 10 + (*text)[i] - '0';
    }
    *text += 3;
    return status >= 100 && status <= 599 ? status : 0;
}

int rp_status_set_parse(rp_status_set *set, const char *text)
{
    memset(set, 0, sizeof(*set));
    do {
        int first = parse_status(&text), last = first;

        if (*text == '-') {
            text++;
            last = parse_status(&text);
        }
        if (!first || last < first || (*text && *text != ','))
            return 0;
        for (int status = first; status <= last; status++)
            set->bits[status / 8] |= (unsigned char)(1 << status % 8);
    } while (*text++);
    return 1;
}

/* ---- HTTP/1 responses ------------------------------------------------------------------------ */

enum { STATUS_LINE, FIELDS, BODY, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILERS, COMPLETE };

static const char *status_line(rp_probe_response *response)
{
    const char *line = response->line;
    const char *digits = line + 9;

    if (strncmp(line, "HTTP/1.", 7) != 0 || !apr_isdigit(line[7]) || line[8] != ' '
        || !(response->status = parse_status(&digits)) || (*digits && *digits != ' '))
        return "the answer is not HTTP/1";
    response->is_chunked = response->has_length = 0;
    response->left = 0;
    response->state = FIELDS;
    return NULL;
}

/** The value of the field in line if it has this name, else NULL. */
static const char *value_of(const char *line, const char *name)
{
    apr_size_t len = strlen(name);

    if (strncasecmp(line, name, len) != 0 || line[len] != ':')
        return NULL;
    line += len + 1;
    return line + strspn(line, " \t");
}

static const char *head_ended(rp_probe_response *response)
{
    if (response->status < 200) {
        if (response->status == 101)
            return "the answer switches protocols";
        response->state = STATUS_LINE;
        return NULL;
    }
    response->has_head = 1;
    if (response->status == 204 || response->status == 304
        || (!response->is_chunked && response->has_length && !response->left))
        response->state = COMPLETE;
    else
        response->state = response->is_chunked ? CHUNK_SIZE : BODY;
    return NULL;
}

static const char *field_line(rp_probe_response *response)
{
    const char *value;
    char *end;

    if (!*response->line)
        return head_ended(response);
    if ((value = value_of(response->line, "Transfer-Encoding"))) {
        if (strcasecmp(value, "chunked") != 0)
            return "the answer has an unknown transfer coding";
        response->is_chunked = 1;
    }
    else if ((value = value_of(response->line, "Content-Length"))) {
        response->left = (apr_uint64_t)apr_strtoi64(value, &end, 10);
        if (!apr_isdigit(*value) || *end || response->left > APR_INT64_MAX - 1)
            return "the answer has a bad Content-Length";
        response->has_length = 1;
    }
    return NULL;
}

static const char *chunk_line(rp_probe_response *response)
{
    const char *line = response->line;
    apr_size_t digits = strspn(line, "0123456789abcdefABCDEF");

    if (!digits || digits > 15 || (line[digits] && !strchr("; \t", line[digits])))
        return "the answer has a bad chunk";
    response->left = (apr_uint64_t)apr_strtoi64(line, NULL, 16);
    response->state = response->left ? CHUNK_DATA : TRAILERS;
    return NULL;
}

static const char *line_ended(rp_probe_response *response)
{
    char *line = response->line;

    line[response->line_len] = '\0';
    if (response->line_len && line[response->line_len - 1] == '\r')
        line[response->line_len - 1] = '\0';
    response->line_len = 0;
    switch (response->state) {
    case STATUS_LINE:
        return status_line(response);
    case FIELDS:
        return field_line(response);
    case CHUNK_SIZE:
        return chunk_line(response);
    case CHUNK_END:
        response->state = CHUNK_SIZE;
        return *line ? "the answer has a bad chunk" : NULL;
    default:
        if (!*line)
            response->state = COMPLETE;
        return NULL;
    }
}

/** Of a line that is longer than the buffer only the start counts: fields that matter are short. */
static const char *read_line(rp_probe_response *response, const char **data, apr_size_t *len)
{
    const char *end = memchr(*data, '\n', *len);
    apr_size_t length = end ? (apr_size_t)(end - *data) : *len;
    apr_size_t room = sizeof(response->line) - 1 - response->line_len;
    apr_size_t keep = length < room ? length : room;

    memcpy(response->line + response->line_len, *data, keep);
    response->line_len += keep;
    response->head_len += length + 1;
    *data += length + (end != NULL);
    *len -= length + (end != NULL);
    if (response->state != CHUNK_SIZE && response->state != CHUNK_END
        && response->head_len > HEAD_MAX)
        return "the answer's head is too long";
    return end ? line_ended(response) : NULL;
}

static void read_body(rp_probe_response *response, const char **data, apr_size_t *len)
{
    int is_limited = response->state == CHUNK_DATA || response->has_length;
    apr_size_t take = is_limited && response->left < *len ? (apr_size_t)response->left : *len;
    apr_size_t room = response->body_max - response->body_len;
    apr_size_t keep = take < room ? take : room;

    if (response->body && keep) {
        memcpy(response->body + response->body_len, *data, keep);
        response->body_len += keep;
    }
    *data += take;
    *len -= take;
    if (is_limited && !(response->left -= take))
        response->state = response->state == CHUNK_DATA ? CHUNK_END : COMPLETE;
}

const char *rp_probe_response_read(rp_probe_response *response, const char *data, apr_size_t len)
{
    const char *message = NULL;

    while (len && !message && response->state != COMPLETE) {
        if (response->state == BODY || response->state == CHUNK_DATA)
            read_body(response, &data, &len);
        else
            message = read_line(response, &data, &len);
    }
    response->is_complete = response->state == COMPLETE;
    return message;
}

const char *rp_probe_response_end(rp_probe_response *response)
{
    if (response->state == BODY && !response->has_length)
        response->state = COMPLETE;
    response->is_complete = response->state == COMPLETE;
    if (response->is_complete)
        return NULL;
    return response->state == STATUS_LINE && !response->head_len
        ? "the connection ended without an answer" : "the answer broke off";
}

/* ---- agents ---------------------------------------------------------------------------------- */

static int is_word(const char *word, apr_size_t len, const char *name)
{
    return strlen(name) == len && !strncasecmp(word, name, len);
}

/** Digits, at most seven; -1: something else. */
static int parse_digits(const char *text, apr_size_t len)
{
    int number = 0;

    if (!len || len > 7)
        return -1;
    for (apr_size_t i = 0; i < len; i++) {
        if (!apr_isdigit(text[i]))
            return -1;
        number = number * 10 + text[i] - '0';
    }
    return number;
}

#define PERCENT_MAX 1000

static int parse_word(const char *word, apr_size_t len, rproxy_advice *advice)
{
    static const struct { const char *name; int mode, health; } names[] = {
        { "up", 0, RPROXY_ADVICE_UP }, { "down", 0, RPROXY_ADVICE_DOWN },
        { "failed", 0, RPROXY_ADVICE_DOWN }, { "stopped", 0, RPROXY_ADVICE_DOWN },
        { "fail", 0, RPROXY_ADVICE_DOWN }, { "ready", RPROXY_ADVICE_READY, 0 },
        { "drain", RPROXY_ADVICE_DRAIN, 0 }, { "maint", RPROXY_ADVICE_MAINT, 0 }
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (is_word(word, len, names[i].name)) {
            if (names[i].mode)
                advice->mode = names[i].mode;
            else
                advice->health = names[i].health;
            return 1;
        }
    }
    if (len > 8 && !strncasecmp(word, "maxconn:", 8))
        return (advice->max = parse_digits(word + 8, len - 8)) >= 0;
    if (word[len - 1] != '%')
        return 0;
    advice->percent = parse_digits(word, len - 1);
    if (advice->percent > PERCENT_MAX)
        advice->percent = PERCENT_MAX;
    return advice->percent >= 0;
}

int rp_agent_parse(const char *line, apr_size_t len, rproxy_advice *advice)
{
    int words = 0;
    const char *end = line + len;

    *advice = (rproxy_advice){ .percent = -1, .max = -1 };
    while (line < end && *line != '#') {
        const char *word = line;

        while (line < end && *line && !strchr(" \t,#", *line))
            line++;
        if (line > word && !parse_word(word, (apr_size_t)(line - word), advice))
            return 0;
        words += line > word;
        if (line < end && *line != '#' && !*line)
            return 0;
        if (line < end && *line != '#')
            line++;
    }
    return words > 0;
}

/* ---- gRPC ------------------------------------------------------------------------------------ */

/** A number of protobuf; 0: it breaks off or is too long. */
static int read_varint(const unsigned char **data, const unsigned char *end, apr_uint64_t *number)
{
    *number = 0;
    for (int shift = 0; *data < end && shift < 64; shift += 7) {
        unsigned char byte = *(*data)++;

        *number |= (apr_uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return 1;
    }
    return 0;
}

/** Passes over a field of that wire type. */
static int skip_field(const unsigned char **data, const unsigned char *end, int type)
{
    apr_uint64_t len = 0;

    if (type == 0)
        return read_varint(data, end, &len);
    if (type == 1 || type == 5)
        len = type == 1 ? 8 : 4;
    else if (type != 2 || !read_varint(data, end, &len))
        return 0;
    if (len > (apr_uint64_t)(end - *data))
        return 0;
    *data += len;
    return 1;
}

int rp_grpc_health_parse(const unsigned char *data, apr_size_t len)
{
    const unsigned char *end = data + len;
    apr_uint64_t status = 0, key;

    /* Five bytes before the message: not compressed, and its length. */
    if (len < 5 || data[0] != 0
        || ((apr_uint64_t)data[1] << 24 | (apr_uint64_t)data[2] << 16
            | (apr_uint64_t)data[3] << 8 | data[4]) != len - 5)
        return -1;
    data += 5;
    while (data < end) {
        if (!read_varint(&data, end, &key))
            return -1;
        if (key == (1 << 3 | 0)) {
            if (!read_varint(&data, end, &status))
                return -1;
        }
        else if (!skip_field(&data, end, (int)(key & 7)))
            return -1;
    }
    return status <= 3 ? (int)status : -1;
}
