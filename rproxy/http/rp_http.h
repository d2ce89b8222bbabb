/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* rproxy/http: bytes <-> messages.
 *
 * Strict HTTP/1.x head parser and serialiser, chunked coding, field lists, hop-by-hop rules and
 * the forms of a request target. Knows APR pools and buffers only: no sockets, no request_rec, no
 * time, no logging, no global state. Every function may be called from any thread as long as its
 * arguments are not shared.
 *
 * Strictness (RFC 9110, RFC 9112): what is malformed is refused with a reason, never repaired and
 * forwarded. Lines end in CRLF; a bare CR, a bare LF, NUL and other control bytes are errors.
 */
#ifndef RP_HTTP_H
#define RP_HTTP_H

#include <string.h>
#include <apr_pools.h>

/* ---- limits: every length is bounded, each bound has a name ---------------------------------- */

#define RP_HTTP_HEAD_MAX        65536   /* bytes of a message head, request or response */
#define RP_HTTP_FIELDS_MAX      200     /* fields in a head or in a trailer section */
#define RP_HTTP_CHUNK_LINE_MAX  4096    /* bytes of a chunk-size line including extensions */
#define RP_HTTP_TRAILERS_MAX    16384   /* bytes of a trailer section */

/** Why a message was refused. rp_http_error_text() has a sentence for the log. */
typedef enum rp_http_error {
    RP_HTTP_OK = 0,
    RP_HTTP_BAD_START_LINE,             /* request line or status line malformed */
    RP_HTTP_BAD_VERSION,                /* not HTTP/1.0 or HTTP/1.1 */
    RP_HTTP_BAD_STATUS,                 /* not three digits in 100..599 */
    RP_HTTP_BAD_REASON,                 /* control bytes in the reason phrase */
    RP_HTTP_BAD_METHOD,                 /* not a token */
    RP_HTTP_BAD_TARGET,                 /* space, control byte or no known form */
    RP_HTTP_BAD_FIELD_NAME,             /* empty, not a token, or blanks before the colon */
    RP_HTTP_BAD_FIELD_VALUE,            /* CR, LF, NUL or another control byte */
    RP_HTTP_OBSOLETE_FOLDING,           /* RFC 9112 section 5.2 */
    RP_HTTP_BARE_CR_OR_LF,              /* a line end that is not CRLF */
    RP_HTTP_HEAD_TOO_LARGE,             /* over RP_HTTP_HEAD_MAX or the caller's limit */
    RP_HTTP_TOO_MANY_FIELDS,
    RP_HTTP_BAD_CONTENT_LENGTH,         /* not digits, too large, empty */
    RP_HTTP_REPEATED_CONTENT_LENGTH,    /* more than one field or a list, even of equal values */
    RP_HTTP_LENGTH_AND_CODING,          /* Content-Length with Transfer-Encoding */
    RP_HTTP_BAD_TRANSFER_ENCODING,      /* anything but "chunked" alone, or with HTTP/1.0 */
    RP_HTTP_BAD_HOST,                   /* missing with HTTP/1.1, repeated, or malformed */
    RP_HTTP_BAD_CHUNK_SIZE,
    RP_HTTP_CHUNK_LINE_TOO_LONG,
    RP_HTTP_BAD_CHUNK_END,              /* data not followed by CRLF */
    RP_HTTP_TRAILERS_TOO_LARGE,
    RP_HTTP_BAD_TRAILER,                /* malformed, or a field that must not be a trailer */
    RP_HTTP_ERROR_COUNT
} rp_http_error;

const char *rp_http_error_text(rp_http_error error);

/** Result of an incremental parse. */
typedef enum rp_parse {
    RP_PARSE_DONE,                      /* complete */
    RP_PARSE_MORE,                      /* needs more bytes */
    RP_PARSE_FAILED                     /* refused, the error says why */
} rp_parse;

/* ---- fields ---------------------------------------------------------------------------------- */

