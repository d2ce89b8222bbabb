/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* Heads are parsed in two steps: find_end() hops from line end to line end until the empty line has
 * arrived (nothing is modified and nothing scanned twice until then), then one pass over the bytes
 * checks and cuts them. Only what the first bytes give away is refused earlier, so that the result
 * never depends on how the bytes were cut into reads. */

#include "rproxy/http/rp_http_private.h"

#define FIELDS_GUESS 16                 /* room for the fields of most heads */
#define LENGTH_MAX APR_INT64_MAX

static int is_crlf(const char *p)
{
    return p[0] == '\r' && p[1] == '\n';
}

/** The error for a byte in a line that its grammar doesn't allow: p[1] may be read, since the head
 * ends in CRLF. */
static rp_http_error bad_byte(const char *p, rp_http_error error)
{
    return *p == '\n' || (*p == '\r' && p[1] != '\n') ? RP_HTTP_BARE_CR_OR_LF : error;
}

static char *after_value(char *p, const char *end)
{
    return p + (rp_scan_value(p, end) - p);
}

static rp_parse find_end(const char *buf, apr_size_t len, apr_size_t *scanned,
                         apr_size_t *head_len, rp_http_error *error)
{
    apr_size_t limit = len < RP_HTTP_HEAD_MAX ? len : RP_HTTP_HEAD_MAX;
    const char *p = buf + *scanned;

    while (p < buf + limit) {
        const char *lf = memchr(p, '\n', (apr_size_t)(buf + limit - p));

        if (lf == NULL) {
            break;
        }
        if (lf == buf || lf[-1] != '\r') {
            *error = RP_HTTP_BARE_CR_OR_LF;
            return RP_PARSE_FAILED;
        }
        if (lf - buf >= 3 && lf[-2] == '\n') {
            *head_len = (apr_size_t)(lf - buf) + 1;
            return RP_PARSE_DONE;
        }
        p = lf + 1;
    }
    *scanned = limit;
    if (limit == RP_HTTP_HEAD_MAX) {
        *error = RP_HTTP_HEAD_TOO_LARGE;
        return RP_PARSE_FAILED;
    }
    return RP_PARSE_MORE;
}

rp_http_error rp_fields_parse(rp_fields *fields, char *p, const char *end, int max)
{
    while (p < end - 2) {
        char *name = p, *name_end, *value, *value_end;
        rp_field *field;

        while (rp_byte_is(*p, RP_BYTE_TOKEN)) {
            p++;
        }
        name_end = p;
        if (*p != ':' || p == name) {
            return p == name && rp_is_blank(*p) ? RP_HTTP_OBSOLETE_FOLDING
                                                : bad_byte(p, RP_HTTP_BAD_FIELD_NAME);
        }
        do {
            p++;
        } while (rp_is_blank(*p));
        value = p;
        p = after_value(p, end);
        if (!is_crlf(p)) {
            return bad_byte(p, RP_HTTP_BAD_FIELD_VALUE);
        }
        if (fields->count == max) {
            return RP_HTTP_TOO_MANY_FIELDS;
        }
        value_end = p;
        while (value_end > value && rp_is_blank(value_end[-1])) {
            value_end--;
        }
        p += 2;
        *name_end = '\0';
        *value_end = '\0';
        field = rp_fields_push(fields);
        field->name = name;
        field->value = value;
        field->name_len = (apr_uint32_t)(name_end - name);
        field->value_len = (apr_uint32_t)(value_end - value);
        field->id = rp_field_id_of(name, field->name_len);
    }
    return RP_HTTP_OK;
}

/* ---- framing (RFC 9112 section 6) ------------------------------------------------------------ */

static rp_http_error parse_length(const rp_field *field, apr_int64_t *length)
{
    apr_int64_t number = 0;

    if (field->value_len == 0) {
        return RP_HTTP_BAD_CONTENT_LENGTH;
    }
    for (const char *p = field->value; p < field->value + field->value_len; p++) {
        int digit = *p - '0';

        if (*p == ',') {
            return RP_HTTP_REPEATED_CONTENT_LENGTH;
        }
        if (digit < 0 || digit > 9 || number > (LENGTH_MAX - digit) / 10) {
            return RP_HTTP_BAD_CONTENT_LENGTH;
        }
        number = number * 10 + digit;
    }
    *length = number;
    return RP_HTTP_OK;
}

