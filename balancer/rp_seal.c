/* Copyright 2026 The mod_rproxy authors
 * SPDX-License-Identifier: Apache-2.0
 */

/* SHA-256 is used in the form that works on a plain structure: with it a keyed HMAC is a copy of
 * two states. EVP, which replaces it, allocates for each value, on the way of each request. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>

#include "balancer/rp_seal.h"

#define VERSION 1
#define EXPIRES_AT 1
#define HIDDEN_AT 5
#define HIDDEN_BYTES 10
#define TAG_AT (HIDDEN_AT + HIDDEN_BYTES)
#define TAG_BYTES 16
#define BYTES (TAG_AT + TAG_BYTES)

_Static_assert((BYTES * 8 + 5) / 6 == RP_SEAL_TEXT, "six bits in each character");

/** HMAC (RFC 2104) after its key. */
typedef struct keyed {
    SHA256_CTX inner, outer;
} keyed;

typedef struct key_pair {
    keyed sign, hide;
} key_pair;

struct rp_seal {
    int count;
    key_pair keys[];
};

/* ---- HMAC ------------------------------------------------------------------------------------ */

static void set_key(keyed *hmac, const void *key, apr_size_t len)
{
    unsigned char block[SHA256_CBLOCK] = { 0 };

    if (len > sizeof(block))
        SHA256(key, len, block);
    else
        memcpy(block, key, len);
    for (apr_size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36;
    SHA256_Init(&hmac->inner);
    SHA256_Update(&hmac->inner, block, sizeof(block));
    for (apr_size_t i = 0; i < sizeof(block); i++)
        block[i] ^= 0x36 ^ 0x5c;
    SHA256_Init(&hmac->outer);
    SHA256_Update(&hmac->outer, block, sizeof(block));
    OPENSSL_cleanse(block, sizeof(block));
}

static void digest(const keyed *hmac, const void *data, apr_size_t len, unsigned char *out)
{
    keyed copy = *hmac;

    SHA256_Update(&copy.inner, data, len);
    SHA256_Final(out, &copy.inner);
    SHA256_Update(&copy.outer, out, SHA256_DIGEST_LENGTH);
    SHA256_Final(out, &copy.outer);
}

/** Derives a key for one purpose in one pool. */
static void derive(keyed *made, const keyed *from, char purpose, const char *pool_name)
{
    unsigned char text[1 + 64] = { (unsigned char)purpose }, key[SHA256_DIGEST_LENGTH];
    apr_size_t len = strlen(pool_name);

    /* Names of pools are not longer. */
    len = len < sizeof(text) - 1 ? len : sizeof(text) - 1;
    memcpy(text + 1, pool_name, len);
    digest(from, text, 1 + len, key);
    set_key(made, key, sizeof(key));
    OPENSSL_cleanse(key, sizeof(key));
}

rp_seal *rp_seal_make(apr_pool_t *pool, const char *pool_name, const apr_array_header_t *keys)
{
    rp_seal *seal =
        apr_palloc(pool, sizeof(*seal) + (apr_size_t)keys->nelts * sizeof(seal->keys[0]));

    seal->count = keys->nelts;
    for (int i = 0; i < keys->nelts; i++) {
        rp_span key = APR_ARRAY_IDX(keys, i, rp_span);
        keyed master;

        set_key(&master, key.at, key.len);
        derive(&seal->keys[i].sign, &master, 's', pool_name);
        derive(&seal->keys[i].hide, &master, 'h', pool_name);
        OPENSSL_cleanse(&master, sizeof(master));
    }
    return seal;
}

/* ---- base64url ------------------------------------------------------------------------------- */

static void encode(const unsigned char *bytes, char *text)
{
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned int bits = 0;
    int count = 0;

    for (int i = 0; i < BYTES; i++) {
        bits = bits << 8 | bytes[i];
        for (count += 8; count >= 6; count -= 6)
            *text++ = digits[bits >> (count - 6) & 63];
    }
    if (count)
        *text++ = digits[bits << (6 - count) & 63];
    *text = '\0';
}

static int digit(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

static int decode(const char *text, unsigned char *bytes)
{
    unsigned int bits = 0;
    int count = 0;

    for (int i = 0; i < RP_SEAL_TEXT; i++) {
        int value = digit(text[i]);

        if (value < 0)
            return 0;
        bits = bits << 6 | (unsigned int)value;
        count += 6;
        if (count >= 8) {
            count -= 8;
            *bytes++ = (unsigned char)(bits >> count);
        }
    }
    /* There is one way to write a value. */
    return (bits & ((1u << count) - 1)) == 0;
}

/* ---- values ---------------------------------------------------------------------------------- */

static void hide(const key_pair *key, const unsigned char *tag, unsigned char *hidden)
{
    unsigned char mask[SHA256_DIGEST_LENGTH];

    digest(&key->hide, tag, TAG_BYTES, mask);
    for (int i = 0; i < HIDDEN_BYTES; i++)
        hidden[i] ^= mask[i];
}

void rp_seal_close(const rp_seal *seal, const rp_sealed *what, char *text)
{
    unsigned char bytes[BYTES], tag[SHA256_DIGEST_LENGTH];

    bytes[0] = VERSION;
    for (int i = 0; i < 4; i++)
        bytes[EXPIRES_AT + i] = (unsigned char)(what->expires >> (24 - 8 * i));
    for (int i = 0; i < 8; i++)
        bytes[HIDDEN_AT + i] = (unsigned char)(what->id >> (56 - 8 * i));
    bytes[HIDDEN_AT + 8] = (unsigned char)(what->number >> 8);
    bytes[HIDDEN_AT + 9] = (unsigned char)what->number;
    digest(&seal->keys[0].sign, bytes, TAG_AT, tag);
    memcpy(bytes + TAG_AT, tag, TAG_BYTES);
    hide(&seal->keys[0], bytes + TAG_AT, bytes + HIDDEN_AT);
    encode(bytes, text);
}

static int opens(const key_pair *key, const unsigned char *sealed, unsigned char *bytes)
{
    unsigned char tag[SHA256_DIGEST_LENGTH];

    memcpy(bytes, sealed, BYTES);
    hide(key, bytes + TAG_AT, bytes + HIDDEN_AT);
    digest(&key->sign, bytes, TAG_AT, tag);
    return CRYPTO_memcmp(tag, bytes + TAG_AT, TAG_BYTES) == 0;
}

static void take_apart(const unsigned char *bytes, rp_sealed *what)
{
    *what = (rp_sealed){ .number = bytes[HIDDEN_AT + 8] << 8 | bytes[HIDDEN_AT + 9] };
    for (int i = 0; i < 4; i++)
        what->expires = what->expires << 8 | bytes[EXPIRES_AT + i];
    for (int i = 0; i < 8; i++)
        what->id = what->id << 8 | bytes[HIDDEN_AT + i];
}

int rp_seal_open(const rp_seal *seal, rp_span value, rp_sealed *what)
{
    unsigned char sealed[BYTES], bytes[BYTES];

    if (value.len != RP_SEAL_TEXT || !decode(value.at, sealed) || sealed[0] != VERSION)
        return -1;
    for (int key = 0; key < seal->count; key++) {
        if (opens(&seal->keys[key], sealed, bytes)) {
            take_apart(bytes, what);
            return key;
        }
    }
    return -1;
}