/** Fields that the proxy itself acts upon; everything else is RP_FIELD_OTHER. */
typedef enum rp_field_id {
    RP_FIELD_OTHER = 0,
    RP_FIELD_CONNECTION, RP_FIELD_CONTENT_LENGTH, RP_FIELD_CONTENT_LOCATION, RP_FIELD_CONTENT_TYPE,
    RP_FIELD_DATE, RP_FIELD_DESTINATION, RP_FIELD_EXPECT, RP_FIELD_FORWARDED, RP_FIELD_HOST,
    RP_FIELD_HTTP2_SETTINGS, RP_FIELD_KEEP_ALIVE, RP_FIELD_LINK, RP_FIELD_LOCATION,
    RP_FIELD_PROXY, RP_FIELD_PROXY_AUTHENTICATE, RP_FIELD_PROXY_AUTHORIZATION,
    RP_FIELD_PROXY_CONNECTION, RP_FIELD_PROXY_STATUS, RP_FIELD_REFRESH, RP_FIELD_SERVER,
    RP_FIELD_SET_COOKIE, RP_FIELD_TE, RP_FIELD_TRAILER, RP_FIELD_TRANSFER_ENCODING,
    RP_FIELD_UPGRADE, RP_FIELD_VIA, RP_FIELD_X_ACCEL_BUFFERING, RP_FIELD_X_FORWARDED_FOR,
    RP_FIELD_X_FORWARDED_HOST, RP_FIELD_X_FORWARDED_PORT, RP_FIELD_X_FORWARDED_PROTO,
    RP_FIELD_X_REQUEST_ID,
    RP_FIELD_ID_COUNT
} rp_field_id;

/** A set of them. */
typedef apr_uint64_t rp_field_set;
#define RP_FIELD_BIT(id) ((rp_field_set)1 << (id))

/** One field line. Both strings are NUL-terminated and live as long as the list's memory. */
typedef struct rp_field {
    const char *name;                   /* as received, case kept */
    const char *value;                  /* without surrounding blanks */
    apr_uint32_t name_len;
    apr_uint32_t value_len;
    rp_field_id id;
} rp_field;

/** Field lines in the order received. Owned by whoever holds the struct; items are in its pool. */
typedef struct rp_fields {
    apr_pool_t *pool;
    rp_field *items;
    int count;
    int capacity;
} rp_fields;

/** Makes an empty list with room for capacity items (0: allocate with the first one). */
void rp_fields_init(rp_fields *fields, apr_pool_t *pool, int capacity);

/** Appends by reference (strings are not copied), fills in id and lengths. */
rp_field *rp_fields_add(rp_fields *fields, const char *name, const char *value);

/** Appends room for one, not filled in. */
rp_field *rp_fields_push(rp_fields *fields);

/** The same as rp_fields_add() for a name that is a literal: id is its own. */
static inline void rp_fields_add_known(rp_fields *fields, rp_field_id id, const char *name,
                                       const char *value)
{
    rp_field *field = rp_fields_push(fields);

    field->name = name;
    field->value = value;
    field->name_len = (apr_uint32_t)strlen(name);
    field->value_len = (apr_uint32_t)strlen(value);
    field->id = id;
}

/** First field with this id from index start on (0: from the beginning); NULL if there is none. */
rp_field *rp_fields_get(const rp_fields *fields, rp_field_id id, int start);

/** First field of this name, case-insensitive; NULL if there is none. */
rp_field *rp_fields_find(const rp_fields *fields, const char *name);

/** Removes every field with this id, order kept. */
void rp_fields_remove(rp_fields *fields, rp_field_id id);

/** Removes the one at index, order kept. */
void rp_fields_remove_at(rp_fields *fields, int index);

/** The id of a name of len bytes, case-insensitive. */
rp_field_id rp_field_id_of(const char *name, apr_size_t len);

/** Nonzero if a comma-separated list value contains token (any case, parameters ignored). */
int rp_list_has_token(const char *value, const char *token);

/** Nonzero if text is a token / holds no CR, LF, NUL or other control byte but HTAB. */
int rp_is_token(const char *text, apr_size_t len);
int rp_is_field_value(const char *text, apr_size_t len);

/* ---- heads ----------------------------------------------------------------------------------- */

/** How a message's body ends (RFC 9112 section 6.3). */
typedef enum rp_framing {
    RP_BODY_NONE,                       /* there is none, not even an empty one with a length */
    RP_BODY_LENGTH,                     /* content_length bytes */
    RP_BODY_CHUNKED,
    RP_BODY_CLOSE                       /* responses only: until the connection closes */
} rp_framing;

/** A client's request, in neutral form: what routes, exchange, balancer and cache work on. Built by
 * a lane by reference; strings live as long as the request. */