/** Checks the fields that frame a body; *length is -1 without a Content-Length. */
static rp_http_error check_framing(const rp_fields *fields, int minor_version,
                                   apr_int64_t *length, int *chunked)
{
    *length = -1;
    *chunked = 0;
    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (field->id == RP_FIELD_CONTENT_LENGTH) {
            rp_http_error error = *length >= 0 ? RP_HTTP_REPEATED_CONTENT_LENGTH
                                               : parse_length(field, length);
            if (error != RP_HTTP_OK) {
                return error;
            }
        }
        else if (field->id == RP_FIELD_TRANSFER_ENCODING) {
            if (*chunked || minor_version == 0 || field->value_len != 7
                || !rp_equals_lower(field->value, "chunked", 7)) {
                return RP_HTTP_BAD_TRANSFER_ENCODING;
            }
            *chunked = 1;
        }
    }
    return *chunked && *length >= 0 ? RP_HTTP_LENGTH_AND_CODING : RP_HTTP_OK;
}

rp_http_error rp_http_request_framing(const rp_fields *fields, int minor_version,
                                      rp_framing *framing, apr_int64_t *content_length)
{
    int chunked;
    rp_http_error error = check_framing(fields, minor_version, content_length, &chunked);

    *framing = chunked ? RP_BODY_CHUNKED : *content_length >= 0 ? RP_BODY_LENGTH : RP_BODY_NONE;
    return error;
}

static int is_persistent(const rp_fields *fields, int minor_version)
{
    int persistent = minor_version > 0;

    for (int i = 0; i < fields->count; i++) {
        const rp_field *field = &fields->items[i];

        if (field->id == RP_FIELD_CONNECTION) {
            if (rp_list_has_token(field->value, "close")) {
                return 0;
            }
            if (rp_list_has_token(field->value, "keep-alive")) {
                persistent = 1;
            }
        }
    }
    return persistent;
}

static rp_http_error frame_response(rp_response *response, const char *method)
{
    int status = response->status;
    int tunnel = status == 101 || (status / 100 == 2 && strcmp(method, "CONNECT") == 0);
    int chunked;
    rp_http_error error = check_framing(&response->fields, response->minor_version,
                                        &response->content_length, &chunked);

    if (error == RP_HTTP_OK && chunked && (status < 200 || status == 204)) {
        error = RP_HTTP_BAD_TRANSFER_ENCODING;      /* RFC 9112 section 6.1 */
    }
    if (error != RP_HTTP_OK) {
        return error;
    }
    if (tunnel || status < 200 || status == 204 || status == 304 || strcmp(method, "HEAD") == 0) {
        response->framing = RP_BODY_NONE;
    }
    else if (chunked) {
        response->framing = RP_BODY_CHUNKED;
    }
    else {
        response->framing = response->content_length >= 0 ? RP_BODY_LENGTH : RP_BODY_CLOSE;
    }
    response->keep_alive = !tunnel && response->framing != RP_BODY_CLOSE
                           && is_persistent(&response->fields, response->minor_version);
    return RP_HTTP_OK;
}

/* ---- responses ------------------------------------------------------------------------------- */

/** Checks what has come of "HTTP/1.0" or "HTTP/1.1". */
static rp_http_error check_version(const char *p, apr_size_t len)
{
    static const char expected[] = "HTTP/1.";

    for (apr_size_t i = 0; i < len && i < 8; i++) {
        if (i == 7 ? p[i] != '0' && p[i] != '1' : p[i] != expected[i]) {
            return i < 5 ? RP_HTTP_BAD_START_LINE : RP_HTTP_BAD_VERSION;
        }
    }
    return RP_HTTP_OK;
}

/** Parses what follows the version, up to the fields. Each byte is checked before the next is read,
 * and the empty line at the end passes no check: this cannot leave the head. */
static rp_http_error parse_status_line(char *p, const char *end, rp_response *response,
                                       char **fields)
{
    response->status = 0;
    if (*p++ != ' ') {
        return bad_byte(p - 1, RP_HTTP_BAD_START_LINE);
    }
    for (const char *digits = p; p < digits + 3; p++) {
        if (*p < '0' || *p > '9') {
            return bad_byte(p, RP_HTTP_BAD_STATUS);
        }
        response->status = response->status * 10 + (*p - '0');
    }
    if ((*p != ' ' && *p != '\r') || response->status < 100 || response->status > 599) {
        return bad_byte(p, RP_HTTP_BAD_STATUS);
    }
    if (*p == ' ') {
        p++;
    }
    response->reason = p;
    p = after_value(p, end);
    if (!is_crlf(p)) {
        return bad_byte(p, RP_HTTP_BAD_REASON);
    }
    *p = '\0';
    *fields = p + 2;
    return RP_HTTP_OK;
}