typedef struct rp_request {
    const char *method;                 /* token, case-sensitive */
    const char *scheme;                 /* "http" or "https", as the client reached us */
    const char *authority;              /* the client's Host / :authority, validated; "" if none */
    const char *target;                 /* request-target as received */
    const char *path;                   /* normal form, see rp_uri_path(); "*" for OPTIONS * */
    const char *query;                  /* after '?', raw; NULL: none */
    int major_version;                  /* of HTTP: 1 or 2 */
    int minor_version;                  /* 1 with HTTP/2, too: what is not below HTTP/1.1 */
    rp_framing framing;                 /* NONE, LENGTH or CHUNKED (also HTTP/2 without a length) */
    apr_int64_t content_length;         /* with RP_BODY_LENGTH */
    rp_fields fields;                   /* as received, hop-by-hop fields included */
    const char *client_ip;              /* textual address of the client (r->useragent_ip) */
    const char *peer_ip;                /* textual address of the connection's other end */
    int peer_trusted;                   /* nonzero: peer is listed in RProxyTrustedProxy */
    int local_port;                     /* the port the client used */
    const char *request_id;             /* for X-Request-ID and the log */
} rp_request;

/** An upstream's response head. Strings point into the parsed buffer. */
typedef struct rp_response {
    int status;                         /* 100..599 */
    const char *reason;                 /* reason phrase, "" if empty */
    int minor_version;
    rp_fields fields;                   /* as received, hop-by-hop fields included */
    rp_framing framing;                 /* for the request's method, see rp_http_parse_response() */
    apr_int64_t content_length;         /* value of a valid Content-Length, -1 if there is none;
                                         * kept for HEAD and 304 too, whose framing is NONE */
    int keep_alive;                     /* nonzero: the connection may be used again */
} rp_response;

/**
 * Parses a response head from the beginning of buf. Modifies buf in place (NUL-terminates names
 * and values); buf must stay allocated as long as response is used. Call again with the same
 * *scanned and more bytes after RP_PARSE_MORE (buf may have moved meanwhile, its bytes not
 * changed). After RP_PARSE_FAILED the bytes may be partly cut and response partly filled.
 *
 * @param method    the request's method: HEAD and CONNECT decide the framing
 * @param scanned   state between calls, 0 at first
 * @param head_len  set with RP_PARSE_DONE: bytes of the head, the body starts there
 */
rp_parse rp_http_parse_response(apr_pool_t *pool, char *buf, apr_size_t len, const char *method,
                                apr_size_t *scanned, apr_size_t *head_len,
                                rp_response *response, rp_http_error *error);

/**
 * The same for a request head; fills method, target, minor_version, fields, authority, framing and
 * content_length (-1 if there is none) of request, leaves the rest alone. An absolute-form target's
 * authority goes before Host and replaces its value (RFC 9112 section 3.2.2). One empty line in
 * front is skipped and counts in head_len. limit_line and limit_fields are the server's
 * LimitRequestLine and LimitRequestFields (0: no limit but RP_HTTP_HEAD_MAX / RP_HTTP_FIELDS_MAX).
 */
rp_parse rp_http_parse_request(apr_pool_t *pool, char *buf, apr_size_t len,
                               apr_size_t limit_line, int limit_fields,
                               apr_size_t *scanned, apr_size_t *head_len,
                               rp_request *request, rp_http_error *error);

/**
 * Looks for the end of a request head without changing a byte, for who keeps the bytes as they
 * came. *scanned and *head_len as above. RP_PARSE_FAILED: rp_http_parse_request() would refuse it,
 * whatever comes next.
 */
rp_parse rp_http_scan_request(const char *buf, apr_size_t len, apr_size_t *scanned,
                              apr_size_t *head_len, rp_http_error *error);

/**
 * Framing of a message from its fields (RFC 9112 section 6.3), for lanes whose heads were parsed by
 * someone else. Checks Content-Length and Transfer-Encoding as the parsers do.
 */
rp_http_error rp_http_request_framing(const rp_fields *fields, int minor_version,
                                      rp_framing *framing, apr_int64_t *content_length);

/**
 * Appends to out the fields that are not hop-by-hop: without those listed in any Connection field,
 * Connection, Keep-Alive, Proxy-Connection, TE, Transfer-Encoding, Upgrade, HTTP2-Settings,
 * Proxy-Authenticate, Proxy-Authorization (requests too: this is a reverse proxy), "Proxy"
 * (RFC 3875 trap "httpoxy"), and those in drop. A Connection option cannot remove
 * Host, Content-Length or Content-Type (RFC 9110 section 7.6.1: end-to-end fields named there by
 * an attacker). out is initialised, another list than fields.
 */
void rp_fields_end_to_end(const rp_fields *fields, rp_field_set drop, rp_fields *out);

/** Growing output buffer in a pool. */
typedef struct rp_buffer {
    apr_pool_t *pool;
    char *data;
    apr_size_t len;
    apr_size_t capacity;
} rp_buffer;

void rp_buffer_init(rp_buffer *buffer, apr_pool_t *pool, apr_size_t capacity);
/** bytes may lie in the buffer itself, behind its end. */
void rp_buffer_add(rp_buffer *buffer, const char *bytes, apr_size_t len);

/**
 * Serialises. The caller has decided on the fields (framing and Connection fields included); these
 * refuse, with the matching error and nothing usable in out, what would not parse again: a method
 * that is no token, a target with blanks or controls, names or values with CR, LF or NUL.
 */
rp_http_error rp_http_write_request(rp_buffer *out, const char *method, const char *target,
                                    const rp_fields *fields);
rp_http_error rp_http_write_response(rp_buffer *out, int status, const char *reason,
                                     const rp_fields *fields);

/* ---- chunked coding (RFC 9112 section 7.1) --------------------------------------------------- */

/** Decoder state. Zero-initialise with rp_chunked_init(). */
typedef struct rp_chunked {
    apr_pool_t *pool;                   /* for trailers */
    apr_uint64_t left;                  /* bytes left in the current chunk */
    apr_uint32_t line;                  /* bytes of the current size line so far */
    int state;
    rp_buffer trailer_bytes;
    rp_fields trailers;                 /* complete with RP_PARSE_DONE; empty if there were none */
    rp_http_error error;
} rp_chunked;

void rp_chunked_init(rp_chunked *chunked, apr_pool_t *pool);

/**
 * Decodes in place: reads len bytes at buf, moves the decoded data together at buf.
 * @param consumed  set: coded bytes used; less than len only with RP_PARSE_DONE (what follows
 *                  belongs to nobody)
 * @param decoded   set: bytes of data now at buf
 */
rp_parse rp_chunked_decode(rp_chunked *chunked, char *buf, apr_size_t len,
                           apr_size_t *consumed, apr_size_t *decoded);

/** Most bytes that rp_chunk_head() writes. */
#define RP_CHUNK_HEAD_MAX 20

/** Writes the size line of a chunk of size bytes (not 0) to out; returns its length. The data is
 * followed by CRLF. */
apr_size_t rp_chunk_head(char out[RP_CHUNK_HEAD_MAX], apr_size_t size);

/** Appends the last chunk with trailers (may be NULL) to out. */
rp_http_error rp_chunk_last(rp_buffer *out, const rp_fields *trailers);

/* ---- request targets ------------------------------------------------------------------------- */

/** What to do with %2F (and %5C, which some servers read as a slash) in a path. */
typedef enum rp_encoded_slashes {
    RP_SLASHES_PASS,                    /* travels as it is, matches no '/' */
    RP_SLASHES_DECODE,                  /* becomes '/' before normalisation (%5C stays) */
    RP_SLASHES_REJECT                   /* refused */
} rp_encoded_slashes;

/**
 * Brings the path of an origin-form or absolute-form target into normal form, still
 * percent-encoded (the path of "*" is "*"): "." and ".." segments removed (their dots also as
 * %2E), repeated slashes merged if merge_slashes;
 * every other byte stays as the client sent it (%7E stays %7E), so a path without such segments is
 * unchanged. Decoded, it is what the server's access control sees; as it is, the upstream gets it.
 *
 * @param path   set: in pool, or pointing into target where nothing changed and it ends there
 * @param query  set: bytes after '?', NULL if there is none
 * @return RP_HTTP_OK, or RP_HTTP_BAD_TARGET: above the root, %00, bad %XX, space or control byte,
 *         '#', backslash, an encoded slash with RP_SLASHES_REJECT, or a dot segment that only some
 *         servers see ("..%2F", "..%5C", "..;")
 */
rp_http_error rp_uri_path(apr_pool_t *pool, const char *target, rp_encoded_slashes slashes,
                          int merge_slashes, const char **path, const char **query);

/** The path with percent-encoded unreserved characters decoded and hex digits in upper case: the
 * form that regular expressions match on, so that "/%61dmin" is no way around a rule for "/admin".
 * Returns path itself where nothing changes. */
const char *rp_uri_canonical(apr_pool_t *pool, const char *path);

/** Percent-decodes len bytes of a path into a new NUL-terminated string, %2F kept as it is. */
char *rp_uri_decode(apr_pool_t *pool, const char *path, apr_size_t len);

/** Percent-encodes text (a decoded path) so that it can stand in a target: everything outside
 * pchar and '/' is encoded, '%' too. */
char *rp_uri_encode(apr_pool_t *pool, const char *text);

/** Nonzero if authority is a valid host[:port] (RFC 3986 section 3.2.2; IPv6 in brackets, the port
 * from 1 to 65535), no userinfo. */
int rp_uri_is_authority(const char *authority);

#endif