rp_parse rp_http_parse_response(apr_pool_t *pool, char *buf, apr_size_t len, const char *method,
                                apr_size_t *scanned, apr_size_t *head_len,
                                rp_response *response, rp_http_error *error)
{
    rp_parse found;
    char *fields;

    *error = *scanned < 8 ? check_version(buf, len) : RP_HTTP_OK;
    if (*error != RP_HTTP_OK) {
        return RP_PARSE_FAILED;
    }
    found = find_end(buf, len, scanned, head_len, error);
    if (found != RP_PARSE_DONE) {
        return found;
    }
    response->minor_version = buf[7] - '0';
    *error = parse_status_line(buf + 8, buf + *head_len, response, &fields);
    if (*error == RP_HTTP_OK) {
        rp_fields_init(&response->fields, pool, FIELDS_GUESS);
        *error = rp_fields_parse(&response->fields, fields, buf + *head_len, RP_HTTP_FIELDS_MAX);
    }
    if (*error == RP_HTTP_OK) {
        *error = frame_response(response, method);
    }
    return *error == RP_HTTP_OK ? RP_PARSE_DONE : RP_PARSE_FAILED;
}

/* ---- requests -------------------------------------------------------------------------------- */

/** Checks the first bytes and the length of the request line as far as it has come; *start is where
 * it begins: one empty line in front of it is skipped (RFC 9112 section 2.2). */
static rp_parse check_request_start(const char *buf, apr_size_t len, apr_size_t scanned,
                                    apr_size_t limit_line, apr_size_t *start,
                                    rp_http_error *error)
{
    *start = len > 0 && buf[0] == '\r' ? 2 : 0;
    if (*start == 2 && len > 1 && buf[1] != '\n') {
        *error = RP_HTTP_BARE_CR_OR_LF;
        return RP_PARSE_FAILED;
    }
    if (len <= *start) {
        return RP_PARSE_MORE;
    }
    if (scanned <= *start && !rp_byte_is(buf[*start], RP_BYTE_TOKEN)) {
        *error = buf[*start] == '\r' ? RP_HTTP_BAD_START_LINE
                                     : bad_byte(buf + *start, RP_HTTP_BAD_METHOD);
        return RP_PARSE_FAILED;
    }
    if (limit_line > 0 && limit_line < RP_HTTP_HEAD_MAX) {
        apr_size_t most = limit_line + 2;           /* with CRLF */

        /* Looked at once, when the bytes cross the limit. */
        if (scanned < *start + most && len >= *start + most
            && memchr(buf + *start, '\n', most) == NULL) {
            *error = RP_HTTP_HEAD_TOO_LARGE;
            return RP_PARSE_FAILED;
        }
    }
    return RP_PARSE_DONE;
}

/** Cuts the request line at p into its three parts. */
static rp_http_error parse_request_line(char *p, const char *end, rp_request *request,
                                        char **fields)
{
    rp_http_error error;

    request->method = p;
    p += rp_scan_class(p, end, RP_BYTE_TOKEN) - p;
    if (*p != ' ') {
        return bad_byte(p, is_crlf(p) ? RP_HTTP_BAD_START_LINE : RP_HTTP_BAD_METHOD);
    }
    *p++ = '\0';
    request->target = p;
    p += rp_scan_class(p, end, RP_BYTE_VISIBLE) - p;
    if (*p != ' ' || p == request->target) {
        return bad_byte(p, is_crlf(p) ? RP_HTTP_BAD_START_LINE : RP_HTTP_BAD_TARGET);
    }
    *p++ = '\0';
    error = check_version(p, (apr_size_t)(end - p));
    if (error != RP_HTTP_OK) {
        return error;
    }
    request->major_version = 1;
    request->minor_version = p[7] - '0';
    p += 8;
    if (!is_crlf(p)) {
        return bad_byte(p, RP_HTTP_BAD_START_LINE);
    }
    *fields = p + 2;
    return RP_HTTP_OK;
}

/** Checks the form of the target (RFC 9112 section 3.2); *authority is its own, or NULL. */
static rp_http_error check_target(apr_pool_t *pool, const rp_request *request,
                                  const char **authority)
{
    const char *target = request->target;
    const char *host;
    apr_size_t len;
    char *copy;

    *authority = NULL;
    if (strcmp(request->method, "CONNECT") == 0) {
        const char *colon = strrchr(target, ':');

        /* The port is not optional here; a colon before ']' begins none. */
        if (colon == NULL || strchr(colon, ']') != NULL || !rp_uri_is_authority(target)) {
            return RP_HTTP_BAD_TARGET;
        }
        *authority = target;
        return RP_HTTP_OK;
    }
    if (target[0] == '/') {
        return RP_HTTP_OK;
    }
    if (target[0] == '*' && target[1] == '\0') {
        return strcmp(request->method, "OPTIONS") == 0 ? RP_HTTP_OK : RP_HTTP_BAD_TARGET;
    }
    host = rp_uri_after_scheme(target);
    if (host == NULL) {
        return RP_HTTP_BAD_TARGET;
    }
    len = strcspn(host, "/?");
    copy = apr_palloc(pool, len + 1);
    memcpy(copy, host, len);
    copy[len] = '\0';
    *authority = copy;
    return rp_uri_is_authority(copy) ? RP_HTTP_OK : RP_HTTP_BAD_TARGET;
}

/** Checks Host and sets the authority. That of the target goes before the field, which is replaced
 * so that nobody further on sees another one (RFC 9112 section 3.2.2). */
static rp_http_error check_host(rp_request *request, const char *target_authority)
{
    rp_field *host = rp_fields_get(&request->fields, RP_FIELD_HOST, 0);

    if (host == NULL) {
        request->authority = target_authority != NULL ? target_authority : "";
        return request->minor_version == 0 ? RP_HTTP_OK : RP_HTTP_BAD_HOST;
    }
    if (rp_fields_get(&request->fields, RP_FIELD_HOST, (int)(host - request->fields.items) + 1)) {
        return RP_HTTP_BAD_HOST;
    }
    /* An empty one says that there is none (RFC 9112 section 3.2). */
    if (host->value_len > 0 && !rp_uri_is_authority(host->value)) {
        return RP_HTTP_BAD_HOST;
    }
    if (target_authority != NULL) {
        host->value = target_authority;
        host->value_len = (apr_uint32_t)strlen(target_authority);
    }
    request->authority = host->value;
    return RP_HTTP_OK;
}

static rp_http_error parse_request_head(apr_pool_t *pool, char *p, const char *end,
                                        int max_fields, rp_request *request)
{
    const char *target_authority;
    rp_http_error error = parse_request_line(p, end, request, &p);

    if (error == RP_HTTP_OK) {
        rp_fields_init(&request->fields, pool, FIELDS_GUESS);
        error = rp_fields_parse(&request->fields, p, end, max_fields);
    }
    if (error == RP_HTTP_OK) {
        error = check_target(pool, request, &target_authority);
    }
    if (error == RP_HTTP_OK) {
        error = check_host(request, target_authority);
    }
    if (error == RP_HTTP_OK) {
        error = rp_http_request_framing(&request->fields, request->minor_version,
                                        &request->framing, &request->content_length);
    }
    return error;
}

rp_parse rp_http_scan_request(const char *buf, apr_size_t len, apr_size_t *scanned,
                              apr_size_t *head_len, rp_http_error *error)
{
    apr_size_t start;
    rp_parse found;

    *error = RP_HTTP_OK;
    found = check_request_start(buf, len, *scanned, 0, &start, error);
    return found == RP_PARSE_DONE ? find_end(buf, len, scanned, head_len, error) : found;
}

rp_parse rp_http_parse_request(apr_pool_t *pool, char *buf, apr_size_t len,
                               apr_size_t limit_line, int limit_fields,
                               apr_size_t *scanned, apr_size_t *head_len,
                               rp_request *request, rp_http_error *error)
{
    int max_fields = limit_fields > 0 && limit_fields < RP_HTTP_FIELDS_MAX ? limit_fields
                                                                          : RP_HTTP_FIELDS_MAX;
    apr_size_t start;
    rp_parse found;

    *error = RP_HTTP_OK;
    found = check_request_start(buf, len, *scanned, limit_line, &start, error);
    if (found == RP_PARSE_DONE) {
        found = find_end(buf, len, scanned, head_len, error);
    }
    if (found != RP_PARSE_DONE) {
        return found;
    }
    *error = parse_request_head(pool, buf + start, buf + *head_len, max_fields, request);
    return *error == RP_HTTP_OK ? RP_PARSE_DONE : RP_PARSE_FAILED;
}
